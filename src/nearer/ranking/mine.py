"""Hard negatives: miners propose, rules forbid, one teacher judges against the positive.

The judging rule is positive-aware mining, `TopK-PercPos` of Moreira et al. 2024, "NV-Retriever" (arXiv:2407.15831),
section 3: a candidate that scores above a share of the positive's score is taken for a false negative. Their scores
come from models whose unrelated pairs lie near zero. Others' do not (the cosines of e5 live between 0.7 and 1.0), so
that a share of the raw score means nothing; hence every score is centred first, by the mean over random pairs.

Nothing here knows a model: passages are ids, the teacher is a callable.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

from nearer.errors import InputError
from nearer.records import Negative

TeacherScores = Callable[[int, Sequence[str]], Sequence[float]]
"""`(index of the query, passage ids) -> one raw score a passage`; the higher, the closer."""

FALSE_NEGATIVE: Final = "false-negative"
"""The centred score is above the allowed share of the positive's."""
POSITIVE_NOT_TRUSTED: Final = "positive-not-trusted"
"""The positive scores no better than a random passage: the teacher cannot judge this query."""
NEAR_DUPLICATE: Final = "near-duplicate"
"""It nearly repeats an answer, or stands in a near-duplicate of a document that answers."""
NOT_NEEDED: Final = "not-needed"
"""The query already has as many negatives as it may."""

_SAMPLES_PER_RULE: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """One candidate that did not become a negative. Scores are centred; None when the teacher was not asked."""

    query_id: str
    passage_id: str
    miner: str
    score: float | None
    positive_score: float | None


@dataclass(slots=True)
class DropAudit:
    """What was dropped by which rule: exact counts, and the first few cases (one a query, so that they differ)."""

    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Drop]] = field(default_factory=dict)
    queries: int = 0
    candidates: int = 0
    kept: int = 0
    queries_without_negatives: int = 0

    def drop(self, rule: str, count: int, sample: Drop) -> None:
        """Count what one query lost by a rule, and keep one case of it as long as there are few."""
        self.counts[rule] = self.counts.get(rule, 0) + count
        seen = self.samples.setdefault(rule, [])
        if len(seen) < _SAMPLES_PER_RULE and all(other.query_id != sample.query_id for other in seen):
            seen.append(sample)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `audit.json`, rules in alphabetical order."""
        return {
            "queries": self.queries,
            "queries_without_negatives": self.queries_without_negatives,
            "candidates": self.candidates,
            "kept": self.kept,
            "dropped": {rule: self.counts[rule] for rule in sorted(self.counts)},
            "samples": {
                rule: [
                    {
                        "query_id": case.query_id,
                        "passage_id": case.passage_id,
                        "miner": case.miner,
                        "score": case.score,
                        "positive_score": case.positive_score,
                    }
                    for case in self.samples[rule]
                ]
                for rule in sorted(self.samples)
            },
        }


def merge(proposals: Mapping[str, Sequence[str]], *, skip_top: int = 0, depth: int | None = None) -> dict[str, str]:
    """One query's candidates, round-robin over the miners: all firsts, all seconds, and so on.

    Args:
        proposals: ranked passage ids by miner, best first; the miners' order decides who comes first in a round.
        skip_top: so many ranks are skipped at the top of each list.
        depth: ranks beyond are not looked at; None: the whole list.

    Returns:
        passage id → who proposed it (`bm25`, `dense`, `bm25+dense`), in merged order.
    """
    lists = [ranked[skip_top:depth] for ranked in proposals.values()]
    proposers: dict[str, int] = {}  # one bit a miner
    for round_ in zip_longest(*lists):
        for miner, passage in enumerate(round_):
            if passage is not None:
                proposers[passage] = proposers.get(passage, 0) | 1 << miner
    names = [
        "+".join(name for miner, name in enumerate(proposals) if bits >> miner & 1) for bits in range(1 << len(lists))
    ]
    return {passage: names[bits] for passage, bits in proposers.items()}


def teacher_zero(
    score: TeacherScores, *, positives: Sequence[Collection[str]], passages: Sequence[str], pairs: int, seed: int
) -> float:
    """The mean score of random query-passage pairs, none of them a known positive: what "unrelated" means here.

    Args:
        score: the teacher.
        positives: known positives of each query; its length is the number of queries.
        passages: ids to draw from, in an order that does not change between runs.
        pairs: how many pairs to draw.
        seed: of the draw.

    Raises:
        InputError: there is no pair to draw, or the teacher gives scores that are not finite.
    """
    draw = random.Random(seed)
    chosen: dict[int, list[str]] = {}
    for _ in range(pairs if positives and passages else 0):
        query, passage = draw.randrange(len(positives)), draw.choice(passages)
        if passage not in positives[query]:
            chosen.setdefault(query, []).append(passage)
    scores = [value for query in sorted(chosen) for value in _finite(score(query, chosen[query]))]
    if not scores:
        raise InputError(
            f"no random pair can be drawn from {len(positives)} queries and {len(passages)} passages",
            rule="mining needs passages that do not answer the query",
            way_out="give more documents, or set generate.negatives.per_query to 0",
        )
    return math.fsum(scores) / len(scores)


def mine(
    query_ids: Sequence[str],
    *,
    candidates: Callable[[int], Mapping[str, str]],
    forbidden: Callable[[int], Mapping[str, Collection[str]]],
    score: TeacherScores,
    positive_scores: Sequence[float],
    zero: float,
    max_share: float,
    limit: int,
    repeats: Callable[[int, str], bool] = lambda *_: False,
) -> tuple[dict[str, tuple[Negative, ...]], DropAudit]:
    """Hard negatives of every query, and why the other candidates are none.

    A candidate stays when `score - zero <= max_share * (positive - zero)`. When the positive's own centred score is
    not above zero, the teacher finds the positive no closer than a random passage and cannot judge: all candidates of
    that query are dropped as `positive-not-trusted`.

    Args:
        query_ids: the queries, shape (n,).
        candidates: index of a query → its candidates and who proposed each, best first (see `merge`).
        forbidden: index of a query → rule → passage ids that must never be its negatives: known positives, passages of
            the same text, near-duplicates of the positives, passages of test documents. The first rule that holds
            counts.
        score: the teacher; asked once a query, for the candidates that no rule forbids, in merged order.
        positive_scores: raw teacher score of each query's positive, shape (n,). With several positives the caller says
            which one counts; the lowest is the most careful choice.
        zero: the teacher's zero, see `teacher_zero`.
        max_share: of the positive's centred score.
        limit: at most so many negatives a query; the first ones in merged order are kept, whatever their score.
        repeats: index of a query, passage id → whether the passage nearly repeats an answer. It is asked last, in
            merged order, and only until the query has its negatives: comparing texts is slow.

    Returns:
        query id → negatives, one entry for every query, empty where nothing is left, hardest first (by teacher score,
        ties by ascending id); `Negative.score` is the centred teacher score. And the audit.

    Raises:
        InputError: the teacher gives scores that are not finite.
    """
    audit = DropAudit(queries=len(query_ids))
    mined: dict[str, tuple[Negative, ...]] = {}
    for index, query_id in enumerate(query_ids):
        (positive,) = (value - zero for value in _finite([positive_scores[index]]))
        proposed = candidates(index)
        audit.candidates += len(proposed)
        left = list(proposed)
        lost: dict[str, list[tuple[str, float | None]]] = {}
        for rule, ids in forbidden(index).items():
            lost[rule] = [(passage, None) for passage in left if passage in ids]
            if lost[rule]:
                left = [passage for passage in left if passage not in ids]
        scores = [value - zero for value in _finite(score(index, left))] if left else []
        judged = list(zip(left, scores, strict=True))
        highest = max_share * positive if positive > 0 else -math.inf
        far = [(passage, value) for passage, value in judged if value <= highest]
        near = [(passage, value) for passage, value in judged if value > highest]
        lost[FALSE_NEGATIVE if positive > 0 else POSITIVE_NOT_TRUSTED] = [*near]
        chosen: list[tuple[str, float]] = []
        asked = 0
        while asked < len(far) and len(chosen) < limit:
            same = repeats(index, far[asked][0])
            (lost.setdefault(NEAR_DUPLICATE, []) if same else chosen).append(far[asked])
            asked += 1
        lost[NOT_NEEDED] = [*far[asked:]]
        for rule, cases in lost.items():
            for passage, value in cases[:1]:
                sample = Drop(
                    query_id=query_id,
                    passage_id=passage,
                    miner=proposed[passage],
                    score=value,
                    positive_score=None if value is None else positive,
                )
                audit.drop(rule, len(cases), sample)
        kept = [
            Negative(miner=proposed[passage], score=value, corpus_id=passage, share=value / positive)
            for passage, value in chosen
        ]
        mined[query_id] = tuple(sorted(kept, key=lambda negative: (-negative.score, str(negative.corpus_id))))
        audit.kept += len(kept)
        audit.queries_without_negatives += not kept
    return mined, audit


def _finite(scores: Sequence[float]) -> list[float]:
    values = list(map(float, scores))
    if not all(map(math.isfinite, values)):
        raise InputError(
            "the teacher gives scores that are not numbers (NaN or infinite)",
            rule="finite scores",
            way_out="check the embedder: damaged weights, or fp16 overflow",
        )
    return values
