"""The measures, against a small computation that shares nothing with the library."""

import math

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.ranking import metrics
from nearer.records import Hit, Judgment

TARGETS = [f"d{number}" for number in range(14)]
KS = [1, 3, 5, 10]


def by_hand(ranked: list[str], relevance: dict[str, int]) -> dict[str, float]:
    """All measures of one query."""
    wanted = {target for target, grade in relevance.items() if grade > 0}
    found = [position for position, target in enumerate(ranked, start=1) if target in wanted]
    values = {f"R@{k}": sum(position <= k for position in found) / len(wanted) for k in KS}
    values |= {f"P@{k}": sum(position <= k for position in found) / k for k in KS}
    values |= {f"Success@{k}": float(any(position <= k for position in found)) for k in KS}
    values["Rprec"] = sum(position <= len(wanted) for position in found) / len(wanted)
    values["RR@10"] = 1 / found[0] if found and found[0] <= 10 else 0.0
    gains = [relevance.get(target, 0) / math.log2(position + 1) for position, target in enumerate(ranked[:10], 1)]
    ideal = sorted(relevance.values(), reverse=True)[:10]
    values["nDCG@10"] = sum(gains) / sum(grade / math.log2(position + 1) for position, grade in enumerate(ideal, 1))
    values["AP"] = sum(count / position for count, position in enumerate(found, start=1)) / len(wanted)
    return values


lists = st.lists(st.sampled_from(TARGETS), unique=True, max_size=14)
grades = st.dictionaries(st.sampled_from(TARGETS), st.integers(0, 3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    runs=st.dictionaries(st.sampled_from(["q1", "q2", "q3", "q4"]), lists),
    judged=st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]), grades.filter(lambda found: any(found.values())), min_size=1
    ),
)
def test_values_are_those_computed_by_hand(runs: dict[str, list[str]], judged: dict[str, dict[str, int]]) -> None:
    """Short lists, missing queries, unjudged queries and graded judgments included; equal scores do not matter."""
    run = {query: [Hit(target, 1.0) for target in ranked] for query, ranked in runs.items()}
    scores = metrics.evaluate(run, judged, KS)
    assert list(scores.per_query) == sorted(judged)
    for query, relevance in judged.items():
        assert scores.per_query[query] == pytest.approx(by_hand(runs.get(query, []), relevance))
    for name, mean in scores.mean.items():
        assert mean == pytest.approx(sum(values[name] for values in scores.per_query.values()) / len(judged))
    assert set(scores.without_results) == {query for query in judged if not runs.get(query)}


def test_measures_are_named_and_ordered_as_people_read_them() -> None:
    """Names of ir_measures, each K once."""
    assert metrics.measures([5, 1, 5]) == (
        *("R@1", "R@5", "P@1", "P@5", "Success@1", "Success@5"),
        *("RR@10", "nDCG@10", "AP", "Rprec"),
    )


def test_a_list_that_names_a_target_twice_is_refused() -> None:
    """The library would silently keep the last."""
    with pytest.raises(ValueError, match="twice"):
        metrics.evaluate({"q": [Hit("a", 2.0), Hit("a", 1.0)]}, {"q": {"a": 1}}, KS)


def test_no_run_at_all_scores_zero_everywhere() -> None:
    """Every judged query counts, also when nothing was found for any."""
    scores = metrics.evaluate({}, {"q": {"a": 1}}, KS)
    assert set(scores.mean.values()) == {0.0}
    assert scores.without_results == ("q",)


def test_queries_without_a_relevant_target_are_not_scored() -> None:
    """Nothing could be found for them."""
    judgments = [Judgment(query_id="a", target="x"), Judgment(query_id="b", target="x", relevance=0)]
    assert metrics.relevant(judgments, lambda target: target) == {"a": {"x": 1}}


def test_a_judgment_on_a_document_makes_the_query_one_of_documents() -> None:
    """Its judgments on passages then count for their documents."""
    judgments = [
        Judgment(query_id="q", target="D1", level="document"),
        Judgment(query_id="q", target="D2#4"),
        Judgment(query_id="p", target="D2#4"),
    ]
    assert metrics.relevant(judgments, lambda target: target.split("#")[0]) == {
        "p": {"D2#4": 1},
        "q": {"D1": 1, "D2": 1},
    }
    assert metrics.on_documents(judgments) == {"q"}


def test_the_best_passage_stands_for_its_document() -> None:
    """Documents in the order of their first passage, with its score."""
    hits = [Hit("D1#2", 0.9), Hit("D2#1", 0.8), Hit("D1#1", 0.7), Hit("D3#1", 0.6)]
    documents = metrics.to_documents(hits, lambda target: target.split("#")[0])
    assert documents == [Hit("D1", 0.9), Hit("D2", 0.8), Hit("D3", 0.6)]


def test_attainable_values_are_those_of_a_perfect_system() -> None:
    """One and three relevant targets: P@3 can be 1/3 and 1, R@1 can be 1 and 1/3."""
    judged = {"a": {"x": 1, "y": 0}, "b": {"x": 1, "y": 2, "z": 1}}
    assert metrics.attainable(judged, [1, 3]) == {
        "R@1": pytest.approx(2 / 3),
        "R@3": 1.0,
        "P@1": 1.0,
        "P@3": pytest.approx(2 / 3),
    }


PEERS = {"RR@10": "recip_rank_10", "nDCG@10": "ndcg_cut_10", "AP": "map", "Rprec": "Rprec"}
PEERS |= {
    f"{ours}@{k}": f"{theirs}_{k}" for ours, theirs in (("R", "recall"), ("P", "P"), ("Success", "success")) for k in KS
}


@settings(deadline=None, max_examples=80)
@given(
    runs=st.dictionaries(
        st.sampled_from(["q1", "q2", "q3", "q4"]),
        st.lists(st.tuples(st.sampled_from(TARGETS), st.integers(0, 3)), max_size=14),
    ),
    judged=st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]), grades.filter(lambda found: any(found.values())), min_size=1
    ),
)
def test_values_are_those_of_pytrec_eval(
    runs: dict[str, list[tuple[str, int]]], judged: dict[str, dict[str, int]]
) -> None:
    """To 1e-9, on runs full of ties that we break by ascending id, with unjudged queries and missing results."""
    run = {}
    for query, pairs in runs.items():
        scores = dict(pairs)
        run[query] = [Hit(name, float(scores[name])) for name in sorted(scores, key=lambda name: (-scores[name], name))]
    found = metrics.evaluate(run, judged, KS)
    wanted = {"recall.1,3,5,10", "P.1,3,5,10", "success.1,3,5,10", "ndcg_cut.10", "map", "Rprec", "recip_rank"}
    peer = pytrec_eval.RelevanceEvaluator(judged, wanted)
    # The library breaks ties its own way, so it is given the ranks.
    ranked = {query: {hit.target: float(-place) for place, hit in enumerate(hits)} for query, hits in run.items()}
    values = peer.evaluate({query: hits for query, hits in ranked.items() if hits})
    first_ten = {query: dict(list(hits.items())[:10]) for query, hits in ranked.items() if hits}
    reciprocal = peer.evaluate(first_ten)
    for query in judged:
        expected = dict(values.get(query, {}))
        expected["recip_rank_10"] = reciprocal.get(query, {}).get("recip_rank", 0.0)
        for ours, theirs in PEERS.items():
            assert found.per_query[query][ours] == pytest.approx(expected.get(theirs, 0.0), abs=1e-9), (query, ours)
