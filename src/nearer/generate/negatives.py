"""Hard negatives of the training queries, and the best passage of those that are judged on documents.

BM25 and the dense model propose, the dense model judges; the rules are those of `nearer.ranking.mine`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nearer.errors import InputError
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.generate.forbidden import Forbidden, Given
from nearer.generate.judges import Bm25Scores, CrossTeacher, Encode, Judge, ScorePairs, Teacher
from nearer.generate.retrieval import Retrieval
from nearer.ranking import dense
from nearer.ranking.mine import DropAudit, merge, mine, teacher_zero
from nearer.records import Negative, Passage

_MOST: Final = 0.5
WRITTEN: Final = "llm"
"""Miner of texts that the language model wrote as negatives: unlike a person's, they are held to the teacher's rule."""


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """What the training queries learn from, in their order.

    `positives` are passage ids by query id: those judged, and the best one of each document that is judged as a whole.
    """

    positives: dict[str, tuple[str, ...]]
    negatives: dict[str, tuple[Negative, ...]]
    audit: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Mining:
    """How hard negatives are mined: the fields of `generate.negatives`, and which texts nearly repeat an answer."""

    per_query: int
    depth: int
    skip_top: int
    max_share_of_positive: float
    random_pairs: int
    near_duplicate: float
    seed: int


def choose_training_part(
    train: Sequence[Candidate],
    passages: Mapping[str, Passage],
    corpus: Corpus,
    *,
    test_groups: Collection[str],
    mining: Mining,
    retrieval: Retrieval,
    encode: Encode,
    score_pairs: ScorePairs | None,
) -> TrainingPart:
    """Choose the passages that the training queries are pulled to and pushed from.

    Args:
        train: the training queries.
        passages: as they stand in the dataset.
        corpus: which documents they belong to, and the groups of these.
        test_groups: groups whose passages are never negatives.
        mining: with `per_query` 0 nothing is mined, nothing is encoded, and the best passage of a document is BM25's.
        retrieval: finds candidates.
        encode: the dense model.
        score_pairs: a cross-encoder that judges in the dense model's place, or None.

    Raises:
        InputError: most queries lose all their candidates.
    """
    retrieval.over(passages)
    queries = [candidate.query.text for candidate in train]
    if mining.per_query == 0 or not train:
        ranks = Bm25Scores(retrieval.bm25, queries)
        positives = {c.query.id: _positives(index, c, passages, corpus, ranks) for index, c in enumerate(train)}
        return TrainingPart(positives=positives, negatives={}, audit={"mined": False})
    teacher = Teacher(retrieval.ids, retrieval.vectors, encode(queries, "query"), encode)
    judge: Judge = teacher
    if score_pairs is not None:
        judge = CrossTeacher(score_pairs, queries=queries, passages=retrieval.texts)
    positives = {c.query.id: _positives(index, c, passages, corpus, judge.score) for index, c in enumerate(train)}
    return _mine(
        train,
        passages,
        corpus,
        positives,
        test_groups=test_groups,
        mining=mining,
        retrieval=retrieval,
        teacher=teacher,
        judge=judge,
    )


def _positives(
    index: int,
    candidate: Candidate,
    passages: Mapping[str, Passage],
    corpus: Corpus,
    score: Callable[[int, Sequence[str]], Sequence[float]],
) -> tuple[str, ...]:
    """The judged passages, and the best passage of each judged document that none of them is in."""
    chosen = list(candidate.passages)
    covered = {passages[passage].document_id for passage in chosen}
    for document in candidate.documents:
        of_document = corpus.of_document[document]
        if document in covered:
            continue
        if len(of_document) == 1:
            chosen.append(of_document[0])
            continue
        scores = score(index, of_document)
        chosen.append(min(zip(scores, of_document, strict=True), key=lambda pair: -pair[0])[1])
    return tuple(chosen)


def _mine(
    train: Sequence[Candidate],
    passages: Mapping[str, Passage],
    corpus: Corpus,
    positives: Mapping[str, tuple[str, ...]],
    *,
    test_groups: Collection[str],
    mining: Mining,
    retrieval: Retrieval,
    teacher: Teacher,
    judge: Judge,
) -> TrainingPart:
    forbidden = Forbidden(
        train, passages, corpus, positives, test_groups=test_groups, near_duplicate=mining.near_duplicate
    )
    teacher.learn([text for candidate in train for text in (*candidate.positives, *candidate.negatives)])
    count = mining.depth + mining.skip_top
    proposals = {
        "bm25": retrieval.bm25.search([candidate.query.text for candidate in train], count),
        "dense": dense.search(teacher.queries, teacher.passages, teacher.ids, count),
    }
    zero = teacher_zero(
        judge.score,
        positives=[forbidden.known(index) for index in range(len(train))],
        passages=teacher.ids,
        pairs=mining.random_pairs,
        seed=mining.seed,
    )
    of_positives = [
        max(
            (
                *judge.score(index, positives[candidate.query.id]),
                *judge.score_texts(index, candidate.positives),
            ),
            default=-float("inf"),
        )
        for index, candidate in enumerate(train)
    ]
    mined, drops = mine(
        [candidate.query.id for candidate in train],
        candidates=lambda index: merge(
            {miner: [hit.target for hit in hits[index]] for miner, hits in proposals.items()}, skip_top=mining.skip_top
        ),
        forbidden=forbidden.rules,
        score=judge.score,
        positive_scores=of_positives,
        zero=zero,
        max_share=mining.max_share_of_positive,
        limit=mining.per_query,
        repeats=forbidden.repeats,
    )
    given = Given(forbidden)
    negatives: dict[str, tuple[Negative, ...]] = {}
    for index, candidate in enumerate(train):
        positive = of_positives[index] - zero
        limit = mining.max_share_of_positive * positive if candidate.miner == WRITTEN else None
        texts = given.allowed(index, candidate)
        pairs = given.believed(zip(judge.score_texts(index, texts), texts, strict=True), zero=zero, limit=limit)
        own = [
            Negative(
                miner=candidate.miner,
                score=round(score - zero, 6),
                text=text,
                share=round((score - zero) / positive, 4) if positive > 0 else None,
            )
            for score, text in pairs[: mining.per_query]
        ]
        left = mined[candidate.query.id][: mining.per_query - len(own)]
        found = [
            *own,
            *(
                replace(negative, score=round(negative.score, 6), share=round(negative.share or 0.0, 4))
                for negative in left
            ),
        ]
        if found:
            negatives[candidate.query.id] = tuple(
                sorted(found, key=lambda n: (-n.score, n.corpus_id or "", n.text or ""))
            )
    _refuse_if_most_have_none(len(train), len(train) - len(negatives), drops)
    audit = {"mined": True, "teacher_zero": zero, **drops.as_json(), "given": given.as_json()}
    return TrainingPart(positives=dict(positives), negatives=negatives, audit=audit)


def _refuse_if_most_have_none(queries: int, without: int, drops: DropAudit) -> None:
    """Raise InputError when most queries have no negative left."""
    if without <= _MOST * queries:
        return
    by_rule = ", ".join(f"{rule} {count}" for rule, count in sorted(drops.counts.items(), key=lambda item: -item[1]))
    raise InputError(
        f"{without} of {queries} training queries lost all their candidates for hard negatives (dropped: "
        f"{by_rule or 'nothing was proposed'})",
        where="generate.negatives",
        rule="at least half of the queries keep a hard negative",
        way_out="give more documents, a larger generate.negatives.depth or max_share_of_positive, a better "
        "generate.embedder, or set generate.negatives.per_query to 0",
    )
