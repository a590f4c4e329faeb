"""Positive-aware mining: who may be a hard negative, and what the audit says about the others."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.errors import InputError
from nearer.ranking.mine import (
    FALSE_NEGATIVE,
    NEAR_DUPLICATE,
    NOT_NEEDED,
    POSITIVE_NOT_TRUSTED,
    merge,
    mine,
    teacher_zero,
)

SCORES = {"p": 0.90, "close": 0.88, "near": 0.84, "far": 0.76, "random": 0.70}


def teacher(_query: int, passages: Sequence[str]) -> list[float]:
    return [SCORES[passage] for passage in passages]


def mine_one(candidates: dict[str, str], *, forbidden=None, positive=SCORES["p"], limit=10, max_share=0.9):
    mined, audit = mine(
        ["q"],
        candidates=lambda _: candidates,
        forbidden=lambda _: forbidden or {},
        score=teacher,
        positive_scores=[positive],
        zero=0.70,
        max_share=max_share,
        limit=limit,
    )
    return mined["q"], audit


def test_merge_takes_the_miners_in_turns_and_remembers_who_proposed() -> None:
    """All firsts, then all seconds; a passage that both propose names both, in the miners' order."""
    merged = merge({"bm25": ["a", "b", "c"], "dense": ["c", "d"]})
    assert list(merged.items()) == [("a", "bm25"), ("c", "bm25+dense"), ("b", "bm25"), ("d", "dense")]


def test_merge_skips_the_top_and_stops_at_the_depth() -> None:
    """`skip_top` and `depth` are ranks of each miner's own list."""
    assert list(merge({"bm25": ["a", "b", "c", "d"], "dense": ["e", "f"]}, skip_top=1, depth=3)) == ["b", "f", "c"]


def test_the_share_is_of_the_centred_positive_and_not_of_the_raw_one() -> None:
    """0.88 is 98 % of 0.90 raw and 90 % centred at 0.70; 0.84 is 93 % raw, and 70 % centred."""
    kept, audit = mine_one({"close": "dense", "near": "bm25", "far": "bm25"}, max_share=0.8)
    assert [(negative.corpus_id, negative.miner) for negative in kept] == [("near", "bm25"), ("far", "bm25")]
    assert kept[0].score == pytest.approx(0.14)
    assert audit.counts == {FALSE_NEGATIVE: 1}
    (case,) = audit.samples[FALSE_NEGATIVE]
    assert (case.passage_id, case.score, case.positive_score) == ("close", pytest.approx(0.18), pytest.approx(0.20))


def test_a_positive_no_closer_than_chance_drops_every_candidate_of_its_query() -> None:
    """The teacher finds the positive as far away as a random passage, so its word on the others is worth nothing."""
    kept, audit = mine_one({"near": "bm25", "far": "dense"}, positive=0.70)
    assert kept == ()
    assert audit.counts == {POSITIVE_NOT_TRUSTED: 2}
    assert audit.queries_without_negatives == 1


def test_forbidden_passages_never_reach_the_teacher() -> None:
    """The first rule that holds is counted, and the teacher is asked about the others only."""
    asked = []

    def spy(query: int, passages: Sequence[str]) -> list[float]:
        asked.extend(passages)
        return teacher(query, passages)

    _, audit = mine(
        ["q"],
        candidates=lambda _: {"close": "bm25", "near": "bm25", "far": "dense"},
        forbidden=lambda _: {"known-positive": {"close"}, "test-document": {"close", "near"}},
        score=spy,
        positive_scores=[0.9],
        zero=0.7,
        max_share=0.9,
        limit=10,
    )
    assert asked == ["far"]
    assert audit.counts == {"known-positive": 1, "test-document": 1}


def test_the_limit_keeps_the_first_in_merged_order_and_counts_the_rest() -> None:
    """What the miners rank first is kept; the kept ones stand hardest first."""
    kept, audit = mine_one({"far": "bm25", "near": "dense", "random": "bm25"}, limit=2)
    assert [negative.corpus_id for negative in kept] == ["near", "far"]
    assert audit.counts == {NOT_NEEDED: 1}


def test_texts_are_compared_only_until_a_query_has_its_negatives() -> None:
    """Comparing is what takes long. What repeats an answer is passed over, and the next in merged order takes its place."""
    compared = []

    def repeats(query: int, passage: str) -> bool:
        compared.append((query, passage))
        return passage == "near"

    mined, audit = mine(
        ["q"],
        candidates=lambda _: {"close": "bm25", "near": "bm25", "far": "dense", "random": "dense", "p": "dense"},
        forbidden=lambda _: {"known-positive": {"p"}},
        score=teacher,
        positive_scores=[0.9],
        zero=0.7,
        max_share=0.8,
        limit=1,
        repeats=repeats,
    )
    assert [negative.corpus_id for negative in mined["q"]] == ["far"]
    assert compared == [(0, "near"), (0, "far")]
    assert audit.counts == {"known-positive": 1, FALSE_NEGATIVE: 1, NEAR_DUPLICATE: 1, NOT_NEEDED: 1}
    assert audit.samples[NEAR_DUPLICATE][0].score == pytest.approx(0.14)


def test_scores_that_are_no_numbers_stop_with_words() -> None:
    """NaN compares false with everything and would pass any threshold."""
    with pytest.raises(InputError, match="not numbers"):
        mine(
            ["q"],
            candidates=lambda _: {"near": "bm25"},
            forbidden=lambda _: {},
            score=lambda *_: [float("nan")],
            positive_scores=[0.9],
            zero=0.7,
            max_share=0.9,
            limit=1,
        )


@settings(deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(-1, 1), min_size=6, max_size=6), min_size=1, max_size=5),
    positives=st.lists(st.floats(-1, 1), min_size=5, max_size=5),
    zero=st.floats(-1, 1),
    share=st.floats(0.1, 1.5),
    limit=st.integers(0, 6),
    banned=st.sets(st.integers(0, 5)),
    same=st.sets(st.integers(0, 5)),
)
def test_every_candidate_is_kept_or_counted_under_one_rule(
    *, scores, positives, zero, share, limit, banned, same
) -> None:
    """Nothing is dropped silently, and what is kept obeys every rule."""
    queries = [f"q{number}" for number in range(len(scores))]
    forbidden = {f"p{number}" for number in banned}
    repeated = {f"p{number}" for number in same}
    mined, audit = mine(
        queries,
        candidates=lambda _: {f"p{number}": "bm25" for number in range(6)},
        forbidden=lambda _: {"known-positive": forbidden},
        score=lambda query, passages: [scores[query][int(passage[1:])] for passage in passages],
        positive_scores=positives[: len(scores)],
        zero=zero,
        max_share=share,
        limit=limit,
        repeats=lambda _, passage: passage in repeated,
    )
    assert audit.kept + sum(audit.counts.values()) == audit.candidates == 6 * len(scores)
    assert audit.kept == sum(map(len, mined.values()))
    for number, query in enumerate(queries):
        assert len(mined[query]) <= limit
        for negative in mined[query]:
            assert negative.corpus_id not in forbidden | repeated
            assert positives[number] - zero > 0
            assert negative.score <= share * (positives[number] - zero)


def test_the_teachers_zero_is_the_mean_over_pairs_that_are_no_positives() -> None:
    """Known positives are left out of the draw, and the same seed draws the same pairs."""
    asked: list[tuple[int, str]] = []

    def spy(query: int, passages: Sequence[str]) -> list[float]:
        asked.extend((query, passage) for passage in passages)
        return [float(passage[1:]) for passage in passages]

    passages = [f"p{number}" for number in range(10)]
    arguments = {"positives": [{"p0"}, {"p1"}], "passages": passages, "pairs": 400}
    zero = teacher_zero(spy, **arguments, seed=3)
    assert {(0, "p0"), (1, "p1")}.isdisjoint(asked)
    assert {(0, "p1"), (1, "p0")} <= set(asked)
    assert zero == pytest.approx(sum(float(passage[1:]) for _, passage in asked) / len(asked))
    assert 300 < len(asked) < 400
    assert zero == teacher_zero(spy, **arguments, seed=3) != teacher_zero(spy, **arguments, seed=4)


def test_a_corpus_of_positives_alone_has_no_zero() -> None:
    """There is no random pair to draw."""
    with pytest.raises(InputError, match="no random pair"):
        teacher_zero(lambda *_: [], positives=[{"a"}], passages=["a"], pairs=10, seed=0)
