"""The paired bootstrap over groups."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.ranking.compare import compare

values = st.lists(st.floats(0, 1), min_size=2, max_size=20)


def named(numbers: list[float]) -> dict[str, float]:
    return {f"q{position:02d}": number for position, number in enumerate(numbers)}


@settings(deadline=None, max_examples=30)
@given(values)
def test_a_system_against_itself_differs_by_nothing(numbers: list[float]) -> None:
    """Difference and interval are exactly zero, and every query is a tie."""
    found = compare(named(numbers), named(numbers), {}, seed=1, samples=200)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert (found.wins, found.losses, found.ties) == (0, 0, len(numbers))


@settings(deadline=None, max_examples=30)
@given(values, values)
def test_turning_the_sides_round_turns_the_sign(one: list[float], other: list[float]) -> None:
    """The same resamples, mirrored."""
    size = min(len(one), len(other))
    there = compare(named(one[:size]), named(other[:size]), {}, seed=1, samples=200)
    back = compare(named(other[:size]), named(one[:size]), {}, seed=1, samples=200)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.low - 1e-9 <= there.high


def test_a_gain_on_every_query_has_its_interval_above_zero() -> None:
    """Constant gain: no width; relative values follow from the mean before."""
    found = compare(named([0.2, 0.4, 0.6]), named([0.3, 0.5, 0.7]), {}, seed=1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.relative == pytest.approx(0.25)
    assert found.relative_low > 0
    assert (found.wins, found.groups, found.queries) == (3, 3, 3)


def test_the_interval_is_that_of_the_normal_approximation_where_that_holds() -> None:
    """1,000 independent queries: mean ± 1.96 standard errors."""
    draw = np.random.default_rng(5)
    gains = draw.normal(0.02, 0.1, 1000)
    found = compare(named([0.5] * 1000), named(list(0.5 + gains)), {}, seed=1, samples=4000)
    error = 1.96 * gains.std() / math.sqrt(1000)
    assert (found.low, found.high) == pytest.approx((gains.mean() - error, gains.mean() + error), abs=4e-4)


def test_queries_of_one_group_are_drawn_together() -> None:
    """100 copies of ten observations say no more than the ten: the interval is as wide as theirs."""
    draw = np.random.default_rng(5)
    gains = draw.normal(0.0, 0.1, 10)
    ten = compare(named([0.5] * 10), named(list(0.5 + gains)), {}, seed=1)
    copies = {f"{number}-{copy}": 0.5 + gain for number, gain in enumerate(gains) for copy in range(100)}
    groups = {name: name.split("-")[0] for name in copies}
    grouped = compare(dict.fromkeys(copies, 0.5), copies, groups, seed=1)
    alone = compare(dict.fromkeys(copies, 0.5), copies, {}, seed=1)
    assert grouped.high - grouped.low == pytest.approx(ten.high - ten.low, rel=0.05)
    assert alone.high - alone.low < 0.2 * (grouped.high - grouped.low)
    assert grouped.groups == 10


def test_one_group_has_no_interval_and_zero_has_no_relative_change() -> None:
    """NaN compares false with any threshold, so neither can pass for an improvement."""
    found = compare({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, {"a": "g", "b": "g"}, seed=1)
    assert math.isnan(found.low)
    assert math.isnan(found.relative)
    assert found.difference == 1.0


def test_other_queries_on_the_two_sides_are_refused() -> None:
    """A paired comparison needs pairs."""
    with pytest.raises(ValueError, match="same queries"):
        compare({"a": 1.0}, {"b": 1.0}, {}, seed=1)
