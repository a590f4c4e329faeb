"""How good a run is, by ir_measures, under rules of our own where evaluators differ.

- The order of the run is what counts: scores are derived from the ranks, so no library breaks ties its own way.
- A query that is judged and has no results scores 0, and is counted.
- A query without a relevant judgment is not scored: nothing could be found.
- A query that is judged on a whole document is scored on documents: the best passage of a document stands for it. Its
  judgments on passages, if any, then count for their documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nearer.errors import InputError
from nearer.records import Hit, Judgment, Run

NDCG: Final = "nDCG@10"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Values of each measure, by query and on average over all scored queries."""

    per_query: Mapping[str, Mapping[str, float]]
    """query id → measure → value, queries in ascending order."""
    mean: Mapping[str, float]
    """measure → mean over the scored queries; empty when there is none."""
    without_results: tuple[str, ...]
    """Queries that are judged, and for which the run holds nothing."""


def measures(ks: Sequence[int]) -> tuple[str, ...]:
    """Names of the measures, as ir_measures names them, in the order in which people read them."""
    ranks = sorted(set(ks))
    at = [f"{name}@{k}" for name in ("R", "P", "Success") for k in ranks]
    return (*at, "RR@10", NDCG, "AP", "Rprec")


def require(measure: str, ks: Sequence[int]) -> None:
    """Refuse a name that is none of the measures.

    Raises:
        InputError: it is not.
    """
    known = measures(ks)
    if measure not in known:
        raise InputError(
            f"eval.verdict.measure is {measure!r}",
            rule=f"one of {', '.join(known)}",
            way_out="name one of them; for another K add it to eval.ks",
        )


def relevant(judgments: Iterable[Judgment], document_of: Callable[[str], str]) -> dict[str, dict[str, int]]:
    """What is to be found: query id → target → relevance, for queries with at least one relevant target.

    Targets are passages, or documents for a query that has a judgment on a document.
    """
    by_query: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_query.setdefault(judgment.query_id, []).append(judgment)
    found: dict[str, dict[str, int]] = {}
    for query in sorted(by_query):
        targets: dict[str, int] = {}
        on_documents = any(judgment.level == "document" for judgment in by_query[query])
        for judgment in by_query[query]:
            to_document = on_documents and judgment.level == "passage"
            target = document_of(judgment.target) if to_document else judgment.target
            targets[target] = max(judgment.relevance, targets.get(target, 0))
        if any(relevance > 0 for relevance in targets.values()):
            found[query] = dict(sorted(targets.items()))
    return found


def on_documents(judgments: Iterable[Judgment]) -> frozenset[str]:
    """Ids of the queries that are judged, and therefore scored, on whole documents."""
    return frozenset(judgment.query_id for judgment in judgments if judgment.level == "document")


def to_documents(hits: Sequence[Hit], document_of: Callable[[str], str]) -> list[Hit]:
    """A list of passages as a list of their documents: each at the place, and with the score, of its best passage."""
    best: dict[str, Hit] = {}
    for hit in hits:
        document = document_of(hit.target)
        best.setdefault(document, Hit(document, hit.score))
    return list(best.values())


def evaluate(run: Run, judgments: Mapping[str, Mapping[str, int]], ks: Sequence[int]) -> Scores:
    """Score a run.

    Definitions are trec_eval's: R@K is the share of the relevant targets among the first K; P@K divides by K also when
    the list is shorter; Success@K (the hit rate) is 1 when any relevant target is among the first K; RR@10 is 1 /
    rank of the first relevant target among the first 10, else 0; nDCG@10 has linear gain and log2 discount (Järvelin
    & Kekäläinen 2002); AP is over the list as it is, so its depth matters; Rprec is the precision at as many results
    as there are relevant targets.

    Args:
        run: ranked lists in the order that counts, in the unit that is judged; further queries are ignored.
        judgments: see `relevant`.
        ks: ranks K of R@K and P@K.

    Raises:
        ValueError: a list holds a target twice.
    """
    import ir_measures

    names = measures(ks)
    ranked: dict[str, dict[str, float]] = {}
    for query in judgments:
        hits = run.get(query, [])
        ranked[query] = {hit.target: float(len(hits) - place) for place, hit in enumerate(hits)}
        if len(ranked[query]) != len(hits):
            raise ValueError(f"the list of query {query!r} holds a target twice")
    # A query that the library says nothing about keeps its zeros.
    per_query = {query: dict.fromkeys(names, 0.0) for query in sorted(judgments)}
    wanted = {ir_measures.parse_measure(name): name for name in names}
    qrels = {query: dict(targets) for query, targets in judgments.items()}
    results = {query: hits for query, hits in ranked.items() if hits}
    if qrels and results:
        for metric in ir_measures.iter_calc(list(wanted), qrels, results):
            per_query[metric.query_id][wanted[metric.measure]] = float(metric.value)
    mean = {
        name: math.fsum(values[name] for values in per_query.values()) / len(per_query) for name in names if per_query
    }
    return Scores(
        per_query=per_query,
        mean=mean,
        without_results=tuple(query for query in per_query if not ranked[query]),
    )


def attainable(judgments: Mapping[str, Mapping[str, int]], ks: Sequence[int]) -> dict[str, float]:
    """The highest mean R@K and P@K that any system can reach.

    P@K is bounded where a query has fewer than K relevant targets (one of them caps P@10 at 0.1), R@K where it has
    more.
    """
    counts = [sum(relevance > 0 for relevance in targets.values()) for targets in judgments.values()]
    ranks = sorted(set(ks)) if counts else []
    recall = {f"R@{k}": sum(min(count, k) / count for count in counts) / len(counts) for k in ranks}
    return recall | {f"P@{k}": sum(min(count, k) / k for count in counts) / len(counts) for k in ranks}
