"""Vectors kept from one run to the next, so that a killed run goes on and a repeated one costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from nearer.models.encode import Embedder
from nearer.progress import Progress, Silent

SHARD_TEXTS = 2048


def encode_cached(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    side: Literal["query", "passage"],
    directory: Path,
    batch_tokens: int = 8192,
    progress: Progress | None = None,
) -> np.ndarray:
    """Encode texts shard by shard, each kept in a file named by the contract, the precision and the shard's texts.

    Args:
        embedder: whose contract and vectors these are.
        texts: as for `Embedder.encode_queries` or `.encode_passages`.
        side: which of the two.
        directory: of the cache; may be lost at any time. A damaged file is encoded again.
        batch_tokens: padded tokens a forward pass.
        progress: hears of one step a shard.

    Returns:
        (n, dimension) float32, in the order of the texts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    encode = embedder.encode_queries if side == "query" else embedder.encode_passages
    dimension = embedder.contract.dimension or 0
    vectors = np.zeros((len(texts), dimension), dtype=np.float32)
    shards = range(0, len(texts), SHARD_TEXTS)
    for start in (progress or Silent()).track(shards, what=f"encoding {side} texts, {SHARD_TEXTS} a step"):
        shard = texts[start : start + SHARD_TEXTS]
        path = directory / f"{_key(embedder, side, shard)}.npy"
        found = _read(path, shape=(len(shard), dimension))
        if found is None:
            found = encode(shard, batch_tokens=batch_tokens)
            _write(path, found)
        vectors[start : start + len(shard)] = found
    return vectors


def recall(
    embedder: Embedder, texts: Sequence[str], *, side: Literal["query", "passage"], directory: Path
) -> np.ndarray | None:
    """What `encode_cached` left for these texts, if they are whole shards of its; None: it has to be encoded.

    Args:
        embedder: whose contract and vectors these are.
        texts: from the beginning of a shard on.
        side: which of the two.
        directory: of the cache.

    Returns:
        (n, dimension) float32, in the order of the texts.
    """
    parts = []
    for start in range(0, len(texts), SHARD_TEXTS):
        shard = texts[start : start + SHARD_TEXTS]
        path = directory / f"{_key(embedder, side, shard)}.npy"
        found = _read(path, shape=(len(shard), embedder.contract.dimension or 0))
        if found is None:
            return None
        parts.append(found)
    return np.concatenate(parts) if parts else None


def _key(embedder: Embedder, side: str, texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in _parts(embedder, side, texts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(embedder: Embedder, side: str, texts: Sequence[str]) -> Iterator[bytes]:
    yield json.dumps(asdict(embedder.contract), sort_keys=True).encode()
    if embedder.precision != "fp32":
        yield embedder.precision.encode()
    yield side.encode()
    for text in texts:
        yield text.encode("utf-8", "surrogatepass")


def _read(path: Path, *, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def _write(path: Path, vectors: np.ndarray) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, vectors)
    temporary.replace(path)
