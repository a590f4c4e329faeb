"""LoRA: adapters train, the model that is published is a plain one, and it is what was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_root import prepare

from nearer.errors import GateRefused, InputError
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import open_store
from nearer.train import publish
from nearer.train import run as job

SECTION = {
    "base_model": "base", "learning_rate": 2e-2, "batch_size": 8, "max_steps": 6, "val_split": 0.2, "precision": "fp32",
    "lora": {"rank": 4, "alpha": 8},
}  # fmt: skip


def train(root: Path, model: str, **more: Any) -> Path:
    settings = Settings.model_validate({"artifacts": str(root), "seed": 7, "train": {model: {**SECTION, **more}}})
    job.run(settings, open_store(str(root)), Silent(), model=model)  # type: ignore[arg-type]
    return root / "models" / f"fine_tuned_{model}"


def test_the_published_embedder_is_base_and_adapter(tmp_path: Path) -> None:
    """Plain transformers with the adapter beside gives what the merged weights give, and the base alone does not."""
    from peft import PeftModel
    from transformers import AutoModel

    root = prepare(tmp_path, "embedding", architecture="gpt_neox")
    made = train(root, "embedding")
    base, merged = load_file(root / "base" / "model.safetensors"), load_file(made / "model.safetensors")
    assert base.keys() == merged.keys()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if "query_key_value.weight" in name}
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(made)(ids).last_hidden_state
        plain = AutoModel.from_pretrained(root / "base")(ids).last_hidden_state
        adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(root / "base"), made / "adapter")
        found = adapted(ids).last_hidden_state
    assert float((found - expected).abs().max()) < 1e-5
    assert float((plain - expected).abs().max()) > 1e-3


def test_the_reranker_s_head_trains_beside_its_adapters(tmp_path: Path) -> None:
    """A fresh head has no use for an adapter: it is trained whole, with those of the encoder."""
    root = prepare(tmp_path, "reranker")
    made = train(root, "reranker", max_pair_tokens=64)
    base, merged = load_file(root / "base" / "model.safetensors"), load_file(made / "model.safetensors")
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert {"classifier.weight", "classifier.bias"} <= changed
    assert all("attention.self" in name for name in changed - {"classifier.weight", "classifier.bias"})
    assert json.loads((made / "adapter" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lora": {"targets": ["nothing"]}}, "query_key_value"),
        ({"freeze": {"layers": 1}}, "one of the two"),
        ({"gpus_per_node": 9}, "batch_size: 9 or more"),
        ({"nodes": 2}, "MASTER_ADDR"),
        ({"deepspeed": "nothing.json"}, "nothing.json"),
        ({"deepspeed": "zero2", "precision": "fp16"}, "fp16"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    """Before anything is trained, with the way out."""
    root = prepare(tmp_path, "embedding", architecture="gpt_neox")
    with pytest.raises(InputError) as raised:
        train(root, "embedding", **more)
    assert said in str(raised.value)
    assert not (root / "models").exists()


def test_a_model_that_was_not_saved_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When what is on the disk scores as the base does, nothing is published, and it is said: exit 3."""
    root = prepare(tmp_path, "embedding")
    save = publish.save_embedder

    def forget(embedder: Any, directory: Path) -> Any:
        weights = load_file(root / "base" / "model.safetensors")
        embedder.model.transformers_model.load_state_dict(weights)
        return save(embedder, directory)

    monkeypatch.setattr(publish, "save_embedder", forget)
    with pytest.raises(GateRefused, match="not the one that was trained"):
        train(root, "embedding", lora=None)
    assert not (root / "models" / "fine_tuned_embedding" / "manifest.json").exists()
