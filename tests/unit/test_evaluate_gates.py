"""What refuses a model although the primary comparison is in its favour."""

from dataclasses import replace
from typing import Any

import pytest

from nearer.evaluate.collapse import collapse
from nearer.evaluate.evidence import Change
from nearer.evaluate.gates import Rules, gates
from nearer.evaluate.leakage import Leakage
from nearer.evaluate.lineup import line_up
from nearer.evaluate.slices import Slice
from nearer.evaluate.verdict import Check, decide, primary, rule, settling
from nearer.ranking.compare import Comparison
from nearer.records import Hit
from nearer.settings.evaluate import VerdictSettings

RULES = Rules(**VerdictSettings().model_dump())


def change(difference: float, low: float, high: float, *, groups: int = 100, p: float | None = None) -> Comparison:
    return Comparison(
        before=0.4,
        after=0.4 + difference,
        difference=difference,
        low=low,
        high=high,
        relative=difference / 0.4,
        relative_low=low / 0.4,
        relative_high=high / 0.4,
        standard_error=(high - low) / 3.92,
        p_value=(0.001 if low > 0 or high < 0 else 0.5) if p is None else p,
        wins=60,
        losses=20,
        ties=20,
        queries=100,
        groups=groups,
        effective_groups=float(groups),
    )


def found(name: str, **given: Any) -> Check | None:
    line = line_up(["base", "tuned"], ["reranker"], bm25=True, incumbent="base", baseline="incumbent", candidate=None)
    parts: dict[str, Any] = {"changes": [], "slices": [], "leakage": None, "collapsed": {}, "forgetting": None}
    rules = given.pop("rules", RULES)
    checks = gates(rules, line_up=line, real_queries=0, **{**parts, **given})
    return next((check for check in checks if check.name == name), None)


@pytest.mark.parametrize(
    ("difference", "low", "high", "expected"),
    [
        (0.05, 0.02, 0.08, "pass"),
        (0.005, 0.001, 0.009, "fail"),  # surely above zero, and surely less than counts
        (0.008, 0.001, 0.015, "unclear"),
        (-0.05, -0.08, -0.02, "fail"),
        (0.05, -0.02, 0.12, "unclear"),
    ],
)
def test_three_ways(difference: float, low: float, high: float, expected: str) -> None:
    """Better by what counts, not better, or nobody can tell, with the least effect of one point."""
    assert rule(change(difference, low, high), minimum=0.01, confidence=0.95) == expected


def test_the_randomisation_test_must_agree() -> None:
    """An interval above zero that the test does not confirm is not enough."""
    assert rule(change(0.05, 0.01, 0.09, p=0.06), minimum=0.01, confidence=0.95) == "unclear"


def test_an_interval_that_is_not_known_decides_nothing() -> None:
    """One group of documents."""
    nan = float("nan")
    only = replace(change(0.2, 0.1, 0.3, groups=1), low=nan, high=nan, standard_error=nan)
    words = {"before": "a", "after": "b", "measure": "nDCG@10", "population": "real"}
    check = primary(only, **words, minimum=0.01, confidence=0.95, power=0.8)
    assert check.state == "unclear"
    assert "too few groups" in check.sentence


def test_what_would_settle_it_grows_as_the_effect_nears_the_minimum() -> None:
    """From either side."""
    options = {"minimum": 0.01, "confidence": 0.95, "power": 0.8}
    far, near = (settling(change(effect, -0.02, 0.1), **options) for effect in (0.06, 0.02))
    below = settling(change(0.0, -0.02, 0.02), **options)
    assert far is not None
    assert near is not None
    assert far < near
    assert below is not None


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((0.02, 0.01, 0.03), "pass"), ((0.0, -0.01, 0.01), "unclear"), ((-0.02, -0.03, -0.01), "fail")],
)
def test_the_reranker_must_beat_no_reranking(interval: tuple[float, float, float], expected: str) -> None:
    """Compared with the very list that it was given."""
    by_measure = {"nDCG@10": change(*interval)}
    one = Change(before="tuned-hybrid", after="tuned-hybrid+reranker", by_measure=by_measure, adjusted=None)
    check = found("reranker", changes=[one])
    assert check is not None
    assert check.state == expected
    assert found("reranker", changes=[one], rules=replace(RULES, reranker_beats_none=False)) is None


def test_a_reranker_that_counts_for_nothing_is_called_that() -> None:
    """Its weight is 0, so every list is the one that it was given: not a difference of 0.0 points."""
    same = replace(change(0.0, 0.0, 0.0), wins=0, losses=0, ties=100)
    one = Change(before="tuned-hybrid", after="tuned-hybrid+reranker", by_measure={"nDCG@10": same}, adjusted=None)
    check = found("reranker", changes=[one])
    assert check is not None
    assert check.state == "fail"
    assert "brings nothing" in check.sentence


@pytest.mark.parametrize(
    ("difference", "high", "groups", "expected"),
    [(-0.1, -0.05, 50, "fail"), (-0.1, 0.02, 50, "pass"), (-0.02, -0.01, 50, "pass"), (-0.1, -0.05, 20, "pass")],
)
def test_no_slice_may_surely_lose_more_than_is_allowed(
    difference: float, high: float, groups: int, expected: str
) -> None:
    """One that is too small, loses little, or may lose by chance does not refuse."""
    one = Slice(
        kind="kind of query", value="real", comparison=change(difference, difference - 0.05, high, groups=groups)
    )
    check = found("slices", slices=[one])
    assert check is not None
    assert check.state == expected
    assert ("kind of query real" in check.sentence) == (expected == "fail")


def test_leaks_are_named_and_counted() -> None:
    """The first three, and how many more."""
    check = found("leakage", leakage=Leakage(leaks=tuple(f"leak {number}" for number in range(5))))
    assert check is not None
    assert check.state == "fail"
    assert "5 places: leak 0; leak 1; leak 2; and 2 more" in check.sentence


@pytest.mark.parametrize(
    ("interval", "expected"),
    [((-0.005, -0.015, 0.005), "pass"), ((-0.02, -0.04, 0.0), "unclear"), ((-0.1, -0.13, -0.07), "fail")],
)
def test_forgetting_passes_only_where_a_greater_loss_is_ruled_out(
    interval: tuple[float, float, float], expected: str
) -> None:
    """Two points may be lost."""
    check = found("forgetting", forgetting=change(*interval))
    assert check is not None
    assert check.state == expected


def test_anything_failed_refuses_and_anything_unclear_leaves_it_open() -> None:
    """The decisive sentences come first; a pass gives the primary comparison's."""
    good, bad, open_ = (Check(name=state, state=state, sentence=f"{state}.") for state in ("pass", "fail", "unclear"))
    assert decide([good]).decision == "ship"
    assert decide([good, open_]).decision == "inconclusive"
    assert decide([good, open_, bad]).decision == "do not ship"
    assert decide([good, open_, bad], context=["So."]).reasons == ("fail.", "pass.", "So.")


def test_scores_that_no_longer_tell_passages_apart_are_seen() -> None:
    """All the same, or the same passage first for most queries; a healthy run is neither."""
    healthy = {f"q{number}": [Hit(f"p{number}", 0.9), Hit("x", 0.7)] for number in range(20)}
    constant = {query: [Hit("a", 0.50001), Hit("b", 0.5)] for query in healthy}
    one_for_all = {query: [Hit("a", 0.9), Hit(query, 0.1)] for query in healthy}
    assert collapse(healthy, top=10) is None
    assert "hardly tells passages apart" in (collapse(constant, top=10) or "")
    assert "first for 20 of 20 queries" in (collapse(one_for_all, top=10) or "")
    assert collapse({"q": [Hit("a", 0.9)]}, top=10) is None
