"""Exact nearest passages by dot product, in blocks: memory stays flat whatever the corpus is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from nearer.progress import Progress, Silent
from nearer.ranking.top import top
from nearer.records import Hit

if TYPE_CHECKING:
    import numpy as np

_QUERIES_PER_BLOCK: Final = 256
_PASSAGES_PER_BLOCK: Final = 32_768
"""256 x 32,768 scores of 4 bytes are 32 MiB."""
_DECIMALS: Final = 6
"""Scores are rounded to what fp32 can say of a cosine: else the place of a passage within a matrix product decides
between two passages of the same text, and not its id."""


def search(
    queries: np.ndarray,
    passages: np.ndarray,
    ids: Sequence[str],
    k: int,
    *,
    exclude: Sequence[Collection[str]] | None = None,
    progress: Progress | None = None,
) -> list[list[Hit]]:
    """The k passages of the largest dot product with each query, best first, ties by ascending id.

    Args:
        queries: shape (m, dimension).
        passages: shape (n, dimension); may be a memory map, one block is read at a time.
        ids: of the passages, no id twice, shape (n,).
        k: at most so many hits a query; fewer when the corpus is smaller.
        exclude: ids that are no hits, for each query, shape (m,).
        progress: shows the blocks of queries.

    Raises:
        ValueError: shapes do not fit, or a vector holds NaN.
    """
    import numpy as np

    if queries.ndim != 2 or passages.ndim != 2 or queries.shape[1] != passages.shape[1]:
        raise ValueError(f"queries {queries.shape} and passages {passages.shape} do not fit")
    if len(ids) != len(passages):
        raise ValueError(f"{len(ids)} ids for {len(passages)} passages")
    # rank[i]: the place of passage i among the ascending ids; ties are decided on it.
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    position = {passage: index for index, passage in enumerate(ids)} if exclude is not None else {}
    found: list[list[Hit]] = []
    starts = range(0, len(queries), _QUERIES_PER_BLOCK)
    for start in (progress or Silent()).track(starts, what="exact search, blocks of queries"):
        block = np.asarray(queries[start : start + _QUERIES_PER_BLOCK], dtype=np.float32)
        hidden = [
            np.array(sorted(position[name] for name in names if name in position), dtype=np.int64)
            for names in (exclude[start : start + len(block)] if exclude is not None else ())
        ]
        best_scores = np.empty((len(block), 0), dtype=np.float32)
        best_ranks = np.empty((len(block), 0), dtype=np.int64)
        for first in range(0, len(passages), _PASSAGES_PER_BLOCK):
            last = min(first + _PASSAGES_PER_BLOCK, len(passages))
            scores = np.round(
                block @ np.asarray(passages[first:last], dtype=np.float32).T, _DECIMALS
            )  # (block, last - first)
            if np.isnan(scores).any():
                raise ValueError("a query or passage vector holds NaN")
            for row, columns in enumerate(hidden):
                scores[row, columns[(columns >= first) & (columns < last)] - first] = -np.inf
            # Columns in ascending order of id, so that `top` breaks ties as we do.
            by_id = np.argsort(rank[first:last])
            chosen = by_id[top(scores[:, by_id], k)]
            best_scores = np.concatenate([best_scores, np.take_along_axis(scores, chosen, axis=1)], axis=1)
            best_ranks = np.concatenate([best_ranks, rank[first:last][chosen]], axis=1)
            by_id = np.argsort(best_ranks, axis=1)
            best_scores, best_ranks = (
                np.take_along_axis(best_scores, by_id, axis=1),
                np.take_along_axis(best_ranks, by_id, axis=1),
            )
            chosen = top(best_scores, k)
            best_scores, best_ranks = (
                np.take_along_axis(best_scores, chosen, axis=1),
                np.take_along_axis(best_ranks, chosen, axis=1),
            )
        for scores_row, places in zip(best_scores.tolist(), order[best_ranks].tolist(), strict=True):
            pairs = zip(places, scores_row, strict=True)
            found.append([Hit(ids[place], score) for place, score in pairs if score > -np.inf])
    return found
