"""Unfinished training on disk: complete or invisible, and enough to go on to the same last bit.

    <work>/best.safetensors     the trainable weights of the best validation so far
    <work>/step-N/              weights, optimizer, learning rate, random states, trainer's and our own state, and the
                                best weights as they were then (a hard link)

A checkpoint is written under another name and then renamed, and then shared, so that another machine finds it where the
artifacts are in S3. Frozen weights are not written: they are the base model's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from nearer.errors import ArtifactCorrupt, ArtifactMissing
from nearer.store import WorkArea
from nearer.train.trainable import put_weights, trainable_weights

_STEP = re.compile(r"^step-(\d+)$")
_WEIGHTS = "weights.safetensors"
_BEST = "best.safetensors"
_JOURNAL = "journal.json"


@dataclass(kw_only=True)
class Journal:
    """What a run has found out so far."""

    history: dict[int, float] = field(default_factory=dict)
    """Step → validation nDCG@10; step 0 is the base model."""
    base_may_win: bool = True
    """False for a base model without a head of its own: random weights are never the best ones."""
    base_error: float = 0.0
    """Standard error of the base model's validation."""
    cpu_seconds: float = 0.0
    """Of all processes that worked on this run, up to the last checkpoint."""

    @property
    def best_step(self) -> int:
        """The first step that had the best validation; 0 (the base model) when training did harm, or has not begun.

        Harm is a validation below the base's by more than one standard error. Validation queries are few and often
        made from the documents, where the base may already be near its ceiling; what they cannot tell apart must not
        veto the training. `eval` decides, on held-out queries.
        """
        best = max((step for step in self.history if step), key=lambda step: (self.history[step], -step), default=0)
        harmed = self.base_may_win and 0 in self.history and self.history[best] < self.history[0] - self.base_error
        return 0 if harmed else best

    def is_over(self, patience: int) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        return sum(step > self.best_step for step in self.history) >= patience


class Checkpoints:
    """The checkpoints of one run, in its work area.

    Args:
        work: the area.
        warn: told of a checkpoint that cannot be used.
    """

    def __init__(self, work: WorkArea, *, warn: Callable[[str], None]) -> None:
        self.work = work
        self.warn = warn
        self.directory = work.path
        self.directory.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Path | None:
        """The complete checkpoint of the largest step, here or in the store."""
        for name in sorted(self._names(), key=_step, reverse=True):
            try:
                return self.work.bring(name)
            except (ArtifactCorrupt, ArtifactMissing) as error:
                self.warn(f"the checkpoint {name} cannot be used, the one before is: {error.what}")
        return None

    def _names(self) -> set[str]:
        names = {*self.work.shared(), *(path.name for path in self.directory.iterdir())}
        return {name for name in names if _STEP.match(name)}

    def save_best(self, model: torch.nn.Module) -> None:
        """Keep the trainable weights as the best ones."""
        temporary = self.directory / f"{_BEST}.tmp"
        save_file(trainable_weights(model), temporary)
        _sync(temporary)
        temporary.replace(self.directory / _BEST)

    def load_best(self, model: torch.nn.Module) -> None:
        """Put the best weights into the model."""
        put_weights(model, load_file(self.directory / _BEST))

    def save(self, trainer: Any, journal: Journal) -> None:
        """Write the checkpoint of the trainer's step, then remove older ones."""
        final = self.directory / f"step-{trainer.state.global_step}"
        temporary = self.directory / f"{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(trainable_weights(trainer.model), temporary / _WEIGHTS)
        # The trainer's own writers, so that its own reader finds what it expects; they have no public names.
        trainer._save_optimizer_and_scheduler(str(temporary))  # noqa: SLF001
        trainer._save_scaler(str(temporary))  # noqa: SLF001
        trainer._save_rng_state(str(temporary))  # noqa: SLF001
        trainer.state.save_to_json(str(temporary / "trainer_state.json"))
        _link(self.directory / _BEST, temporary / _BEST)
        (temporary / _JOURNAL).write_text(json.dumps(asdict(journal)), encoding="utf-8")
        for file in temporary.iterdir():
            _sync(file)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(self.directory)
        self.work.share(final.name, instead_of=self._names() - {final.name})
        for path in self.directory.iterdir():
            if path != final and (_STEP.match(path.name) or path.name.endswith(".tmp")):
                shutil.rmtree(path, ignore_errors=True)

    def restore(self, checkpoint: Path, model: torch.nn.Module) -> Journal:
        """Put a checkpoint's weights into the model and its best weights back into their place.

        Optimizer, learning rate and random states are read by the trainer (`resume_from_checkpoint`).
        """
        put_weights(model, load_file(checkpoint / _WEIGHTS))
        temporary = self.directory / f"{_BEST}.tmp"
        temporary.unlink(missing_ok=True)
        _link(checkpoint / _BEST, temporary)
        temporary.replace(self.directory / _BEST)
        raw = json.loads((checkpoint / _JOURNAL).read_text(encoding="utf-8"))
        history = {int(step): value for step, value in raw.pop("history").items()}
        return Journal(history=history, **raw)


def _step(name: str) -> int:
    return int(name.removeprefix("step-"))


def _link(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced, never changed; a copy where links are not known."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
