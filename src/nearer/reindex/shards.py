"""Passages to vectors, shard by shard; a finished shard survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nearer.errors import GateRefused
from nearer.models.cache import recall
from nearer.models.encode import Embedder
from nearer.progress import Progress
from nearer.records import Passage
from nearer.reindex.passages import read_shards, rendered


def encode_shards(
    embedder: Embedder,
    passages: Path,
    directory: Path,
    *,
    total: int,
    shard_passages: int,
    batch_tokens: int,
    earlier: Path,
    finished: Callable[[Path], None],
    progress: Progress,
) -> Iterator[tuple[int, list[Passage], np.ndarray]]:
    """Encode a file of passages.

    Args:
        embedder: whose contract says template, prefix and similarity.
        passages: the file.
        directory: where finished shards are kept; it belongs to this model, this file and this shard size.
        total: how many passages the file has.
        shard_passages: passages a shard.
        batch_tokens: padded tokens a forward pass.
        earlier: the cache in which an evaluation may have left these vectors.
        finished: told the file of each shard that was encoded now.
        progress: hears of one step a shard.

    Yields:
        The shard's number, its passages, and their vectors (n, dimension), of unit length for the cosine.

    Raises:
        GateRefused: the model gives a vector that is zero or not finite.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shards = read_shards(passages, shard_passages)
    count = -(-total // shard_passages)
    for number, shard in enumerate(progress.track(shards, what=f"encoding, {shard_passages} a step", total=count)):
        path = directory / f"{number:05}.npy"
        vectors = _read(path, shape=(len(shard), embedder.contract.dimension or 0))
        if vectors is None:
            vectors = encode(embedder, shard, batch_tokens=batch_tokens, earlier=earlier)
            _require_sound(shard, vectors)
            _write(path, vectors)
            finished(path)
        yield number, shard, vectors


def encode(
    embedder: Embedder, passages: Sequence[Passage], *, batch_tokens: int, earlier: Path | None = None
) -> np.ndarray:
    """Vectors (n, dimension) as an index holds them: of unit length where the contract's similarity is the cosine."""
    texts = [rendered(passage, embedder.contract.passage_template) for passage in passages]
    vectors = None if earlier is None else recall(embedder, texts, side="passage", directory=earlier)
    if vectors is None:
        vectors = embedder.encode_passages(texts, batch_tokens=batch_tokens)
    return unit(vectors) if embedder.contract.similarity == "cosine" else vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(lengths == 0, 1, lengths)
    return scaled


def _require_sound(passages: Sequence[Passage], vectors: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if len(bad):
        shown = ", ".join(passages[row].id for row in bad[:3])
        raise GateRefused(
            f"the model gives {len(bad)} of {len(passages)} passages a vector that is zero or not finite: {shown}",
            rule="each passage has a direction",
            way_out="check the model (training that diverged?); the alias was not moved",
        )


def _read(path: Path, *, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _write(path: Path, vectors: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.save(stream, vectors)
    temporary.replace(path)
