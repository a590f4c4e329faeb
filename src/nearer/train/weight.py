"""How much a reranker is to count beside the retriever's own scores: chosen on the validation queries.

A cross-encoder that has seen little is worse than the list that it is given, and still knows something that the list
does not. Interpolated scores use that (dense retrievers beside BM25: Wang, Zhuang & Zuccon 2021, "BERT-based Dense
Retrievers Require Interpolation with BM25 for Effective Passage Retrieval", ICTIR); a weight of 0 says that it knows
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nearer.models.encode import Embedder
from nearer.models.score import Reranker
from nearer.progress import Progress
from nearer.ranking import dense
from nearer.ranking.fuse import interpolate
from nearer.records import Hit
from nearer.train.holdout import Validation
from nearer.train.measure import mean_ndcg

GRID: Final = tuple(tenth / 10 for tenth in range(11))
_DEPTH: Final = 100


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The weight that was chosen, and the validation nDCG@10 with it and at both ends."""

    weight: float
    interpolated: float
    alone: float
    without: float

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "rerank_weight": self.weight,
            "ndcg_interpolated": self.interpolated,
            "ndcg_reranker_alone": self.alone,
            "ndcg_without_reranker": self.without,
        }


def lists_of(
    embedder: Embedder, validation: Validation, texts: Mapping[str, str], *, batch_tokens: int
) -> dict[str, list[Hit]]:
    """What the retriever gives the reranker: the best of the validation passages for each validation query."""
    names = list(validation.queries)
    queries = embedder.encode_queries([validation.queries[name] for name in names], batch_tokens=batch_tokens)
    passages = embedder.encode_passages([texts[key] for key in validation.passages], batch_tokens=batch_tokens)
    return dict(zip(names, dense.search(queries, passages, validation.passages, _DEPTH), strict=True))


def weigh(
    reranker: Reranker,
    lists: Mapping[str, list[Hit]],
    validation: Validation,
    texts: Mapping[str, str],
    *,
    depth: int,
    batch_tokens: int,
    progress: Progress,
) -> Weighed:
    """Choose the weight with the best nDCG@10; of equals the smallest.

    Args:
        reranker: as it was saved.
        lists: by validation query, best first.
        validation: the queries and their judgments.
        texts: by key.
        depth: how many of each list the reranker sees.
        batch_tokens: padded tokens a forward pass.
        progress: hears of it.
    """
    pairs = [(query, hit.target) for query, hits in lists.items() for hit in hits[:depth]]
    found = reranker.score(
        [(validation.queries[query], texts[key]) for query, key in pairs], batch_tokens=batch_tokens, progress=progress
    )
    scores: dict[str, dict[str, float]] = {query: {} for query in lists}
    for (query, key), score in zip(pairs, found.tolist(), strict=True):
        scores[query][key] = score
    values = {
        weight: mean_ndcg(
            {query: interpolate(hits, scores[query], depth=depth, weight=weight) for query, hits in lists.items()},
            validation,
        ).mean
        for weight in GRID
    }
    best = max(values, key=lambda weight: (values[weight], -weight))
    return Weighed(weight=best, interpolated=values[best], alone=values[1.0], without=values[0.0])
