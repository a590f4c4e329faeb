"""Queries that the language model wrote to the documents, and those of them that are good enough."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearer.generate import filters
from nearer.generate.audit import Audit
from nearer.generate.author import Author
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.generate.judges import ScorePairs
from nearer.generate.kinds import plan_tasks
from nearer.generate.retrieval import Retrieval
from nearer.progress import Progress
from nearer.records import Passage, Query


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How queries are written and what they must be: fields of `generate.llm`."""

    shares: Mapping[str, float]
    queries_per_passage: int
    at_most: int | None
    max_query_characters: int
    max_copied_share: float
    near_duplicate_query: float
    round_trip_depth: int
    answerable_by: str
    mark_depth: int
    negatives_per_query: int


@dataclass(frozen=True, kw_only=True)
class Writer:
    """The language model at the user's corpus.

    Args:
        author: who writes and judges.
        writing: how.
        retrieval: over the corpus: candidates for the user's queries, and the way back of written ones.
        score_pairs: a cross-encoder, where it decides whether a query is answered.
        seed: of the draws.
        progress: told what happens.
    """

    author: Author
    writing: Writing
    retrieval: Retrieval
    score_pairs: ScorePairs | None
    seed: int
    progress: Progress

    def write(self, corpus: Corpus, *, known: Sequence[Candidate], audit: Audit) -> list[Candidate]:
        """See `write_queries`."""
        self.retrieval.over(corpus.passages)
        return write_queries(
            corpus,
            author=self.author,
            writing=self.writing,
            known=known,
            retrieval=self.retrieval,
            score_pairs=self.score_pairs,
            seed=self.seed,
            audit=audit,
            progress=self.progress,
        )

    def mark(self, unjudged: Sequence[Candidate], corpus: Corpus, *, audit: Audit) -> list[Candidate]:
        """See `mark_queries`."""
        self.retrieval.over(corpus.passages)
        depth = self.writing.mark_depth
        return mark_queries(unjudged, corpus, author=self.author, depth=depth, retrieval=self.retrieval, audit=audit)

    def contrast(self, train: Sequence[Candidate], passages: Mapping[str, Passage]) -> tuple[Candidate, ...]:
        """The training queries, those without negatives of their own with texts that were written as such."""
        count = self.writing.negatives_per_query
        bare = [candidate for candidate in train if count and candidate.passages and not candidate.negatives]
        pairs: list[Any] = [(c.query.id, c.query.text, [passages[passage] for passage in c.passages]) for c in bare]
        texts = self.author.negatives(pairs, count=count) if pairs else {}
        return tuple(
            replace(candidate, negatives=found, miner="llm") if (found := texts.get(candidate.query.id)) else candidate
            for candidate in train
        )


def write_queries(
    corpus: Corpus,
    *,
    author: Author,
    writing: Writing,
    known: Sequence[Candidate],
    retrieval: Retrieval,
    score_pairs: ScorePairs | None,
    seed: int,
    audit: Audit,
    progress: Progress,
) -> list[Candidate]:
    """Queries to the passages, written and filtered; each is judged on the passages that it was written to.

    Args:
        corpus: the documents.
        author: who writes.
        writing: how.
        known: queries from elsewhere, which written ones must not nearly repeat.
        retrieval: over the corpus, for the way back.
        score_pairs: a cross-encoder, where it decides whether a query is answered.
        seed: of the draws.
        audit: hears of every query that is left out.
        progress: told what happens.
    """
    tasks = plan_tasks(
        corpus,
        shares=writing.shares,
        per_passage=writing.queries_per_passage,
        at_most=writing.at_most,
        seed=seed,
    )
    asked = Counter(kind for task in tasks for kind in task.kinds)
    progress.say("asking the language model for queries", passages=len({t.passages[0].id for t in tasks}), **asked)
    written = []
    for task, one in author.write(tasks):
        passages = tuple(task.passages[number - 1].id for number in one.passages)
        id_ = hashlib.sha256("\0".join((one.kind, one.query, *(p.text for p in task.passages))).encode()).hexdigest()
        written.append(
            Candidate(
                query=Query(id=f"{task.document}:q{id_[:12]}", text=one.query, origin="llm"),
                passages=passages,
                answer=one.answer,
                kind=one.kind,
            )
        )
    kept = _distinct(written, audit=audit)
    kept = _well_written(kept, corpus, writing=writing, audit=audit)
    kept = _unrepeated(kept, known, writing=writing, seed=seed, audit=audit)
    kept = _found_again(kept, retrieval, depth=writing.round_trip_depth, audit=audit)
    kept = _answered(kept, corpus, author=author, by=writing.answerable_by, score_pairs=score_pairs, audit=audit)
    audit.facts["written_queries"] = {
        "asked_by_kind": _by_kind(asked),
        "written_by_kind": _by_kind(Counter(candidate.kind for candidate in written)),
        "kept_by_kind": _by_kind(Counter(candidate.kind for candidate in kept)),
    }
    return kept


def _by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _distinct(written: Sequence[Candidate], *, audit: Audit) -> list[Candidate]:
    """Each text to the same passages once."""
    kept: dict[str, Candidate] = {}
    for candidate in written:
        if candidate.query.id in kept:
            _drop(candidate, "duplicate", audit, "the same text to the same passage")
        kept.setdefault(candidate.query.id, candidate)
    return list(kept.values())


def _well_written(
    candidates: Sequence[Candidate], corpus: Corpus, *, writing: Writing, audit: Audit
) -> list[Candidate]:
    """Those whose text by itself is a query of the corpus's language."""
    language = filters.corpus_language(passage.text for passage in corpus.passages.values())
    audit.facts["corpus_language"] = language
    kept = []
    for candidate in candidates:
        text = candidate.query.text
        source = "\n".join(_whole(corpus.passages[passage]) for passage in candidate.passages)
        if len(text) > writing.max_query_characters:
            _drop(candidate, "too-long", audit, f"{len(text)} characters")
        elif language == "ko" and filters.is_other_language(text, source=source):
            _drop(candidate, "other-language", audit)
        elif words := filters.depends_on_passage(text):
            _drop(candidate, "depends-on-passage", audit, words)
        elif (share := filters.copied_share(text, source=source)) > writing.max_copied_share:
            _drop(candidate, "copied", audit, f"{share:.2f} of it stands in the passage")
        else:
            kept.append(candidate)
    return kept


def _whole(passage: Passage) -> str:
    return "\n".join((passage.title, *passage.path, passage.text))


def _unrepeated(
    candidates: Sequence[Candidate], known: Sequence[Candidate], *, writing: Writing, seed: int, audit: Audit
) -> list[Candidate]:
    """Those that nearly repeat no other query, the user's own before them."""
    texts = [(candidate.query.id, candidate.query.text) for candidate in (*known, *candidates)]
    repeated = filters.near_duplicates(texts, threshold=writing.near_duplicate_query, seed=seed)
    words = dict(texts)
    kept = []
    for candidate in candidates:
        if other := repeated.get(candidate.query.id):
            _drop(candidate, "near-duplicate-query", audit, f"nearly {words[other]!r}")
        else:
            kept.append(candidate)
    return kept


def _found_again(candidates: Sequence[Candidate], retrieval: Retrieval, *, depth: int, audit: Audit) -> list[Candidate]:
    """Those whose passage is among the first that BM25 or the dense model finds."""
    if not depth or not candidates:
        return list(candidates)
    sparse, close = retrieval.both([candidate.query.text for candidate in candidates], depth)
    kept = []
    for candidate, *lists in zip(candidates, sparse, close, strict=True):
        if any(hit.target in candidate.passages for hits in lists for hit in hits):
            kept.append(candidate)
        else:
            _drop(candidate, "not-found-again", audit, f"not among the first {depth} of BM25 or the dense model")
    return kept


def _answered(
    candidates: Sequence[Candidate],
    corpus: Corpus,
    *,
    author: Author,
    by: str,
    score_pairs: ScorePairs | None,
    audit: Audit,
) -> list[Candidate]:
    """Those that their passages answer, as far as somebody is asked."""
    if not candidates or by == "nobody":
        return list(candidates)
    if by == "llm":
        pairs: list[Any] = [
            (c.query.id, c.query.text, [corpus.passages[passage] for passage in c.passages]) for c in candidates
        ]
        said = author.answerable(pairs)
    else:
        assert score_pairs is not None  # noqa: S101 - the settings see to it
        texts = [
            (candidate.query.text, "\n".join(_whole(corpus.passages[passage]) for passage in candidate.passages))
            for candidate in candidates
        ]
        scores = score_pairs(texts)
        said = {candidate.query.id: float(score) > 0 for candidate, score in zip(candidates, scores, strict=True)}
    kept = []
    for candidate in candidates:
        if said[candidate.query.id]:
            kept.append(candidate)
        else:
            _drop(candidate, "not-answered", audit, f"judged by the {by}")
    return kept


def _drop(candidate: Candidate, rule: str, audit: Audit, detail: str = "") -> None:
    audit.drop(rule, query_id=candidate.query.id, text=candidate.query.text, detail=detail)


def mark_queries(
    unjudged: Sequence[Candidate],
    corpus: Corpus,
    *,
    author: Author,
    depth: int,
    retrieval: Retrieval,
    audit: Audit,
) -> list[Candidate]:
    """The user's queries that nothing judges, judged: the language model marks passages that are retrieved.

    Args:
        unjudged: queries.
        corpus: the documents.
        author: who judges.
        depth: so many passages a query are shown, the best by BM25 and the dense model together.
        retrieval: over the corpus.
        audit: hears of those that nothing answers.
    """
    found = retrieval.fused([candidate.query.text for candidate in unjudged], depth)
    shown = {
        candidate.query.id: [corpus.passages[passage] for passage in passages]
        for candidate, passages in zip(unjudged, found, strict=True)
    }
    marks = author.mark({candidate.query.id: candidate.query.text for candidate in unjudged}, shown)
    judged = []
    for candidate in unjudged:
        id_ = candidate.query.id
        mark = marks.get(id_)
        if mark is None:
            _drop(candidate, "no-judgment", audit, "the language model gave no readable judgment")
        elif not mark.relevant:
            _drop(candidate, "no-ideal-context", audit, f"none of {len(shown[id_])} candidates answers it")
        else:
            passages = tuple(shown[id_][number - 1].id for number in mark.relevant)
            judged.append(replace(candidate, passages=passages, answer=candidate.answer or mark.answer))
    audit.facts["marked_queries"] = {"asked": len(unjudged), "judged": len(judged)}
    return judged
