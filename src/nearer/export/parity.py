"""How far two scorers of the same pairs agree: by logits, and by the order in which each query's passages come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def max_difference(reference: np.ndarray, other: np.ndarray) -> float:
    """The largest absolute difference of two arrays of logits (n,); infinite where either holds NaN."""
    difference = np.abs(reference.astype(np.float64) - other.astype(np.float64))
    return float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))


def rank_agreement(reference: np.ndarray, other: np.ndarray, sizes: Sequence[int]) -> float:
    """Spearman's rank correlation with the reference, mean over queries.

    Queries with a single passage have no order and do not count; a query whose reference scores are all equal counts 1
    where the other's are too, else 0.

    Args:
        reference: logits of all queries' passages, query by query, (n,).
        other: likewise.
        sizes: how many passages each query has; they sum to n.

    Returns:
        Between -1 and 1; 1 where no query has two passages, -1 where a score is NaN.
    """
    if np.isnan(reference).any() or np.isnan(other).any():
        return -1.0
    values = [
        _spearman(left, right)
        for left, right in zip(_split(reference, sizes), _split(other, sizes), strict=True)
        if len(left) > 1
    ]
    return float(np.mean(values)) if values else 1.0


def _split(scores: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    start = 0
    for size in sizes:
        yield scores[start : start + size]
        start += size


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman 1904: Pearson's correlation of the ranks, equal values sharing the mean of theirs."""
    first, second = _ranks(left), _ranks(right)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    if size == 0.0:
        return 1.0 if not first.any() and not second.any() else 0.0
    return float((first * second).sum() / size)


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    return mean_rank[places]
