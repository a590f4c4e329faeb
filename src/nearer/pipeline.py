"""The jobs in order, from one settings document."""

from __future__ import annotations

from typing import Any

from nearer.settings import Settings


def steps(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """The job packages to run and the extra arguments of each.

    Models that have a section under `train` are trained, the embedding model when none has. The reranker is exported
    when it is trained or named.
    """
    reranker = settings.train.reranker is not None
    embedding = settings.train.embedding is not None or not reranker
    return [
        ("generate", {}),
        *([("train", {"model": "embedding"})] if embedding else []),
        *([("train", {"model": "reranker"})] if reranker else []),
        ("evaluate", {}),
        *([("export", {})] if reranker or settings.export_onnx.reranker else []),
        *([("reindex", {})] if embedding or settings.reindex.embedder else []),
    ]
