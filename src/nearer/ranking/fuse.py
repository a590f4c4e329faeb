"""Two or more runs as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearer.records import Hit, Run


def reciprocal_rank_fusion(runs: Sequence[Run], k: int = 60) -> dict[str, list[Hit]]:
    """Each target scores the sum of `1 / (k + rank)` over the runs that hold it, ranks from 1.

    Cormack, Clarke & Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods"
    (SIGIR), equation on page 1; k = 60 is theirs.

    Returns:
        One list for each query of any run, best first, ties by ascending target.
    """
    return _sum([{query: _reciprocal(hits, k) for query, hits in run.items()} for run in runs])


def weighted(runs: Sequence[Run], weights: Sequence[float]) -> dict[str, list[Hit]]:
    """Each target scores the weighted sum of its scores, which are first brought to [0, 1] for each query and run.

    Convex combination with min-max normalisation, as Bruch, Gai & Ingber 2023, "An Analysis of Fusion Functions for
    Hybrid Retrieval" (arXiv:2210.11934), section 3. A run in which all scores of a query are equal gives 1 to its
    targets; a target that is not in a run gets 0 from it.

    Args:
        runs: to fuse.
        weights: one a run; `(0.8, 0.2)` for dense and BM25 is the guide's alpha of 0.8.

    Returns:
        One list for each query of any run, best first, ties by ascending target.
    """
    if len(runs) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(runs)} runs")
    shares = [
        {query: {target: weight * share for target, share in scaled(hits).items()} for query, hits in run.items()}
        for run, weight in zip(runs, weights, strict=True)
    ]
    return _sum(shares)


def interpolate(hits: Sequence[Hit], scores: Mapping[str, float], *, depth: int, weight: float) -> list[Hit]:
    """Order the top of a list anew, by its own scores and a reranker's together.

    Both are brought to [0, 1] over that top (see `weighted`); the reranker's count `weight`, the list's own the rest.

    Args:
        hits: best first.
        scores: the reranker's, of the first `depth` targets.
        depth: of the top; what follows stays as it was.
        weight: 1: by the reranker's scores alone, which are then the scores of the hits; 0: the order that was there.
    """
    top = list(hits[:depth])
    again = [Hit(hit.target, scores[hit.target]) for hit in top]
    if weight == 1:
        ordered = sorted(again, key=lambda hit: (-hit.score, hit.target))
    elif weight == 0:
        ordered = top
    else:
        ordered = weighted([{"": top}, {"": again}], [1 - weight, weight])[""] if top else []
    return [*ordered, *hits[depth:]]


def scaled(hits: Sequence[Hit]) -> dict[str, float]:
    """Target → its score, brought to [0, 1] within the list; 1 where all are equal."""
    if not hits:
        return {}
    low, high = min(hit.score for hit in hits), max(hit.score for hit in hits)
    return {hit.target: (hit.score - low) / (high - low) if high > low else 1.0 for hit in hits}


def _reciprocal(hits: Sequence[Hit], k: int) -> dict[str, float]:
    return {hit.target: 1.0 / (k + rank) for rank, hit in enumerate(hits, start=1)}


def _sum(parts: Sequence[dict[str, dict[str, float]]]) -> dict[str, list[Hit]]:
    total: dict[str, dict[str, float]] = {}
    for part in parts:
        for query, scores in part.items():
            into = total.setdefault(query, {})
            for target, score in scores.items():
                into[target] = into.get(target, 0.0) + score
    return {
        query: [Hit(target, score) for target, score in sorted(scores.items(), key=lambda item: (-item[1], item[0]))]
        for query, scores in total.items()
    }
