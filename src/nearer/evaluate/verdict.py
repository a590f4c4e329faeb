"""Ship, do not ship, or inconclusive: one primary comparison, declared beforehand, and gates that may refuse it.

The same three-way rule is used everywhere (Schuirmann 1987 for the second half, as a non-superiority test): better,
when the interval lies above zero, the randomisation test agrees and the effect is at least the minimum; not better,
when the interval lies below the minimum; else the queries at hand cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nearer.ranking.compare import Comparison, queries_needed

Decision = Literal["ship", "do not ship", "inconclusive"]
State = Literal["pass", "fail", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, what came of it, and a sentence for people."""

    name: str
    state: State
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The decision and everything that led to it, the decisive reasons first."""

    decision: Decision
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        checks = [{"name": one.name, "state": one.state, "sentence": one.sentence} for one in self.checks]
        return {"decision": self.decision, "reasons": list(self.reasons), "checks": checks}


def rule(found: Comparison, *, minimum: float, confidence: float) -> State:
    """Better by the minimum at least (`pass`), not better (`fail`), or nobody can tell (`unclear`)."""
    if found.ties == found.queries:
        return "fail"
    if found.low > 0 and found.p_value <= 1 - confidence and found.difference >= minimum:
        return "pass"
    return "fail" if found.high < minimum else "unclear"


def decide(checks: Sequence[Check], *, context: Sequence[str] = ()) -> Verdict:
    """Every check must pass; one that fails refuses. What the primary comparison found is always among the reasons.

    Args:
        checks: the primary comparison first.
        context: sentences that are said after the reasons.
    """
    failed = [check for check in checks if check.state == "fail"]
    unclear = [check for check in checks if check.state == "unclear"]
    told = dict.fromkeys(one.sentence for one in [*(failed or unclear), *checks[:1]])
    decision: Decision = "do not ship" if failed else "inconclusive" if unclear else "ship"
    return Verdict(decision=decision, reasons=(*told, *context), checks=tuple(checks))


def primary(
    found: Comparison,
    *,
    before: str,
    after: str,
    measure: str,
    population: str,
    minimum: float,
    confidence: float,
    power: float,
) -> Check:
    """The comparison that the verdict is about."""
    state = rule(found, minimum=minimum, confidence=confidence)
    told = f"{after} against {before} on {found.queries} {population} queries ({found.groups} groups of documents): "
    if found.ties == found.queries:
        return Check(
            name="primary", state=state, sentence=f"{told}no difference; every query has the same {measure} in both."
        )
    told += f"{measure} {effect(found, confidence=confidence)}, p = {found.p_value:.2g}"
    asked = f"the least effect that counts is {100 * minimum:.1f} points"
    if state == "pass":
        return Check(name="primary", state=state, sentence=f"{told}; {asked}.")
    if state == "fail":
        harm = "it is worse" if found.high < 0 else "a gain that counts is ruled out"
        return Check(name="primary", state=state, sentence=f"{told}; {asked}: {harm}.")
    short = _needed(found, minimum=minimum, confidence=confidence, power=power)
    return Check(name="primary", state=state, sentence=f"{told}; {asked}: these queries cannot tell. {short}")


def alternative(
    found: Comparison,
    *,
    before: str,
    after: str,
    measure: str,
    adjusted: float | None,
    minimum: float,
    confidence: float,
) -> str | None:
    """What to do instead, where a candidate is refused and its own list without the reranker is better than today's.

    It was not declared beforehand, so it has to be better after Holm's adjustment too, and does not change the verdict.

    Args:
        found: today's system against that list.
        before: name of today's system.
        after: name of that list.
        measure: of the verdict.
        adjusted: the p-value after Holm; None: this is the only comparison.
        minimum: the least effect that counts.
        confidence: of the interval.
    """
    p_value = found.p_value if adjusted is None else adjusted
    if rule(found, minimum=minimum, confidence=confidence) != "pass" or p_value > 1 - confidence:
        return None
    return (
        f"Without its reranker the candidate would be better than {before}: {after} has {measure} "
        f"{effect(found, confidence=confidence)}, p = {p_value:.2g} after Holm's adjustment. To have it judged, set "
        f"eval.verdict.candidate: {after}; queries that nobody has looked at yet would confirm it."
    )


def effect(found: Comparison, *, confidence: float) -> str:
    """`.409 → .473, +6.4 points (95 % interval +4.5 … +8.2)`."""
    ends = f"{points(found.low, unit='')} … {points(found.high, unit='')}" if found.low == found.low else "not known"
    return (
        f"{found.before:.3f} → {found.after:.3f}, {points(found.difference)} "
        f"({100 * confidence:g}\u00a0% interval {ends})"
    )


def points(value: float, *, unit: str = " points") -> str:
    """A difference in points, hundredths of a measure that lies between 0 and 1."""
    return f"{100 * value:+.1f}{unit}"


def settling(found: Comparison, *, minimum: float, confidence: float, power: float) -> int | None:
    """How many queries would settle it, if the effect is what it seems to be; None: no number is known."""
    options: dict[str, Any] = {
        "standard_error": found.standard_error,
        "queries": found.queries,
        "groups": found.effective_groups,
        "confidence": confidence,
        "power": power,
    }
    if found.difference > minimum:
        return queries_needed(effect=found.difference, minimum=minimum, **options)
    return queries_needed(effect=minimum - found.difference, minimum=0.0, **options)


def _needed(found: Comparison, *, minimum: float, confidence: float, power: float) -> str:
    count = settling(found, minimum=minimum, confidence=confidence, power=power)
    if count is None:
        return "How many queries would settle it is not known: there are too few groups of documents."
    return (
        f"About {max(count, found.queries + 1):,} queries of this kind would settle it with a probability of "
        f"{100 * power:g} %, if the effect is what it seems to be."
    )
