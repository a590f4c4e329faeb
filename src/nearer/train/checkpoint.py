"""Unfinished training on disk: complete or invisible, and enough to go on to the same last bit.

    <work>/best.safetensors     the trainable weights that would be published now
    <work>/step-N/              weights, optimizer states, learning rate, journal, the random states of a run of one
                                process, and the weights to publish as they were then (a hard link)

A checkpoint is written under another name and then renamed, and then shared, so that another machine finds it where the
artifacts are in S3. Frozen weights are not written: they are the base model's. Weights and optimizer states are whole
tensors by name, so a run goes on with any number of processes, divided in any way; one of several processes needs no
random states, because it throws new dice for each step.
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

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nearer.errors import ArtifactCorrupt, ArtifactMissing
from nearer.store import WorkArea
from nearer.train.measure import Measured, standard_error
from nearer.train.states import optimizer_states, put_masters, put_optimizer_states, put_weights, trainable_weights
from nearer.train.world import ALONE, World

_STEP = re.compile(r"^step-(\d+)$")
_WEIGHTS = "weights.safetensors"
_BEST = "best.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_REST = "schedule.json"
_JOURNAL = "journal.json"
_BY_STEP = ("history", "errors", "gaps")


@dataclass(kw_only=True)
class Journal:
    """What a run has found out so far."""

    history: dict[int, float] = field(default_factory=dict)
    """Step → validation nDCG@10; step 0 is the base model."""
    base_may_win: bool = True
    """False for a base model without a head of its own: random weights are never the best ones."""
    alike: bool = False
    """The validation queries are of the kind that the test queries are."""
    base_error: float = 0.0
    """Standard error of the base model's validation."""
    base_values: list[float] = field(default_factory=list)
    """The base model's nDCG@10 of each validation query."""
    errors: dict[int, float] = field(default_factory=dict)
    """Step → standard error of its difference from the base model, query by query."""
    top_values: list[float] = field(default_factory=list)
    """Each validation query's nDCG@10 in the best validation that did no harm."""
    gaps: dict[int, float] = field(default_factory=dict)
    """Step → standard error of its difference from the best validation before it, query by query."""
    base_scores: list[float] = field(default_factory=list)
    """What the base model gave the probes."""
    best_scores: list[float] = field(default_factory=list)
    """What the best weights so far gave them."""
    cpu_seconds: float = 0.0
    """Of all processes that worked on this run, up to the last checkpoint."""

    @property
    def best_step(self) -> int:
        """The last step that validation cannot tell from the best; 0 (the base model) after harm, or before the first.

        Cannot tell: it is below the best by no more than one standard error of the difference, query by query (Hastie
        et al., The Elements of Statistical Learning, 7.10, have such a rule for the simplest model). The learning rate
        falls to zero, so that of equals the last one is the likeliest; the best of several noisy validations is often
        the luckiest (docs/log.md, 2026-12-01).

        Harm is a validation below the base's by more than one standard error of the difference. Where validation
        queries are made from the documents and the test's are real, the base may already be near the ceiling of the
        former, and what is lost there be won twice on the latter (docs/log.md, 2026-11-23): so there it is harm only
        from one standard error of the base's own validation, which is larger. `eval` decides, on held-out queries.
        """
        top = self.top_step
        level = (s for s in self.history if s > top > 0 and self.history[s] >= self.history[top] - self.gaps[s])
        return max((step for step in level if not self._harmed(step)), default=top)

    @property
    def top_step(self) -> int:
        """The first step that had the best validation, of those that did no harm; 0: there is none."""
        fit = (step for step in self.history if step and not self._harmed(step))
        return max(fit, key=lambda step: (self.history[step], -step), default=0)

    def _harmed(self, step: int) -> bool:
        if not (self.base_may_win and 0 in self.history):
            return False
        error = self.errors.get(step, self.base_error) if self.alike else self.base_error
        return self.history[step] < self.history[0] - error

    def note(self, step: int, measured: Measured) -> None:
        """Take down a validation; the base model's, step 0, comes first."""
        self.history[step] = measured.mean
        if step == 0:
            self.base_error, self.base_values = measured.error, list(measured.values)
            return
        if self.base_values:
            self.errors[step] = standard_error(np.subtract(measured.values, self.base_values))
        if self.top_values:
            self.gaps[step] = standard_error(np.subtract(measured.values, self.top_values))
        if self.top_step == step:
            self.top_values = list(measured.values)

    def is_over(self, patience: int) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        return sum(step > self.top_step for step in self.history) >= patience

    def to_json(self) -> str:
        """All of it, so that a run that goes on decides as if it had never stopped."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Journal:
        """What `to_json` wrote, equal in every number."""
        raw = json.loads(text)
        by_step = {name: {int(step): value for step, value in raw[name].items()} for name in _BY_STEP}
        return cls(**(raw | by_step))


class Checkpoints:
    """The checkpoints of one run, in its work area.

    Args:
        work: the area.
        warn: told of a checkpoint that cannot be used.
        world: all processes; rank 0 alone reads and writes.
    """

    def __init__(self, work: WorkArea, *, warn: Callable[[str], None], world: World = ALONE) -> None:
        self.work = work
        self.warn = warn
        self.world = world
        self.directory = work.path
        self.directory.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Path | None:
        """The complete checkpoint of the largest step, here or in the store."""
        return self.world.share(self._latest() if self.world.main else None)

    def _latest(self) -> Path | None:
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
        """Remember the model's weights as those to publish, until there are better ones."""
        temporary = self.directory / f"{_BEST}.tmp"
        self._write(trainable_weights(model, world=self.world), temporary)
        if self.world.main:
            temporary.replace(self.directory / _BEST)

    def load_best(self, model: torch.nn.Module) -> None:
        """Give the model the best weights; it must not be divided."""
        put_weights(model, load_file(self.directory / _BEST) if self.world.main else {}, world=self.world)

    def save(self, trainer: Any, journal: Journal) -> None:
        """Write the checkpoint of the trainer's step, then remove older ones."""
        final = self.directory / f"step-{trainer.state.global_step}"
        temporary = self.directory / f"{final.name}.tmp"
        if self.world.main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        # One after the other, so that memory never holds copies of both.
        self._write(trainable_weights(trainer.model, world=self.world), temporary / _WEIGHTS)
        self._write(optimizer_states(trainer.model, trainer.optimizer, world=self.world), temporary / _OPTIMIZER)
        if not self.world.main:
            return
        scaler = trainer.accelerator.scaler
        rest = {
            "schedule": {"last_epoch": trainer.lr_scheduler.last_epoch, "rates": trainer.lr_scheduler.get_last_lr()},
            "scaler": scaler.state_dict() if scaler else None,
        }
        (temporary / _REST).write_text(json.dumps(rest), encoding="utf-8")
        if self.world.size == 1:
            trainer._save_rng_state(str(temporary))  # noqa: SLF001 - its reader has no public name either
        _link(self.directory / _BEST, temporary / _BEST)
        (temporary / _JOURNAL).write_text(journal.to_json(), encoding="utf-8")
        for file in temporary.iterdir():
            _sync(file)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(self.directory)
        self.work.share(final.name, instead_of=self._names() - {final.name})
        for path in self.directory.iterdir():
            if path != final and (_STEP.match(path.name) or path.name.endswith(".tmp")):
                shutil.rmtree(path, ignore_errors=True)

    def _write(self, tensors: dict[str, Tensor], path: Path) -> None:
        if self.world.main:
            save_file(tensors, path)

    def restore(self, checkpoint: Path, model: torch.nn.Module) -> Journal:
        """Put a checkpoint's weights into the model, before it is divided, and its best weights back into their place.

        The rest is read by `resume`, once there is an optimizer.
        """
        put_weights(model, load_file(checkpoint / _WEIGHTS) if self.world.main else {}, world=self.world)
        text = ""
        if self.world.main:
            temporary = self.directory / f"{_BEST}.tmp"
            temporary.unlink(missing_ok=True)
            _link(checkpoint / _BEST, temporary)
            temporary.replace(self.directory / _BEST)
            text = (checkpoint / _JOURNAL).read_text(encoding="utf-8")
        return Journal.from_json(self.world.share(text))

    def resume(self, checkpoint: Path, trainer: Any) -> None:
        """Put back optimizer states, learning rate and loss scale; called when the trainer has prepared everything."""
        main = self.world.main
        states = load_file(checkpoint / _OPTIMIZER) if main else {}
        put_optimizer_states(trainer.model, trainer.optimizer, states, world=self.world)
        if trainer.is_deepspeed_enabled:
            put_masters(trainer.model, load_file(checkpoint / _WEIGHTS) if main else {}, world=self.world)
        rest = self.world.share(json.loads((checkpoint / _REST).read_text(encoding="utf-8")) if main else {})
        schedule = trainer.lr_scheduler
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": rest["schedule"]["last_epoch"]})
        for group, rate in zip(trainer.optimizer.param_groups, rest["schedule"]["rates"], strict=True):
            group["lr"] = rate
        schedule.load_state_dict({**schedule.state_dict(), "_last_lr": rest["schedule"]["rates"]})
        if trainer.accelerator.scaler and rest["scaler"]:
            trainer.accelerator.scaler.load_state_dict(rest["scaler"])


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
