"""A training run that was killed goes on to the same last bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nearer.progress import Silent
from nearer.store import Built, open_store, produce
from nearer.testing import korean_dataset, tiny_cross_encoder, tiny_embedder

ROWS_PER_EPOCH = 16  # steps; kills below stand in the second epoch

CHILD = """
import json, os, signal, sys
from nearer import process
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import open_store
from nearer.train import checkpoint, loop, run

root, model, section, how, at = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], int(sys.argv[5])
kill = lambda number: os.kill(os.getpid(), number)
begin, save, evaluate = loop._Follow.on_step_begin, checkpoint.Checkpoints.save, loop._Run.evaluate

def on_step_begin(self, args, state, control, **more):
    if how == "kill between" and state.global_step == at: kill(signal.SIGKILL)
    if how == "term" and state.global_step == at - 1: kill(signal.SIGTERM)
    begin(self, args, state, control, **more)

def saving(self, trainer, journal):
    if how == "kill saving" and trainer.state.global_step >= at:
        checkpoint._sync = lambda path: kill(signal.SIGKILL)
    save(self, trainer, journal)

def evaluating(self, step):
    if how == "kill evaluating" and step >= at: kill(signal.SIGKILL)
    if how == "term evaluating" and step >= at: kill(signal.SIGTERM)
    evaluate(self, step)

loop._Follow.on_step_begin, checkpoint.Checkpoints.save, loop._Run.evaluate = on_step_begin, saving, evaluating
process.install_signal_handlers()
settings = Settings.model_validate({"artifacts": root, "seed": 7, "train": {model: section}})
try:
    run.run(settings, open_store(root), Silent(), model=model)
except Exception as error:
    sys.exit(getattr(error, "code", 1))
"""

EMBEDDING = {
    "base_model": "base",
    "learning_rate": 2e-3,
    "batch_size": 6,
    "max_steps": 30,
    "epochs": 5,
    "val_split": 0.2,
    "negatives_per_query": 2,
    "evaluations_per_epoch": 2,
    "patience": 9,
    "checkpoint_steps": 5,
    "dropout": 0.3,
}
RERANKER = {key: value for key, value in EMBEDDING.items() if key not in {"negatives_per_query"}} | {
    "batch_size": 24,
    "max_pair_tokens": 96,
}


def prepare(root: Path, model: str) -> Path:
    def build(directory: Path, _work: object) -> Built:
        korean_dataset(50, 1).write(directory)
        return Built()

    produce(
        open_store(str(root)),
        Silent(),
        kind="dataset",
        name="generate",
        address="datasets/dataset",
        fingerprint="d" * 64,
        inputs={},
        settings={},
        build=build,
    )
    (tiny_embedder if model == "embedding" else tiny_cross_encoder)(root / "base")
    return root


def train(root: Path, model: str, section: dict[str, Any], *, how: str = "", at: int = -1) -> int:
    arguments = [sys.executable, "-c", CHILD, str(root), model, json.dumps(section), how, str(at)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(arguments, check=False, capture_output=True, env=environment).returncode


def result(root: Path, model: str) -> tuple[Any, Any, Any]:
    manifest = json.loads((root / "models" / f"fine_tuned_{model}" / "manifest.json").read_text())
    return manifest["files"], manifest["metrics"]["history"], manifest["metrics"]["best_step"]


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".nearer" / "work").glob("*/step-*"))


@pytest.fixture(scope="module", params=["embedding", "reranker"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    root = prepare(tmp_path_factory.mktemp("undisturbed"), request.param)
    assert train(root, request.param, EMBEDDING if request.param == "embedding" else RERANKER) == 0
    return request.param, result(root, request.param)


@pytest.mark.parametrize(
    ("how", "at", "code", "left"),
    [
        ("kill between", 23, -signal.SIGKILL, ["step-20"]),
        ("kill saving", 25, -signal.SIGKILL, ["step-20", "step-25.tmp"]),
        ("kill evaluating", 21, -signal.SIGKILL, ["step-20"]),
        ("term", 22, 75, ["step-22"]),
        ("term evaluating", 21, 75, ["step-24"]),
    ],
)
def test_a_run_that_was_stopped_ends_as_if_it_was_not(
    undisturbed: tuple[str, Any], tmp_path: Path, how: str, at: int, code: int, left: list[str]
) -> None:
    """Killed between steps, while a checkpoint is written, in a validation, or asked to stop: the same bytes, scores.

    In the second epoch, with dropout, rotating negatives and a falling learning rate.
    """
    model, expected = undisturbed
    section = EMBEDDING if model == "embedding" else RERANKER
    root = prepare(tmp_path, model)
    assert train(root, model, section, how=how, at=at) == code
    assert checkpoints(root) == left
    assert not (root / "models").exists()
    assert train(root, model, section) == 0
    assert result(root, model) == expected
    assert expected[2] > 0
    assert checkpoints(root) == []


def test_stopped_twice_ends_as_if_it_was_not(undisturbed: tuple[str, Any], tmp_path: Path) -> None:
    """A run that goes on from a checkpoint and is killed again goes on from the next one."""
    model, expected = undisturbed
    section = EMBEDDING if model == "embedding" else RERANKER
    root = prepare(tmp_path, model)
    assert train(root, model, section, how="kill between", at=8) == -signal.SIGKILL
    assert train(root, model, section, how="term", at=19) == 75
    assert checkpoints(root) == ["step-19"]
    assert train(root, model, section) == 0
    assert result(root, model) == expected
