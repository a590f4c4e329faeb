"""What the systems' values on the queries say, with their uncertainty, for real and synthetic queries apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.systems import System
from nearer.ranking.compare import Comparison, compare_columns
from nearer.ranking.resample import groups_of, holm

Population = Literal["real", "synthetic", "all"]
ENOUGH_REAL: Final = 50
"""From so many real queries on they alone decide, unless the settings say otherwise. Fewer than that show only effects
that nobody would miss (Sakai 2016, "Topic set size design", asks for 50 and more)."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Two systems and how the second differs from the first, by each measure.

    `adjusted` is the p-value of the verdict's measure after Holm, over all comparisons but the primary one, which
    has none.
    """

    before: str
    after: str
    by_measure: Mapping[str, Comparison]
    adjusted: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        measures = {name: asdict(one) for name, one in self.by_measure.items()}
        return {"before": self.before, "after": self.after, "measures": measures, "p_value_holm": self.adjusted}


def populations(held: HeldOut) -> dict[str, list[str]]:
    """Ids of the real and of the synthetic queries; a kind of which there is none is left out."""
    real = [query.id for query in held.queries if query.origin == "real"]
    synthetic = [query.id for query in held.queries if query.origin != "real"]
    return {name: ids for name, ids in (("real", real), ("synthetic", synthetic)) if ids}


def choose(held: HeldOut, wanted: Literal["auto", "real", "synthetic", "all"]) -> tuple[Population, list[str], str]:
    """The queries that the verdict is about.

    Returns:
        Their kind, their ids (none, if there are none of the kind that is asked for), and why these, as a sentence.
    """
    found = populations(held)
    real, synthetic = (len(found.get(kind, ())) for kind in ("real", "synthetic"))
    if wanted == "all":
        return (
            "all",
            [query.id for query in held.queries],
            "Real and synthetic queries are pooled: the settings ask for it.",
        )
    if wanted != "auto":
        return wanted, found.get(wanted, []), f"The verdict is about the {wanted} queries: the settings ask for it."
    if real and (real >= ENOUGH_REAL or not synthetic):
        return "real", found["real"], "The verdict is about the real queries."
    why = f"there are only {real} real ones, fewer than {ENOUGH_REAL}" if real else "there are no real ones"
    return (
        "synthetic",
        found["synthetic"],
        f"The verdict is about the synthetic queries: {why}. Users may ask otherwise.",
    )


def changes(
    systems: Sequence[System],
    pairs: Sequence[tuple[str, str]],
    *,
    queries: Sequence[str],
    groups: Mapping[str, str],
    measure: str,
    primary: tuple[str, str] | None,
    confidence: float,
    seed: int,
) -> list[Change]:
    """Compare pairs of systems by every measure on the same resamples.

    Args:
        systems: all of them.
        pairs: names, before and after.
        queries: that count.
        groups: of near-duplicate documents, by query.
        measure: of the verdict, which Holm's adjustment is about.
        primary: the pair that was declared beforehand, and is not adjusted.
        confidence: of the two-sided intervals.
        seed: of the draws.
    """
    if not pairs or not queries:
        return []
    by_name = {system.name: system.scores.per_query for system in systems}
    measures = list(next(iter(systems)).scores.mean)

    def table(names: Sequence[str]) -> np.ndarray:
        """Shape (queries, pairs × measures)."""
        return np.array([[by_name[name][query][one] for name in names for one in measures] for query in queries])

    before, after = (table([pair[side] for pair in pairs]) for side in (0, 1))
    columns = iter(compare_columns(before, after, groups_of(queries, groups), seed=seed, confidence=confidence))
    compared = {pair: {name: next(columns) for name in measures} for pair in pairs}
    others = [pair for pair in pairs if pair != primary]
    adjusted = dict(zip(others, holm([compared[pair][measure].p_value for pair in others]), strict=True))
    return [
        Change(before=pair[0], after=pair[1], by_measure=values, adjusted=adjusted.get(pair))
        for pair, values in compared.items()
    ]


def means(system: System, queries: Sequence[str]) -> dict[str, float]:
    """Mean of each measure over some of the queries."""
    values = [system.scores.per_query[query] for query in queries]
    return {name: float(np.mean([one[name] for one in values])) for name in system.scores.mean} if values else {}
