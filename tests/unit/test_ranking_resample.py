"""Intervals, tests and numbers of queries, against scipy, ranx and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nearer.ranking.compare import compare, queries_needed
from nearer.ranking.resample import bootstrap, groups_of, holm, interval, randomisation


def values(size: int, *, seed: int = 1, effect: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    before = draw.uniform(0, 1, size)
    return before, np.clip(before + draw.normal(effect, 0.15, size), 0, 1)


@pytest.mark.parametrize("size", [5, 9, 12])
def test_the_randomisation_test_is_scipys_where_both_enumerate(size: int) -> None:
    """All sign patterns of a fixed sample."""
    before, after = values(size)
    peer = stats.permutation_test(
        (after, before),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    ours = randomisation((after - before)[:, None], seed=1)[0]
    assert ours == pytest.approx(peer.pvalue, abs=1e-12)


def test_the_randomisation_test_is_near_scipys_where_both_draw() -> None:
    """Two Monte Carlo estimates of one p-value."""
    before, after = values(80)
    peer = stats.permutation_test(
        (after, before),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(3),
    )
    ours = randomisation((after - before)[:, None], seed=1)[0]
    assert ours == pytest.approx(peer.pvalue, abs=4 * math.sqrt(2 * peer.pvalue / 10_000))


def test_the_bootstrap_is_scipys() -> None:
    """The percentiles of the same statistic; the interval is as much wider as t is than z."""
    before, after = values(60)
    change = after - before
    peer = stats.bootstrap((change,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(3))
    means = bootstrap(change[:, None], np.ones(60), seed=1, samples=20_000)
    low, high = np.percentile(means[:, 0], (2.5, 97.5))
    assert (low, high) == pytest.approx(tuple(peer.confidence_interval), abs=6e-4)
    wide_low, wide_high = interval(means, groups=60, confidence=0.95)
    factor = math.sqrt(60 / 59) * stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975)
    assert wide_high[0] - wide_low[0] == pytest.approx(factor * (high - low), rel=0.03)


def test_a_ratio_of_unequal_groups_is_what_is_resampled() -> None:
    """The mean over queries, groups drawn whole: by hand for three groups of one, two and three queries."""
    groups = groups_of(["a", "b", "c", "d", "e", "f"], {"a": "1", "b": "2", "c": "2", "d": "3", "e": "3", "f": "3"})
    sums = groups.sums(np.array([[1.0], [2.0], [4.0], [0.0], [3.0], [6.0]]))
    assert sums.ravel().tolist() == [1.0, 6.0, 9.0]
    possible = {
        round((a + b + c) / (m + n + k), 9)
        for a, m in ((1, 1), (6, 2), (9, 3))
        for b, n in ((1, 1), (6, 2), (9, 3))
        for c, k in ((1, 1), (6, 2), (9, 3))
    }
    drawn = {round(value, 9) for value in bootstrap(sums, groups.sizes, seed=1, samples=500).ravel()}
    assert drawn == possible
    assert groups.effective == pytest.approx(36 / 14)


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=12))
def test_holm_is_between_the_raw_values_and_bonferroni_and_keeps_their_order(p_values: list[float]) -> None:
    """Never smaller than the raw value, never larger than Bonferroni's or 1."""
    adjusted = holm(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        assert raw <= found <= min(1.0, len(p_values) * raw) + 1e-12 or found == max(
            other for other, value in zip(adjusted, p_values, strict=True) if value <= raw
        )
    ordered = [found for _, found in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_holm_by_hand() -> None:
    """The example of three: 3 × .01, then 2 × .02, then the larger of .04 and .03."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_the_number_of_queries_finds_the_effect_as_often_as_was_asked() -> None:
    """Of normal differences with a known error: both conditions, above zero and at least the minimum."""
    one = {"standard_error": 0.2 / math.sqrt(100), "queries": 100, "groups": 1e6, "confidence": 0.95, "power": 0.8}
    count = queries_needed(effect=0.03, minimum=0.01, **one)
    assert count == math.ceil(((1.959964 + 0.841621) * 0.2 / 0.03) ** 2)
    error = 0.2 / math.sqrt(count)
    found = np.random.default_rng(1).normal(0.03, error, 100_000)
    assert ((found > 1.96 * error) & (found >= 0.01)).mean() == pytest.approx(0.8, abs=0.01)
    near = queries_needed(effect=0.03, minimum=0.028, **one)
    assert near is not None
    found = np.random.default_rng(1).normal(0.03, 0.2 / math.sqrt(near), 100_000)
    assert (found >= 0.028).mean() == pytest.approx(0.8, abs=0.01)


def test_few_groups_ask_for_more_queries() -> None:
    """Their interval is wider; with many it makes no difference."""
    one = {"effect": 0.05, "minimum": 0.0, "standard_error": 0.02, "queries": 100, "confidence": 0.95, "power": 0.8}
    many, some, few = (queries_needed(**one, groups=groups) for groups in (1e6, 50.0, 10.0))
    assert many is not None
    assert some is not None
    assert few is not None
    assert many < some < few


@pytest.mark.parametrize("effect", [0.0, -0.1, 0.01])
def test_no_number_of_queries_finds_an_effect_that_does_not_count(effect: float) -> None:
    """Not above zero, or not above the minimum."""
    given = {"standard_error": 0.1, "queries": 10, "groups": 10.0, "confidence": 0.95, "power": 0.8}
    assert queries_needed(effect=effect, minimum=0.01, **given) is None
    assert queries_needed(effect=0.1, minimum=0.01, **{**given, "standard_error": math.nan}) is None


@pytest.mark.full
def test_the_randomisation_test_is_near_ranxs() -> None:
    """Fisher's test of the other library on the same fixed runs, every query a group."""
    ranx = pytest.importorskip("ranx")
    draw = np.random.default_rng(2)
    qrels = {f"q{number:03d}": {"d0": 1} for number in range(120)}
    runs = {}
    for name, skill in (("before", 0.0), ("after", 0.8)):
        runs[name] = {
            query: {f"d{target}": float(draw.normal() + skill * (target == 0)) for target in range(8)}
            for query in qrels
        }
    peers = [ranx.Run(found, name=name) for name, found in runs.items()]
    report = ranx.compare(
        ranx.Qrels(qrels), runs=peers, metrics=["mrr"], stat_test="fisher", n_permutations=10_000, random_seed=3
    )
    theirs = report.comparisons[frozenset(("before", "after"))]["mrr"]["p_value"]

    def reciprocal(name: str, query: str) -> float:
        ranked = sorted(runs[name][query], key=lambda target: -runs[name][query][target])
        return 1 / (1 + ranked.index("d0"))

    ours = compare(*({query: reciprocal(name, query) for query in qrels} for name in ("before", "after")), {}, seed=1)
    print(f"p-values of the randomisation test: ours {ours.p_value:.4f}, ranx {theirs:.4f}")
    assert ours.p_value == pytest.approx(theirs, abs=0.01)
