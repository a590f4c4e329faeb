"""Second stage: a cross-encoder puts the top of each list in a new order."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from nearer.errors import InputError
from nearer.models.contract import Contract
from nearer.progress import Progress
from nearer.ranking.fuse import interpolate
from nearer.records import Hit, Run

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]
"""Query id and passage id."""

_PAIRS_PER_BLOCK: Final = 1024
"""A block is scored as a whole or not at all, so that a killed run and an undisturbed one batch the same pairs
together and get the same scores to the last bit."""
_KEY_BYTES: Final = 16


class Scorer(Protocol):
    """What is needed of a reranker."""

    @property
    def contract(self) -> Contract:
        """By which it is used."""

    def score(self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int) -> np.ndarray:
        """One logit a pair of texts."""


def pairs_of(runs: Sequence[Run], *, depth: int) -> list[Pair]:
    """The pairs that reranking these runs needs, each once, ascending."""
    return sorted({(query, hit.target) for run in runs for query, hits in run.items() for hit in hits[:depth]})


def score_pairs(
    scorer: Scorer,
    pairs: Sequence[Pair],
    *,
    queries: Mapping[str, str],
    passages: Mapping[str, str],
    directory: Path,
    batch_tokens: int,
    progress: Progress,
    name: str,
) -> dict[Pair, float]:
    """Score the pairs that are not in the cache, block by block, each block kept in a file.

    The cache knows single pairs by the model contract and their texts: another system that brings new pairs costs those
    alone. A score may differ in its last bits by the company in which its pair was scored first.

    Args:
        scorer: the reranker.
        pairs: see `pairs_of`.
        queries: text of each query.
        passages: text of each passage, as the scorer's contract renders it.
        directory: of the cache; may be lost at any time. A damaged file is scored again.
        batch_tokens: padded tokens a forward pass.
        progress: hears of one step a block.
        name: of the reranker, as the user knows it.

    Raises:
        InputError: the reranker gives scores that are not finite.
    """
    import numpy as np

    directory.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(json.dumps(asdict(scorer.contract), sort_keys=True).encode()).hexdigest()[:_KEY_BYTES]
    known = _read(directory, mark)
    keys = {pair: _key(queries[pair[0]], passages[pair[1]]) for pair in pairs}
    missing = [pair for pair in pairs if keys[pair] not in known]
    blocks = [missing[start : start + _PAIRS_PER_BLOCK] for start in range(0, len(missing), _PAIRS_PER_BLOCK)]
    for block in progress.track(blocks, what=f"{name}: scoring {len(missing)} pairs, {_PAIRS_PER_BLOCK} a step"):
        scores = scorer.score(
            [(queries[query], passages[passage]) for query, passage in block], batch_tokens=batch_tokens
        )
        if not np.isfinite(scores).all():
            raise InputError(
                f"reranker {name} gives scores that are not numbers (NaN or infinite)",
                rule="finite scores",
                way_out="its weights are damaged or its training diverged; train it again",
            )
        _write(directory, mark, [keys[pair] for pair in block], scores)
        known.update(zip((keys[pair] for pair in block), map(float, scores), strict=True))
    return {pair: known[keys[pair]] for pair in pairs}


def rerank(run: Run, scores: Mapping[Pair, float], *, depth: int, weight: float = 1.0) -> dict[str, list[Hit]]:
    """The first `depth` of each list in a new order, see `fuse.interpolate`; the rest follows as it was."""
    return {
        query: interpolate(
            hits, {hit.target: scores[query, hit.target] for hit in hits[:depth]}, depth=depth, weight=weight
        )
        for query, hits in run.items()
    }


def _key(query: str, passage: str) -> bytes:
    digest = hashlib.sha256()
    for text in (query, passage):
        part = text.encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()[:_KEY_BYTES]


def _read(directory: Path, mark: str) -> dict[bytes, float]:
    """Every pair that this model has scored; files that cannot be read are passed over."""
    import numpy as np

    known: dict[bytes, float] = {}
    for path in sorted(directory.glob(f"{mark}-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as block:
                keys, scores = block["keys"], block["scores"]
            known.update(zip(map(bytes, keys), map(float, scores), strict=True))
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
            continue
    return known


def _write(directory: Path, mark: str, keys: Sequence[bytes], scores: np.ndarray) -> None:
    import numpy as np

    path = directory / f"{mark}-{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.npz"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        bytes_of = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        np.savez(stream, keys=bytes_of, scores=scores.astype(np.float32))
    temporary.replace(path)
