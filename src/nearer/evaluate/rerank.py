"""Second stage: a cross-encoder puts the top of each list in a new order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from nearer.errors import InputError
from nearer.models.contract import Contract
from nearer.progress import Progress
from nearer.records import Hit, Run

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[str, str]
"""Query id and passage id."""

_PAIRS_PER_BLOCK: Final = 1024
"""A block is scored as a whole or not at all, so that a killed run and an undisturbed one batch the same pairs
together and get the same scores to the last bit."""


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
    """Score pairs block by block, each kept in a file named by the model contract and the block's texts.

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
    found: dict[Pair, float] = {}
    blocks = [pairs[start : start + _PAIRS_PER_BLOCK] for start in range(0, len(pairs), _PAIRS_PER_BLOCK)]
    for block in progress.track(blocks, what=f"{name}: scoring {len(pairs)} pairs, {_PAIRS_PER_BLOCK} a step"):
        texts = [(queries[query], passages[passage]) for query, passage in block]
        path = directory / f"{_key(scorer.contract, texts)}.npy"
        scores = _read(path, len(block))
        if scores is None:
            scores = scorer.score(texts, batch_tokens=batch_tokens)
            if not np.isfinite(scores).all():
                raise InputError(
                    f"reranker {name} gives scores that are not numbers (NaN or infinite)",
                    rule="finite scores",
                    way_out="its weights are damaged or its training diverged; train it again",
                )
            _write(path, scores)
        found.update(zip(block, map(float, scores), strict=True))
    return found


def rerank(run: Run, scores: Mapping[Pair, float], *, depth: int) -> dict[str, list[Hit]]:
    """The first `depth` of each list ordered by score, ties by ascending id; the rest follows as it was."""
    reranked = {}
    for query, hits in run.items():
        top = [Hit(hit.target, scores[query, hit.target]) for hit in hits[:depth]]
        reranked[query] = [*sorted(top, key=lambda hit: (-hit.score, hit.target)), *hits[depth:]]
    return reranked


def _key(contract: Contract, texts: Sequence[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for part in _parts(contract, texts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(contract: Contract, texts: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    yield json.dumps(asdict(contract), sort_keys=True).encode()
    for query, passage in texts:
        yield query.encode("utf-8", "surrogatepass")
        yield passage.encode("utf-8", "surrogatepass")


def _read(path: Path, length: int) -> np.ndarray | None:
    import numpy as np

    try:
        scores: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return scores if scores.shape == (length,) and scores.dtype == np.float32 else None


def _write(path: Path, scores: np.ndarray) -> None:
    import numpy as np

    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, scores.astype(np.float32))
    temporary.replace(path)
