"""A training run that was killed goes on to the same last bit."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import forked
import pytest
from train_root import prepare

from nearer.progress import Silent
from nearer.store import open_store


def train(root: str, model: str, section: dict[str, Any], how: str, at: int) -> None:
    """A run that is killed, or asked to stop, at a step."""
    from nearer import process
    from nearer.settings.model import Settings
    from nearer.train import checkpoint, loop, run

    def kill(number: int) -> None:
        os.kill(os.getpid(), number)

    begin, save, evaluate = loop._Follow.on_step_begin, checkpoint.Checkpoints.save, loop._Run.evaluate

    def on_step_begin(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if how == "kill between" and state.global_step == at:
            kill(signal.SIGKILL)
        if how == "term" and state.global_step == at - 1:
            kill(signal.SIGTERM)
        begin(self, args, state, control, **more)

    def saving(self: Any, trainer: Any, journal: Any) -> None:
        if how == "kill saving" and trainer.state.global_step >= at:
            checkpoint._sync = lambda _path: kill(signal.SIGKILL)
        save(self, trainer, journal)

    def evaluating(self: Any, step: int) -> None:
        if how == "kill evaluating" and step >= at:
            kill(signal.SIGKILL)
        if how == "term evaluating" and step >= at:
            kill(signal.SIGTERM)
        evaluate(self, step)

    loop._Follow.on_step_begin, checkpoint.Checkpoints.save, loop._Run.evaluate = on_step_begin, saving, evaluating
    # The last weights are published, so that every step up to the end shows in the bytes.
    checkpoint.Journal.best_step = property(lambda self: max(self.history, default=0))
    process.install_signal_handlers()
    settings = Settings.model_validate({"artifacts": root, "seed": 7, "train": {model: section}})
    run.run(settings, open_store(root), Silent(), model=model)


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
RERANKER = {
    **EMBEDDING, "batch_size": 24, "max_pair_tokens": 96, "loss": "listwise", "hard_negatives": 2, "random_negatives": 1,
    "retriever": "embedder", "rerank_depth": 5,
}  # fmt: skip
RERANKER.pop("negatives_per_query")
SECTIONS = {"embedding": EMBEDDING, "reranker": RERANKER}


def trained(root: Path, model: str, *, how: str = "", at: int = -1) -> int:
    """The exit code."""
    ended = forked.call(root, train, str(root), model, SECTIONS[model], how, at)
    print(ended.said)
    return ended.code


def result(root: Path, model: str) -> tuple[Any, Any, Any]:
    manifest = json.loads((root / "models" / f"fine_tuned_{model}" / "manifest.json").read_text())
    return manifest["files"], manifest["metrics"]["history"], manifest["metrics"]["best_step"]


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".nearer" / "work").glob("*/step-*"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that nothing disturbs ends with, for each model."""
    results = {}
    for model in SECTIONS:
        root = prepare(tmp_path_factory.mktemp("undisturbed"), model)
        assert trained(root, model) == 0
        results[model] = result(root, model)
        assert results[model][2] == 30
    return results


FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("model", "how", "at", "code", "left"),
    [
        ("embedding", "kill between", 23, -signal.SIGKILL, ["step-20"]),
        ("embedding", "kill saving", 25, -signal.SIGKILL, ["step-20", "step-25.tmp"]),
        ("embedding", "term evaluating", 21, 75, ["step-24"]),
        ("reranker", "kill between", 23, -signal.SIGKILL, ["step-20"]),
        ("reranker", "term evaluating", 21, 75, ["step-24"]),
        pytest.param("embedding", "kill evaluating", 21, -signal.SIGKILL, ["step-20"], marks=FULL),
        pytest.param("embedding", "term", 22, 75, ["step-22"], marks=FULL),
        pytest.param("reranker", "kill saving", 25, -signal.SIGKILL, ["step-20", "step-25.tmp"], marks=FULL),
        pytest.param("reranker", "kill evaluating", 21, -signal.SIGKILL, ["step-20"], marks=FULL),
        pytest.param("reranker", "term", 22, 75, ["step-22"], marks=FULL),
    ],
)
def test_a_run_that_was_stopped_ends_as_if_it_was_not(
    undisturbed: dict[str, Any], tmp_path: Path, model: str, how: str, at: int, code: int, left: list
) -> None:
    """Killed between steps, while a checkpoint is written, in a validation, or asked to stop: the same bytes, scores.

    In the second epoch, with dropout, rotating negatives and a falling learning rate.
    """
    root = prepare(tmp_path, model)
    assert trained(root, model, how=how, at=at) == code
    assert checkpoints(root) == left
    assert not (root / "models").exists()
    assert trained(root, model) == 0
    assert result(root, model) == undisturbed[model]
    assert checkpoints(root) == []


@pytest.mark.parametrize("model", ["embedding", pytest.param("reranker", marks=FULL)])
def test_stopped_twice_ends_as_if_it_was_not(undisturbed: dict[str, Any], tmp_path: Path, model: str) -> None:
    """A run that goes on from a checkpoint and is killed again goes on from the next one."""
    root = prepare(tmp_path, model)
    assert trained(root, model, how="kill between", at=8) == -signal.SIGKILL
    assert trained(root, model, how="term", at=19) == 75
    assert checkpoints(root) == ["step-19"]
    assert trained(root, model) == 0
    assert result(root, model) == undisturbed[model]
