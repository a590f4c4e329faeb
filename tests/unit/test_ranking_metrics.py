"""The measures, against a small computation that shares nothing with the library."""

import math

import pytest
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
    assert metrics.measures([5, 1, 5]) == ("R@1", "R@5", "P@1", "P@5", "RR@10", "nDCG@10", "AP")


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


def test_attainable_precision_is_what_a_perfect_system_reaches() -> None:
    """One and three relevant targets: P@3 can be 1/3 and 1."""
    judged = {"a": {"x": 1, "y": 0}, "b": {"x": 1, "y": 2, "z": 1}}
    assert metrics.attainable_precision(judged, [1, 3]) == {"P@1": 1.0, "P@3": pytest.approx(2 / 3)}
