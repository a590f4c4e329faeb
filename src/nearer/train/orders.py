"""What is to be trained, in a form that can be sent to another process; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nearer.models.source import ModelSource
from nearer.settings.train import EmbeddingSettings, RerankerSettings
from nearer.store import WorkArea

FINISHED: Final = "finished"
"""The piece of a work area that holds a training that is over, and whose model is not published yet."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train on what.

    Args:
        model: which of the two.
        section: its section of the settings.
        base: the base model, on this machine.
        dataset_path: the dataset, likewise.
        seed: of every draw.
        retriever: the embedder that the reranker comes after; None: nobody knows.
    """

    model: Literal["embedding", "reranker"]
    section: EmbeddingSettings | RerankerSettings
    base: ModelSource
    dataset_path: Path
    seed: int
    retriever: ModelSource | None = None


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What each worker of a machine is told.

    Args:
        task: what to train.
        cuda: on GPUs.
        chunk: texts that pass through the model at once.
        area: the work area, on the machine that keeps it.
        far: whether it is shared with a store.
        scratch: a directory for this run of this machine.
    """

    task: Task
    cuda: bool
    chunk: int | None
    area: Path | None
    far: bool
    scratch: Path


def is_finished(work: WorkArea) -> bool:
    """Whether the training is over, so that its model can be published by this process alone."""
    return FINISHED in work.shared() or (work.path / FINISHED).is_dir()
