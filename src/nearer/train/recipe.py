"""What a training run is told, and what it tells: the same for both models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nearer.train.hardware import Precision
from nearer.train.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run learns; the same for both models."""

    steps: int
    evaluate_at: Sequence[int]
    patience: int
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    precision: Precision
    checkpoint_steps: int
    seed: int
    device: str = "cpu"
    optimizer: str = "adamw_torch_fused"
    """As transformers names it."""
    report_to: Sequence[str] = ()
    """Integrations of transformers that are shown how it goes."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the processes of a run share the work; the result is the same but for rounding.

    Args:
        world: all processes.
        deepspeed: settings of DeepSpeed; None: each process has the whole model.
        chunk: texts or pairs that a process passes through the model at once; None: all that are its part of a step.
        separate: queries and texts get a backward pass each even where they are not cut into chunks.
        rehearse: take two steps of the longest texts and forget them, to see whether they fit.
        launched: this process was started for the training alone: the best weights are left in the work area, and
            another one publishes them.
    """

    world: World = ALONE
    deepspeed: dict[str, Any] | None = None
    chunk: int | None = None
    separate: bool = False
    rehearse: bool = False
    launched: bool = False

    @property
    def plain(self) -> bool:
        """One process, one backward pass a step: the trainer's own step does."""
        return self.world.size == 1 and self.chunk is None and self.deepspeed is None


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run went; unless the process was launched for it, the model holds the best weights.

    `scores` are what the best weights gave the probes when they were measured, `base_scores` what the base model did.
    """

    history: dict[int, float]
    best_step: int
    steps: int
    cpu_seconds: float
    scores: list[float]
    base_scores: list[float]
