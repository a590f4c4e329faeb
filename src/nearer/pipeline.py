"""The jobs in order, from one settings document."""

from __future__ import annotations

from typing import Any

from nearer.errors import InputError
from nearer.settings import Settings


def steps(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """The job packages to run and the extra arguments of each.

    Models that have a section under `train` are trained. The reranker is exported, and an index made, when
    the model for it is trained or named.

    Raises:
        InputError: nothing is trained.
    """
    reranker = settings.train.reranker is not None
    embedding = settings.train.embedding is not None
    if not (embedding or reranker):
        raise InputError(
            "nothing says what to train",
            rule="`train.embedding` or `train.reranker` in the settings",
            way_out="add one of the sections; `train: {embedding: {}}` takes every default",
        )
    return [
        ("generate", {}),
        *([("train", {"model": "embedding"})] if embedding else []),
        *([("train", {"model": "reranker"})] if reranker else []),
        ("evaluate", {}),
        *([("export", {})] if reranker or settings.export_onnx.reranker else []),
        *([("reindex", {})] if embedding or settings.reindex.embedder else []),
    ]
