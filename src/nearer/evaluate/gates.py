"""What may refuse a model although the primary comparison is in its favour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nearer.evaluate.evidence import Change
from nearer.evaluate.leakage import Leakage
from nearer.evaluate.lineup import BM25, Lineup
from nearer.evaluate.slices import Slice
from nearer.evaluate.verdict import Check, effect, points, rule
from nearer.ranking.compare import Comparison

_SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the verdict is reached by; the fields of `eval.verdict`, whose docstrings say what each means."""

    measure: str
    baseline: str
    candidate: str | None
    queries: Literal["auto", "real", "synthetic", "all"]
    minimum_effect: float
    detect_effect: float
    confidence: float
    power: float
    min_real_queries: int
    max_slice_loss: float | None
    reranker_beats_none: bool
    tuned_beats_bm25: bool
    leakage: bool
    score_collapse: bool
    max_forgetting: float


def gates(
    rules: Rules,
    *,
    line_up: Lineup,
    changes: Sequence[Change],
    slices: Sequence[Slice],
    leakage: Leakage | None,
    collapsed: Mapping[str, str | None],
    forgetting: Comparison | None,
    real_queries: int,
) -> Iterator[Check]:
    """Every gate that is asked for and applies, as a check.

    Args:
        rules: which gates.
        line_up: the systems.
        changes: all comparisons on the queries that count.
        slices: of these queries.
        leakage: what was found; None: not looked for.
        collapsed: what is wrong with the scores of a model, by its role; None: nothing.
        forgetting: base against tuned on the general dataset; None: there is none.
        real_queries: how many there are.
    """
    found = {(change.before, change.after): change.by_measure[rules.measure] for change in changes}
    candidate = line_up.entry(line_up.candidate)
    if rules.reranker_beats_none and candidate is not None and candidate.reranker is not None:
        pair = (line_up.plain(candidate.retriever) or "", candidate.name)
        if pair in found:
            yield _must_beat("reranker", found[pair], pair, rules)
    if rules.tuned_beats_bm25 and (BM25, "tuned") in found:
        yield _must_beat("bm25", found[BM25, "tuned"], (BM25, "tuned"), rules)
    if rules.max_slice_loss is not None and slices:
        yield _slices(slices, rules.max_slice_loss)
    if leakage is not None:
        yield _leakage(leakage)
    if rules.score_collapse:
        for role, wrong in collapsed.items():
            sentence = (
                f"The scores of {role} have collapsed: {wrong}."
                if wrong
                else f"The scores of {role} tell passages apart."
            )
            yield Check(name=f"scores of {role}", state="fail" if wrong else "pass", sentence=sentence)
    if rules.min_real_queries:
        enough = real_queries >= rules.min_real_queries
        sentence = f"{real_queries} real queries; at least {rules.min_real_queries} are asked for."
        yield Check(name="real queries", state="pass" if enough else "unclear", sentence=sentence)
    if forgetting is not None:
        yield _forgetting(forgetting, rules)


def _must_beat(name: str, found: Comparison, pair: tuple[str, str], rules: Rules) -> Check:
    """Above zero is enough here: the minimum effect is asked of the whole, not of each part."""
    state = rule(found, minimum=0.0, confidence=rules.confidence)
    if name == "reranker" and found.ties == found.queries:
        told = f"{pair[1]} does no better or worse than {pair[0]} on any query: the reranker brings nothing"
        return Check(name=name, state=state, sentence=f"{told} (its weight may be 0: rerank_weight of its contract).")
    words = {"pass": "beats", "fail": "does not beat", "unclear": "is not shown to beat"}[state]
    told = f"{pair[1]} {words} {pair[0]}: {rules.measure} {effect(found, confidence=rules.confidence)}."
    return Check(name=name, state=state, sentence=told)


def _slices(slices: Sequence[Slice], most: float) -> Check:
    """A slice that is large enough loses more than is allowed, and surely loses."""
    judged = [one for one in slices if not one.small]
    worse = [one for one in judged if one.comparison.difference < -most and one.comparison.high < 0]
    if worse:
        named = "; ".join(
            f"{one.kind} {one.value}: {points(one.comparison.difference)} on {one.comparison.queries} queries"
            for one in worse[:_SHOWN]
        )
        more = f" and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
        return Check(name="slices", state="fail", sentence=f"Some queries are served worse: {named}{more}.")
    small = len(slices) - len(judged)
    told = f"None of the {len(judged)} slices that are large enough loses more than {100 * most:g} points"
    few = "1 is" if small == 1 else f"{small} are"
    return Check(name="slices", state="pass", sentence=f"{told}; {few} too small to be judged.")


def _leakage(found: Leakage) -> Check:
    if found.leaks:
        named = "; ".join(found.leaks[:_SHOWN])
        more = f"; and {len(found.leaks) - _SHOWN} more" if len(found.leaks) > _SHOWN else ""
        told = f"Leakage: the training data hold what is tested, in {len(found.leaks)} places: {named}{more}."
        return Check(name="leakage", state="fail", sentence=told)
    if found.unknown:
        return Check(name="leakage", state="unclear", sentence=f"Leakage is not ruled out: {'; '.join(found.unknown)}.")
    return Check(name="leakage", state="pass", sentence="Nothing of the test part is found in the training data.")


def _forgetting(found: Comparison, rules: Rules) -> Check:
    """Non-inferiority: the interval must lie above the loss that is allowed."""
    told = f"On the general dataset {rules.measure} {effect(found, confidence=rules.confidence)}"
    allowed = f"{100 * rules.max_forgetting:g} points may be lost"
    if found.ties == found.queries or found.low > -rules.max_forgetting:
        return Check(name="forgetting", state="pass", sentence=f"{told}; {allowed}.")
    if found.high < -rules.max_forgetting:
        return Check(name="forgetting", state="fail", sentence=f"{told}; {allowed}: the model has forgotten too much.")
    return Check(name="forgetting", state="unclear", sentence=f"{told}; {allowed}: a greater loss is not ruled out.")
