"""Resampling by group: the spread of means over queries that succeed and fail together.

Queries about the same document, or about near-duplicates, are not independent, so groups are drawn and not queries
(cluster bootstrap: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8; Field & Welsh 2007,
"Bootstrapping clustered data"). For retrieval: Sakai 2006, "Evaluating evaluation metrics based on the bootstrap"
(SIGIR); Smucker, Allan & Carterette 2007, "A comparison of statistical significance tests for information retrieval
evaluation" (CIKM).

Everything works on sums over groups, shape (groups, columns): a resample is a row of weights, all resamples of all
columns are one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

SAMPLES: Final = 10_000
_SAMPLES_PER_BLOCK: Final = 500
"""Resamples drawn at once: 500 x 2,000 groups of 8 bytes are 8 MB."""
_EXACT_GROUPS: Final = 13
"""Up to so many groups all 2^n sign patterns are fewer than `SAMPLES`, and are enumerated."""
_SAME: Final = 1e-12
"""A resampled statistic this near the observed one is equal to it: sums of the same terms differ in the last bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Which group each query is of. `members`: shape (queries,), numbers from 0; `sizes`: shape (groups,)."""

    members: np.ndarray
    sizes: np.ndarray

    @property
    def effective(self) -> float:
        """How many groups of equal size would say as much: (sum n)^2 / sum n^2 (Kish 1965, "Survey Sampling")."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over each group, (queries, columns) -> (groups, columns)."""
        found = np.zeros((len(self.sizes), values.shape[1]))
        np.add.at(found, self.members, values)
        return found


def groups_of(queries: Sequence[str], groups: Mapping[str, str]) -> Groups:
    """Number the groups of the queries; a query that has none is a group of its own."""
    numbers: dict[tuple[bool, str], int] = {}
    keys = ((True, groups[query]) if query in groups else (False, query) for query in queries)
    members = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    return Groups(members=members, sizes=np.bincount(members).astype(np.float64))


def bootstrap(sums: np.ndarray, sizes: np.ndarray, *, seed: int, samples: int = SAMPLES) -> np.ndarray:
    """Means over all queries in resamples of whole groups.

    Args:
        sums: over each group, shape (groups, columns).
        sizes: queries of each group, shape (groups,).
        seed: of the draws.
        samples: how many resamples.

    Returns:
        shape (samples, columns).
    """
    generator = np.random.default_rng(seed)
    count = len(sizes)
    table = np.column_stack([sums, sizes])
    found = np.empty((samples, sums.shape[1]))
    for start in range(0, samples, _SAMPLES_PER_BLOCK):
        size = min(_SAMPLES_PER_BLOCK, samples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        totals = weights.astype(np.float64) @ table
        found[start : start + size] = totals[:, :-1] / totals[:, -1:]
    return found


def interval(values: np.ndarray, *, groups: float, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the expanded percentile interval of each column.

    Percentile intervals are too narrow for few groups, by the factor sqrt((n-1)/n) and by z instead of t; the
    percentiles are moved out by as much (the expanded percentile interval of Hesterberg 2015, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69(4), arXiv:1411.5279).

    Args:
        values: of the resamples, shape (samples, columns).
        groups: how many were drawn (`Groups.effective`).
        confidence: two-sided, e.g. 0.95.

    Returns:
        Low and high, shape (columns,); NaN with fewer than two groups and where a resample is not defined.
    """
    columns = values.shape[1]
    if groups < 2:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    quantile = special.stdtrit(groups - 1, (1 + confidence) / 2)
    tail = 100 * special.ndtr(-np.sqrt(groups / (groups - 1)) * quantile)
    low, high = np.percentile(np.where(np.isfinite(values), values, np.nan), (tail, 100 - tail), axis=0)
    return low, high


def randomisation(differences: np.ndarray, *, seed: int, samples: int = SAMPLES) -> np.ndarray:
    """Two-sided p-values of the paired randomisation test, signs changed by group.

    Under no effect either system could have been called the first, in each group independently (Fisher 1935,
    "The Design of Experiments"; in retrieval: Smucker et al. 2007). All sign patterns are enumerated
    for few groups; else p = (1 + hits) / (1 + samples) (Phipson & Smyth 2010), which is never 0.

    Args:
        differences: sums over each group, after - before, shape (groups, columns).
        seed: of the signs.
        samples: how many patterns.

    Returns:
        shape (columns,).
    """
    count = len(differences)
    observed = np.abs(differences.sum(axis=0)) - _SAME * count
    if count <= _EXACT_GROUPS:
        patterns = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
        exact: np.ndarray = (np.abs(patterns @ differences) >= observed).mean(axis=0)
        return exact
    generator = np.random.default_rng(seed)
    hits = np.zeros(differences.shape[1])
    for start in range(0, samples, _SAMPLES_PER_BLOCK):
        size = min(_SAMPLES_PER_BLOCK, samples - start)
        signs = 1.0 - 2.0 * generator.integers(2, size=(size, count))
        hits += (np.abs(signs @ differences) >= observed).sum(axis=0)
    p_values: np.ndarray = (1 + hits) / (1 + samples)
    return p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure")."""
    order = sorted(range(len(p_values)), key=lambda index: (p_values[index], index))
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted
