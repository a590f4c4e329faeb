"""What the dry run says of memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from nearer.errors import InputError
from nearer.models.source import known_config
from nearer.settings.model import Settings
from nearer.store import open_store
from nearer.train import fit
from nearer.train import run as job
from nearer.train.demand import Demand
from nearer.train.fit import chosen_method, memory_notes

ASSETS = Path(__file__).parents[1] / "assets"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """64 GiB, no GPU and no cached model, whatever runs the tests and whatever they left."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(fit, "_host_bytes", lambda: 64 * GIB)
    monkeypatch.setattr(fit, "_gpus", list)


def demand(tmp_path: Path, **changes: Any) -> Demand:
    config = known_config("EleutherAI/polyglot-ko-1.3b", store=open_store(str(tmp_path)))
    given: dict[str, Any] = {
        "config": config,
        "reranker": False,
        "passes": [(16, 64), (32, 256)],
        "chunk": 8,
        "nodes": 1,
        "processes": None,
        "deepspeed": "auto",
        "precision": "bf16",
        "device": "auto",
        "checkpointing": False,
        "dropout": None,
        "freeze_embeddings": False,
        "freeze_layers": 0,
        "lora_rank": None,
        "lora_targets": None,
        **changes,
    }
    return Demand(**given)


def say(tmp_path: Path, **changes: Any) -> str:
    return "\n".join(memory_notes(demand(tmp_path, **changes)))


def test_without_a_gpu_common_cards_are_looked_at(tmp_path: Path) -> None:
    """A laptop says what its own memory holds, and what would fit on which card; one card is told what ZeRO saves."""
    text = say(tmp_path)
    assert "gpt_neox, 1.27 G weights of which 1.27 G train, bf16 products" in text
    assert "weights 4.7, gradients 4.7, optimizer 9.5 = 18.9 GiB a process" in text
    assert "of this machine's 64.0 GiB" in text
    assert "one GPU, where ZeRO without offload saves nothing" in text
    assert "24 GiB: zero2_offload with 21.4 GiB of host memory, or none with lora" in text
    assert "80 GiB: none" in text


@pytest.mark.parametrize(
    ("gpus", "changes", "expected"),
    [
        ([24], {}, ["deepspeed: zero2_offload: on one GPU ZeRO without offload saves nothing", "of 24.0 GiB a GPU"]),
        ([80], {}, ["deepspeed: none: each GPU has room for everything"]),
        ([24] * 8, {}, ["on each of 8 processes", "deepspeed: zero1: the least division that fits", "a node: "]),
        ([24], {"lora_rank": 16}, ["of which 3.15 M train", "deepspeed: none: each GPU has room"]),
        ([16], {"chunk": None}, ["DOES NOT FIT", "what would fit: activation_checkpointing: true"]),
        ([24], {"deepspeed": "none"}, ["deepspeed: none: as the settings say", "DOES NOT FIT"]),
    ],
)
def test_a_gpu_that_is_there_is_planned_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[int], changes: dict[str, Any], expected: list[str]
) -> None:
    """What `auto` chooses and why, what it takes of how much, and the way out where nothing fits."""
    monkeypatch.setattr(fit, "_gpus", lambda: [size * GIB for size in gpus])
    text = say(tmp_path, **changes)
    for words in expected:
        assert words in text
    if "deepspeed: " in text:
        assert f"deepspeed: {chosen_method(demand(tmp_path, **changes))}: " in text


def test_a_file_of_one_s_own_is_planned(tmp_path: Path) -> None:
    """States in bf16 take half; they are refused where the model computes in fp32."""
    own = str(ASSETS / "zero2-bf16-states.json")
    text = say(tmp_path, deepspeed=own)
    assert "model states by zero2, all in bf16: weights 2.4, gradients 2.4, optimizer 7.1" in text
    with pytest.raises(InputError, match="precision: bf16"):
        say(tmp_path, deepspeed=own, precision="fp32")


def test_a_smaller_chunk_and_checkpointing_need_less(tmp_path: Path) -> None:
    """The activations of the whole share come down to those of a chunk, and of one block."""

    def activations(**changes: Any) -> float:
        (line,) = [line for line in say(tmp_path, **changes).splitlines() if "activations" in line]
        return float(line.partition(" GiB")[0].rpartition(" ")[2])

    whole, chunk, block = activations(chunk=None), activations(chunk=8), activations(chunk=8, checkpointing=True)
    assert whole > 3 * chunk > 9 * block > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [(None, "the base model is not here yet"), ({"model_type": "mamba"}, "architecture 'mamba' is not known")],
)
def test_what_is_not_known_is_said(tmp_path: Path, config: dict[str, Any] | None, words: str) -> None:
    """No figure is made up."""
    assert say(tmp_path, config=config) == f"memory: not planned: {words}"


def test_a_cached_hub_model_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a hub id comes from the local cache's config, without the network; of a directory, from its own."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "artifacts"))
    assert known_config("team/model", store=store) is None
    home = tmp_path / "cache" / "models--team--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots" / "abc").mkdir(parents=True)
    (home / "snapshots" / "abc" / "config.json").write_text('{"model_type": "cached"}')
    assert known_config("team/model", store=store) == {"model_type": "cached"}
    own = tmp_path / "artifacts" / "team" / "model"
    own.mkdir(parents=True)
    (own / "config.json").write_text('{"model_type": "own"}')
    assert known_config("team/model", store=store) == {"model_type": "own"}
    (own / "config.json").write_text("no json")
    assert known_config("team/model", store=store) is None


@pytest.mark.parametrize(("model", "words"), [("embedding", "gpt_neox, 1.27 G"), ("reranker", "bert, 177.85 M")])
def test_the_plan_of_train_speaks_of_memory(tmp_path: Path, model: Any, words: str) -> None:
    """`nearer train --dry-run` with every default says what the default models need."""
    settings = Settings.model_validate(json.loads('{"train": {"embedding": {}, "reranker": {}}}'))
    notes = job.plan(settings, open_store(str(tmp_path)), model=model).notes
    assert any(note.startswith(f"memory: {words}") for note in notes)
