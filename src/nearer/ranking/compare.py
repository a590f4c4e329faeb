"""Whether one system beats another on the queries at hand: interval, test, and how many queries it would take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import special

from nearer.ranking.resample import SAMPLES, Groups, bootstrap, groups_of, interval, randomisation

_EVEN: Final = 1e-12
"""Differences up to this are ties: two sums of the same terms may differ in the last bit."""
_ITERATIONS: Final = 20
_FEWEST: Final = 3.0
"""Groups below which no interval is worth its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference of two means over the same queries, `after - before`, with its interval.

    Relative values are `after / before - 1`; NaN when before is 0, their interval also when it is 0 in any resample.
    Intervals and the standard error are NaN with fewer than two groups. `p_value` is that of the paired
    randomisation test by group, two-sided, not adjusted.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    standard_error: float
    p_value: float
    wins: int
    losses: int
    ties: int
    queries: int
    groups: int
    effective_groups: float


def compare(  # noqa: PLR0917 - five that every caller gives, in their natural order
    base: Mapping[str, float],
    tuned: Mapping[str, float],
    groups: Mapping[str, str],
    seed: int,
    samples: int = SAMPLES,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two systems by their values on each query.

    Args:
        base: query id → value before.
        tuned: query id → value after; the same queries.
        groups: query id → group that is drawn as a whole; a query that is not in it is a group of its own.
        seed: of the draws.
        samples: how many resamples.
        confidence: of the two-sided interval.

    Raises:
        ValueError: the two have other queries, or none.
    """
    if not base or base.keys() != tuned.keys():
        raise ValueError(f"the same queries on both sides, not {len(base)} and {len(tuned)}")
    queries = sorted(base)
    before, after = (np.array([[values[query]] for query in queries]) for values in (base, tuned))
    options: dict[str, Any] = {"seed": seed, "samples": samples, "confidence": confidence}
    return compare_columns(before, after, groups_of(queries, groups), **options)[0]


def compare_columns(
    before: np.ndarray, after: np.ndarray, groups: Groups, *, seed: int, samples: int = SAMPLES, confidence: float
) -> list[Comparison]:
    """Compare many pairs of systems, or measures, on the same resamples.

    Args:
        before: shape (queries, columns).
        after: likewise.
        groups: of the queries.
        seed: of the draws.
        samples: how many resamples.
        confidence: of the two-sided intervals.

    Returns:
        One comparison a column.
    """
    change = after - before
    columns = change.shape[1]
    changes, bases = groups.sums(change), groups.sums(before)
    drawn = bootstrap(np.column_stack([changes, bases]), groups.sizes, seed=seed, samples=samples)
    differences, levels = drawn[:, :columns], drawn[:, columns:]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relatives = np.where(levels > 0, differences / levels, np.nan)
    width: dict[str, Any] = {"groups": groups.effective, "confidence": confidence}
    low, high = interval(differences, **width)
    relative_low, relative_high = interval(relatives, **width)
    errors = differences.std(axis=0, ddof=1) if len(groups.sizes) > 1 else np.full(columns, np.nan)
    p_values = randomisation(changes, seed=seed, samples=samples)
    found = []
    for column in range(columns):
        mean_before, mean_after = (math.fsum(values[:, column]) / len(values) for values in (before, after))
        wins, losses = int((change[:, column] > _EVEN).sum()), int((change[:, column] < -_EVEN).sum())
        found.append(
            Comparison(
                before=mean_before,
                after=mean_after,
                difference=mean_after - mean_before,
                low=float(low[column]),
                high=float(high[column]),
                relative=mean_after / mean_before - 1 if mean_before > 0 else math.nan,
                relative_low=float(relative_low[column]),
                relative_high=float(relative_high[column]),
                standard_error=float(errors[column]),
                p_value=float(p_values[column]),
                wins=wins,
                losses=losses,
                ties=len(change) - wins - losses,
                queries=len(change),
                groups=len(groups.sizes),
                effective_groups=groups.effective,
            )
        )
    return found


def queries_needed(
    *,
    effect: float,
    minimum: float,
    standard_error: float,
    queries: int,
    groups: float,
    confidence: float,
    power: float,
) -> int | None:
    """How many queries of the same kind, grouped alike, would find an effect with the given power.

    Found means: the interval lies above zero and the observed difference is at least the minimum. From the normal
    approximation (Sakai 2018, "Laboratory Experiments in Information Retrieval: Sample Sizes, Effect Sizes, and
    Statistical Power"), with the standard error that
    the groups at hand give, which shrinks with the square root of the number of queries.

    Args:
        effect: the true difference, above zero.
        minimum: the least difference that counts.
        standard_error: of the difference over `queries`.
        queries: that gave it.
        groups: that they came in (`Groups.effective`); more queries come in as many more groups.
        confidence: two-sided, of the interval.
        power: probability of finding it.

    Returns:
        None when no number is enough (the effect is not above zero or not above the minimum), or the error is unknown.
    """
    if effect <= max(0.0, minimum) or not math.isfinite(standard_error):
        return None
    z_power = float(special.ndtri(power))
    above_minimum = (z_power * standard_error / (effect - minimum)) ** 2
    share = 1.0  # of the queries at hand
    for _ in range(_ITERATIONS):  # the interval is wider for fewer groups, and these depend on the number of queries
        drawn = max(_FEWEST, groups * share)
        width = float(special.stdtrit(drawn - 1, (1 + confidence) / 2)) * math.sqrt(drawn / (drawn - 1))
        share = max(((width + z_power) * standard_error / effect) ** 2, above_minimum)
    return max(2, math.ceil(queries * share))
