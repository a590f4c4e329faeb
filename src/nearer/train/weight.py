"""How much a reranker is to count beside the retriever's own scores: chosen on the validation queries.

A cross-encoder that has seen little is worse than the list that it is given, and still knows something that the list
does not. Interpolated scores use that (dense retrievers beside BM25: Wang, Zhuang & Zuccon 2021, "BERT-based Dense
Retrievers Require Interpolation with BM25 for Effective Passage Retrieval", ICTIR); a weight of 0 says that it knows
nothing.

The weight is the likeliest one, not the one with the best nDCG@10: among some hundred queries the latter jumps from one
end to the other by chance, because few of them change their order between two weights (docs/log.md, 2026-11-30).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nearer.models.score import Reranker
from nearer.progress import Progress
from nearer.ranking.fuse import interpolate, scaled
from nearer.ranking.metrics import on_documents, relevant
from nearer.records import Hit
from nearer.train.holdout import Validation
from nearer.train.measure import each_ndcg, measured

_RIDGE: Final = 1e-3
"""Of the sum of squares: lists that one side puts in order without a fault would else have no likeliest slope."""

Top = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of one list's first passages: the retriever's scores and the reranker's, both brought to [0, 1]; which answer."""


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
    """Choose the likeliest weight (see `likeliest`), and 0 if it makes nDCG@10 worse by more than a standard error.

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
    weight = round(likeliest(_tops(lists, scores, validation, depth=depth)), 2)

    def values(weight: float) -> np.ndarray:
        return each_ndcg(
            {query: interpolate(hits, scores[query], depth=depth, weight=weight) for query, hits in lists.items()},
            validation,
        )

    without = values(0.0)
    gain = measured(values(weight) - without)
    if gain.mean < -gain.error:
        weight = 0.0
    return Weighed(
        weight=weight,
        interpolated=measured(values(weight)).mean,
        alone=measured(values(1.0)).mean,
        without=measured(without).mean,
    )


def likeliest(tops: Sequence[Top]) -> float:
    """The reranker's share in the sum of both scores that makes the answers likeliest to be drawn first.

    Conditional logit (McFadden 1974, "Conditional logit analysis of qualitative choice behavior", eq. 12): a passage is
    drawn from its list with a probability proportional to exp(a x list's score + b x reranker's), a and b not below
    0; those of several answers add up. The weight is b / (a + b), which is all that the order depends on.

    Args:
        tops: lists; those without an answer, or of answers alone, say nothing.

    Returns:
        From 0 to 1; 0 where no list says anything.
    """
    from scipy import optimize

    telling = [
        (np.stack([own, others]), answers) for own, others, answers in tops if answers.any() and not answers.all()
    ]

    def surprise(slopes: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _RIDGE * float(slopes @ slopes), 2 * _RIDGE * slopes
        for scores, answers in telling:
            logits = slopes @ scores  # (n,)
            odds = np.exp(logits - logits.max())
            right = odds * answers
            value += (np.log(odds.sum()) - np.log(right.sum())) / len(telling)
            slope = slope + scores @ (odds / odds.sum() - right / right.sum()) / len(telling)
        return value, slope

    if not telling:
        return 0.0
    found = optimize.minimize(surprise, np.ones(2), jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None)])
    own, others = found.x.tolist()
    return others / (own + others) if own + others else 0.0


def _tops(
    lists: Mapping[str, list[Hit]],
    scores: Mapping[str, Mapping[str, float]],
    validation: Validation,
    *,
    depth: int,
) -> list[Top]:
    document_of = validation.document_of.__getitem__
    answers = relevant(validation.judgments, document_of)
    whole = on_documents(validation.judgments)
    found = []
    for query, hits in lists.items():
        top = hits[:depth]
        right = {target for target, relevance in answers.get(query, {}).items() if relevance > 0}
        own = scaled(top)
        others = scaled([Hit(hit.target, scores[query][hit.target]) for hit in top])
        keys = [hit.target for hit in top]
        answering = [(document_of(key) if query in whole else key) in right for key in keys]
        found.append(
            (
                np.array([own[key] for key in keys]),
                np.array([others[key] for key in keys]),
                np.array(answering, dtype=bool),
            )
        )
    return found
