"""BM25 and exact dense search, and runs made one."""

import unicodedata

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nearer.ranking import bm25, dense
from nearer.ranking.bm25 import Bm25
from nearer.ranking.fuse import reciprocal_rank_fusion, weighted
from nearer.ranking.tokenise import tokenise
from nearer.ranking.top import top
from nearer.records import Hit

IDS = ["d3", "d1", "d2", "d4"]
TEXTS = [
    "공기청정기의 필터를 두 달마다 교체합니다.",
    "제습기 D10의 물통을 비우는 방법",
    "제습기 D20의 물통을 비우는 방법",
    "LibreOffice Writer에서 쪽 번호를 넣습니다.",
]


def targets(hits: list[Hit]) -> list[str]:
    return [hit.target for hit in hits]


def test_particles_and_endings_do_not_keep_a_query_from_its_text() -> None:
    """`필터는` and `교체하려면` find `필터를` and `교체합니다`."""
    (hits,) = Bm25(IDS, TEXTS).search(["필터는 언제 교체하려면"], 2)
    assert targets(hits)[0] == "d3"


def test_latin_words_are_found_whatever_their_case() -> None:
    """Korean text holds English names."""
    assert [targets(hits) for hits in Bm25(IDS, TEXTS).search(["libreoffice WRITER"], 5)] == [["d4"]]


def test_model_names_are_more_than_their_parts() -> None:
    """`D20` comes before `D10` for a query that names it."""
    (hits,) = Bm25(IDS, TEXTS).search(["D20 물통"], 5)
    assert targets(hits) == ["d2", "d1"]
    assert hits[0].score > hits[1].score


@pytest.mark.parametrize("query", ["", "   ", "?!", "은 는 이 가", "존재하지않는낱말zzz"])
def test_a_query_without_known_terms_has_no_hits(query: str) -> None:
    """Nothing is better than the first texts by id."""
    assert Bm25(IDS, TEXTS).search([query], 5) == [[]]


def test_equal_scores_come_in_ascending_order_of_id_whatever_the_order_of_the_texts() -> None:
    """The same text three times."""
    index = Bm25(["c", "a", "b", "z"], ["필터 교체"] * 3 + ["물통"])
    assert targets(index.search(["필터"], 2)[0]) == ["a", "b"]


@pytest.mark.parametrize("texts", [[], ["", "?"]])
def test_a_corpus_without_words_finds_nothing(texts: list[str]) -> None:
    """No text, or none with content."""
    assert Bm25([str(number) for number in range(len(texts))], texts).search(["필터"], 3) == [[]]


def test_decomposed_hangul_gives_the_same_terms() -> None:
    """Files from macOS hold jamo."""
    composed, decomposed = tokenise(["필터 교체 F5", unicodedata.normalize("NFD", "필터 교체 F5")])
    assert composed == decomposed == ["필터", "교체", "f", "5", "f5"]


texts_of_terms = st.lists(st.lists(st.sampled_from("가나다라마바"), max_size=6), min_size=1, max_size=12)


@settings(deadline=None)
@given(texts_of_terms, texts_of_terms, st.integers(1, 13), st.integers(1, 40))
def test_bm25_ranks_as_the_librarys_own_scores_do(
    texts: list[list[str]], queries: list[list[str]], k: int, at_once: int
) -> None:
    """Terms that a query repeats, ties, texts without a term, and however many queries are searched together."""
    ids = [f"{number:02d}" for number in range(len(texts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "_SCORES_AT_ONCE", at_once)
        found = Bm25.of_terms(ids, texts).search_terms(iter(queries), k)
    peer = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    vocabulary = set().union(*texts)
    if vocabulary:
        peer.index(texts, show_progress=False)
    for terms, hits in zip(queries, found, strict=True):
        known = [term for term in terms if term in vocabulary]
        scores = peer.get_scores(known) if known else np.zeros(len(ids))
        expected = [Hit(ids[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")]
        assert hits == [hit for hit in expected if hit.score > 0][:k]


scores = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(-2, 2).map(float)
)


@settings(deadline=None)
@given(scores, st.integers(0, 14))
def test_top_is_a_stable_sort_cut_off(matrix: np.ndarray, k: int) -> None:
    """Ties by ascending column, at the boundary too."""
    assert top(matrix, k).tolist() == np.argsort(-matrix, axis=1, kind="stable")[:, :k].tolist()


@settings(deadline=None)
@given(
    data=st.data(),
    passages=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 15), st.just(3)), elements=st.integers(-2, 2).map(float)
    ),
    block=st.integers(1, 6),
    k=st.integers(1, 17),
)
def test_dense_search_is_a_full_sort_whatever_the_blocks(data, passages: np.ndarray, block: int, k: int) -> None:
    """By descending score, then ascending id, excluded ids left out."""
    queries = data.draw(
        arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(3)), elements=st.integers(-2, 2).map(float))
    )
    ids = data.draw(st.permutations([f"p{number:02d}" for number in range(len(passages))]))
    exclude = [data.draw(st.sets(st.sampled_from(ids))) for _ in queries]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "_PASSAGES_PER_BLOCK", block)
        patch.setattr(dense, "_QUERIES_PER_BLOCK", 2)
        found = dense.search(queries, passages, ids, k, exclude=exclude)
    expected = [
        sorted(((-float(row[position]), name) for position, name in enumerate(ids) if name not in hidden))[:k]
        for row, hidden in zip(queries @ passages.T, exclude, strict=True)
    ]
    assert [[(-hit.score, hit.target) for hit in hits] for hits in found] == expected


def test_vectors_that_hold_nan_are_refused() -> None:
    """A NaN would sort anywhere."""
    with pytest.raises(ValueError, match="NaN"):
        dense.search(np.ones((1, 2)), np.array([[1.0, np.nan]]), ["a"], 1)


def test_reciprocal_rank_fusion_adds_reciprocal_ranks() -> None:
    """A target of both runs beats the first of either; equal sums by ascending target."""
    runs = [{"q": [Hit("a", 9.0), Hit("b", 8.0)]}, {"q": [Hit("c", 0.3), Hit("b", 0.2)], "r": [Hit("a", 1.0)]}]
    fused = reciprocal_rank_fusion(runs)
    assert targets(fused["q"]) == ["b", "a", "c"]
    assert fused["q"][0].score == pytest.approx(2 / 62)
    assert fused["r"] == [Hit("a", 1 / 61)]


def test_weighted_fusion_scales_each_run_first() -> None:
    """Scores of BM25 and cosines become comparable; the weights decide."""
    sparse = {"q": [Hit("a", 30.0), Hit("b", 20.0), Hit("c", 10.0)]}
    cosines = {"q": [Hit("c", 0.9), Hit("a", 0.8), Hit("b", 0.7)]}
    fused = weighted([cosines, sparse], [0.8, 0.2])["q"]
    assert [(hit.target, round(hit.score, 6)) for hit in fused] == [("c", 0.8), ("a", 0.6), ("b", 0.1)]


def test_weighted_fusion_needs_a_weight_a_run() -> None:
    """Programming error, said at once."""
    with pytest.raises(ValueError, match="weights"):
        weighted([{}], [0.5, 0.5])
