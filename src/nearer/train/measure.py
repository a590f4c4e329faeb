"""How good a model is on the validation queries: the number by which checkpoints are chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearer.models.encode import Embedder
from nearer.models.score import Reranker
from nearer.ranking import dense
from nearer.ranking.metrics import NDCG, evaluate, on_documents, relevant, to_documents
from nearer.records import Hit, Run
from nearer.train import shard
from nearer.train.holdout import Validation
from nearer.train.world import ALONE, World

_DEPTH = 100
"""Passages ranked for each validation query: enough for the best ten documents among them."""


@dataclass(frozen=True)
class Measured:
    """Mean nDCG@10 over the validation queries, and the standard error of that mean.

    Of a reranker also the standard deviation of all its scores.
    """

    mean: float
    error: float
    values: tuple[float, ...] = ()
    """Each query's, in an order that is the same for every model."""
    deviation: float | None = None


_NO_NUMBER = Measured(math.nan, math.nan)


def retrieval_ndcg(
    embedder: Embedder, validation: Validation, texts: Mapping[str, str], *, world: World = ALONE
) -> Measured:
    """How well the validation passages are ranked for the validation queries; NaN when the vectors are no numbers.

    With several processes each encodes its part, and all get the result.
    """
    names = list(validation.queries)
    asked = [validation.queries[name] for name in names]
    ranked = [texts[key] for key in validation.passages]
    contract = embedder.contract
    if shard.is_whole(embedder.model, world=world):
        queries, passages = embedder.encode_queries(asked), embedder.encode_passages(ranked)
    else:
        queries = shard.vectors(
            embedder, asked, prefix=contract.query_prefix, max_tokens=contract.max_query_tokens, world=world
        )
        passages = shard.vectors(
            embedder, ranked, prefix=contract.passage_prefix, max_tokens=contract.max_passage_tokens, world=world
        )
    if not (np.isfinite(queries).all() and np.isfinite(passages).all()):
        return _NO_NUMBER
    found = dense.search(queries, passages, validation.passages, _DEPTH)
    return mean_ndcg(dict(zip(names, found, strict=True)), validation)


def reranking_ndcg(
    reranker: Reranker,
    candidates: Mapping[str, Sequence[str]],
    validation: Validation,
    texts: Mapping[str, str],
    *,
    world: World = ALONE,
) -> Measured:
    """How well candidates (query id → keys) are ordered for the validation queries; NaN when the scores are no numbers.

    With several processes each scores its part, and all get the result.
    """
    places = [(query, key) for query, keys in candidates.items() for key in keys]
    pairs = [(validation.queries[query], texts[key]) for query, key in places]
    scores = (
        reranker.score(pairs)
        if shard.is_whole(reranker.model, world=world)
        else shard.logits(reranker, pairs, world=world)
    )
    if not np.isfinite(scores).all():
        return _NO_NUMBER
    run: dict[str, list[Hit]] = {query: [] for query in candidates}
    for (query, key), score in zip(places, scores.tolist(), strict=True):
        run[query].append(Hit(key, score))
    for hits in run.values():
        hits.sort(key=lambda hit: (-hit.score, hit.target))
    return replace(mean_ndcg(run, validation), deviation=float(scores.std()))


def mean_ndcg(run: Run, validation: Validation) -> Measured:
    """Mean nDCG@10 of ranked passages; queries that are judged on documents are scored on documents."""
    return measured(each_ndcg(run, validation))


def each_ndcg(run: Run, validation: Validation) -> np.ndarray:
    """As `mean_ndcg`, (queries,), in the same order for every run."""
    document_of = validation.document_of.__getitem__
    whole = on_documents(validation.judgments)
    ranked = {query: to_documents(hits, document_of) if query in whole else hits for query, hits in run.items()}
    scores = evaluate(ranked, relevant(validation.judgments, document_of), [10])
    return np.array([scores.per_query[query][NDCG] for query in sorted(scores.per_query)])


def measured(values: np.ndarray) -> Measured:
    """The mean of the queries' values (queries,), and its standard error."""
    return Measured(float(values.mean()), standard_error(values), tuple(values.tolist()))


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values (queries,)."""
    return float(values.std() / math.sqrt(len(values)))
