"""However a run's processes divide the work, the model is that of one process with the same batches."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_root import prepare

from .processes import Processes

FULL = pytest.mark.full
METHODS = ["none", "zero1", "zero2", "zero3", "zero1_offload", "zero2_offload", "zero3_offload"]
SECTION = {
    "learning_rate": 0.05,
    "warmup_share": 0.0,
    "batch_size": 7,  # not divisible by the number of processes
    "max_steps": 8,
    "epochs": 5,
    "val_split": 0.2,
    "weight_decay": 0.0,
    "max_grad_norm": 1e9,
    "dropout": 0.0,
    "evaluations_per_epoch": 1,
    "precision": "fp32",
}
EMBEDDING = {**SECTION, "negatives_per_query": 2, "scale": 20.0}
RERANKER = {**SECTION, "batch_size": 14, "max_pair_tokens": 96}
LORA = {"rank": 4, "alpha": 8.0}


class Matrix:
    """Trains each case once; SGD, so that a wrong factor of the gradient shows, which Adam would hide."""

    def __init__(self, processes: Processes, top: Path) -> None:
        self.processes = processes
        self.top = top
        self.roots: dict[tuple[str, str], Path] = {}
        self.known: dict[str, dict[str, torch.Tensor]] = {}

    def weights(self, model: str, architecture: str, **more: Any) -> dict[str, torch.Tensor]:
        name = "-".join([model, architecture, *(f"{key}={value}" for key, value in sorted(more.items()))])
        name = (
            name.replace("/", "_").replace(" ", "").replace("'", "").replace("{", "").replace("}", "").replace(":", "")
        )
        if name not in self.known:
            if (model, architecture) not in self.roots:
                root = self.top / f"root-{model}-{architecture}"
                self.roots[model, architecture] = prepare(root, model, architecture=architecture)
            world = more.pop("world", 1)
            section = {**(EMBEDDING if model == "embedding" else RERANKER), **more}
            work = self.top / name
            codes = self.processes.train(
                self.roots[model, architecture], model, work, section, world=world, optimizer="sgd",
                publish=str(work / "published"),
            )  # fmt: skip
            assert codes == [0] * world, (work / "log").read_text()[-3000:]
            self.known[name] = load_file(work / "best.safetensors")
            self.known[name] |= {
                f"published {key}": value for key, value in load_file(work / "published" / "model.safetensors").items()
            }
        return self.known[name]

    def compare(self, model: str, architecture: str, *, lora: bool, **more: Any) -> float:
        """The largest difference of a weight, after every weight was seen to move."""
        both = {"lora": LORA} if lora else {}
        both |= {name: more[name] for name in ("loss", "retriever") if name in more}
        expected = self.weights(model, architecture, **both)
        found = self.weights(model, architecture, **{"world": 2, **both, **more})
        assert expected.keys() == found.keys()
        assert all(value.numel() for value in found.values())
        return max(float((found[name] - value).abs().max()) for name, value in expected.items())


@pytest.fixture(scope="module")
def matrix(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(processes, tmp_path_factory.mktemp("matrix"))


SAMPLE: list[Any] = [
    pytest.param("embedding", "gpt_neox", {"deepspeed": "none", "lora": True, "chunk_size": 2}, marks=FULL),
    ("embedding", "gpt_neox", {"deepspeed": "zero3", "lora": False, "chunk_size": 2, "activation_checkpointing": True}),
    (
        "reranker",
        "bert",
        {"deepspeed": "zero2", "lora": False, "chunk_size": 4, "loss": "listwise", "retriever": "embedder"},
    ),
]


@pytest.mark.parametrize(("model", "architecture", "more"), SAMPLE, ids=str)
def test_two_processes_make_the_model_of_one(
    matrix: Matrix, model: str, architecture: str, more: dict[str, Any]
) -> None:
    """After 8 steps of SGD all weights, and those that are published, equal one process's to 1e-5."""
    assert matrix.compare(model, architecture, **more) < 1e-5


@FULL
@pytest.mark.parametrize("method", ["zero1", "zero2_offload", "zero3", "zero3_offload"])
def test_one_process_alone_may_offload(matrix: Matrix, method: str) -> None:
    """With nobody to divide with: the same model, measured and saved."""
    assert matrix.compare("embedding", "bert", lora=False, world=1, deepspeed=method, chunk_size=3) < 1e-5


@pytest.mark.parametrize("architecture", ["bert", pytest.param("gpt_neox", marks=FULL)])
def test_activations_computed_again_change_nothing(matrix: Matrix, architecture: str) -> None:
    """In one process, where nothing else differs."""
    assert matrix.compare("embedding", architecture, lora=False, world=1, activation_checkpointing=True) < 1e-5


@FULL
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("method", METHODS)
def test_lists_of_two_processes_are_those_of_one(matrix: Matrix, method: str, chunk: int | None) -> None:
    """Answers against their own negatives, from the lists of a retriever that each encodes a part of the texts for."""
    more = {"deepspeed": method, "chunk_size": chunk, "loss": "listwise", "retriever": "embedder"}
    assert matrix.compare("reranker", "bert", lora=False, **more) < 1e-5


@FULL
@pytest.mark.parametrize("model", ["embedding", "reranker"])
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_matrix(matrix: Matrix, model: str, method: str) -> None:
    """Every method, with and without LoRA, activation checkpointing and chunks."""
    architectures = ["bert", "gpt_neox"] if model == "embedding" else ["bert"]
    for architecture, lora, again, chunk in itertools.product(architectures, [False, True], [False, True], [None, 2]):
        more = {"deepspeed": method, "activation_checkpointing": again, "chunk_size": chunk}
        apart = matrix.compare(model, architecture, lora=lora, **more)
        print(
            f"{model} {architecture} {method} lora={lora} activation_checkpointing={again} chunk={chunk}: {apart:.1e}"
        )
        assert apart < 1e-5
