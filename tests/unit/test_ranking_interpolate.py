"""A list and a reranker's scores as one order."""

from hypothesis import given
from hypothesis import strategies as st

from nearer.ranking.fuse import interpolate
from nearer.records import Hit

scores = st.floats(-5, 5, allow_nan=False)
lists = st.lists(st.tuples(scores, scores), max_size=12)


def made(pairs: list[tuple[float, float]]) -> tuple[list[Hit], dict[str, float]]:
    ordered = sorted(pairs, key=lambda pair: -pair[0])
    hits = [Hit(f"p{place:02}", own) for place, (own, _) in enumerate(ordered)]
    return hits, {f"p{place:02}": other for place, (_, other) in enumerate(ordered)}


@given(lists, st.integers(1, 15), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_the_top_is_reordered_and_the_rest_stays(pairs: list[tuple[float, float]], depth: int, weight: float) -> None:
    """Nothing is lost, nothing below the depth moves."""
    hits, other = made(pairs)
    found = interpolate(hits, other, depth=depth, weight=weight)
    assert {hit.target for hit in found[:depth]} == {hit.target for hit in hits[:depth]}
    assert found[depth:] == hits[depth:]


@given(lists, st.integers(1, 15))
def test_the_ends_are_one_order_alone(pairs: list[tuple[float, float]], depth: int) -> None:
    """0: the list as it was, 1: the reranker's order and its scores."""
    hits, other = made(pairs)
    assert interpolate(hits, other, depth=depth, weight=0.0) == hits
    top = interpolate(hits, other, depth=depth, weight=1.0)[:depth]
    assert [hit.score for hit in top] == sorted((other[hit.target] for hit in hits[:depth]), reverse=True)


def test_both_count_by_their_weights() -> None:
    """By hand: scaled to [0, 1], the list's scores are 1, .5, 0 and the reranker's 0, 1, .75."""
    hits = [Hit("a", 0.9), Hit("b", 0.8), Hit("c", 0.7)]
    found = interpolate(hits, {"a": -2.0, "b": 2.0, "c": 1.0}, depth=3, weight=0.4)
    assert [hit.target for hit in found] == ["b", "a", "c"]
    assert [round(hit.score, 6) for hit in found] == [0.7, 0.6, 0.3]
