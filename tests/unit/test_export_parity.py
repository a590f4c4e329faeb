import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nearer.export.parity import max_difference, rank_agreement

SCORES = st.integers(-3, 3).map(float)


def both_vary(rows: list[tuple[float, float]]) -> bool:
    return all(len(set(column)) > 1 for column in zip(*rows, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(SCORES, SCORES), min_size=3, max_size=12).filter(both_vary))
def test_rank_agreement_of_one_query_is_scipys_spearman_with_ties(rows: list[tuple[float, float]]) -> None:
    """With repeated scores too, one query's agreement is Spearman's coefficient as scipy computes it."""
    left, right = (np.array(column) for column in zip(*rows, strict=True))
    expected = spearmanr(left, right).statistic
    assert rank_agreement(left, right, [len(rows)]) == pytest.approx(expected, abs=1e-9)


def test_rank_agreement_is_the_mean_over_queries_not_over_pairs() -> None:
    """A long agreeing list and a short reversed one weigh the same."""
    reference = np.array([1.0, 2, 3, 4, 5, 6, 1, 2])
    other = np.array([1.0, 2, 3, 4, 5, 6, 2, 1])
    assert rank_agreement(reference, other, [6, 2]) == 0.0


def test_lists_of_one_passage_do_not_count() -> None:
    """A single passage has no order, so it neither helps nor harms."""
    assert rank_agreement(np.array([5.0, 1, 2]), np.array([9.0, 2, 1]), [1, 2]) == -1.0


def test_a_constant_scorer_agrees_only_with_a_constant_one() -> None:
    """A quantised model that gives every passage the same score has lost the order."""
    assert rank_agreement(np.array([1.0, 2, 3]), np.zeros(3), [3]) == 0.0
    assert rank_agreement(np.zeros(3), np.zeros(3), [3]) == 1.0


def test_nan_never_passes_a_gate() -> None:
    """A score that is not a number is the worst agreement and an infinite difference."""
    reference, broken = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    assert rank_agreement(reference, broken, [2]) == -1.0
    assert max_difference(reference, broken) == float("inf")


def test_max_difference_is_the_largest_absolute_one() -> None:
    """The sign of a difference does not matter."""
    assert max_difference(np.array([1.0, 2, 3]), np.array([1.5, 0, 3])) == 2.0
