"""One text, one query: a query that recurs is merged, told apart by its page's title, or left out.

Two queries of the same text with different answers would be each other's false negatives in training, and would leak
from train to test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nearer.corpus.sameness import normal
from nearer.generate.audit import Audit
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.records import ORIGINS


def unique(candidates: Iterable[Candidate], corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    """The candidates with every normalised text at most once, in their order.

    Same text, same answer: kept once, a real query before an invented one; what two real ones know is put together.
    Same text, different answers: if one answer is a real query's, that one stands. The invented others (or all, if
    there is no real one) are written `<title of the page>: <text>`. Several real ones contradict each other and are
    left out: their wording is not ours to change.
    """
    order: dict[str, int] = {}
    by_text: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        order[candidate.query.id] = len(order)
        by_text.setdefault(normal(candidate.query.text), []).append(candidate)
    kept: list[Candidate] = []
    qualified: list[Candidate] = []
    for same_text in by_text.values():
        answers = _by_answer(same_text, corpus, audit=audit)
        if len(answers) == 1:
            kept += answers
            continue
        real = [candidate for candidate in answers if candidate.query.origin == "real"]
        if len(real) == 1:
            kept += real
        for candidate in real if len(real) > 1 else ():
            _ambiguous(candidate, corpus, audit)
        for candidate in answers:
            if candidate.query.origin != "real":
                qualified += _qualified(candidate, corpus, audit=audit)
    told_apart = _tellable(qualified, {normal(candidate.query.text) for candidate in kept}, corpus, audit=audit)
    audit.facts["queries_qualified_by_title"] = len(told_apart)
    return sorted(kept + told_apart, key=lambda candidate: order[candidate.query.id])


def _by_answer(same_text: Sequence[Candidate], corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    """One candidate for each different answer, real ones first."""
    answers: list[Candidate] = []
    for candidate in sorted(same_text, key=lambda candidate: ORIGINS.index(candidate.query.origin)):
        for place, other in enumerate(answers):
            if _same_answer(candidate, other, corpus):
                both_real = candidate.query.origin == other.query.origin == "real"
                answers[place] = _together(other, candidate) if both_real else other
                audit.drop(
                    "duplicate",
                    query_id=candidate.query.id,
                    text=candidate.query.text,
                    detail=f"the same as {other.query.id}",
                )
                break
        else:
            answers.append(candidate)
    return answers


def _same_answer(one: Candidate, other: Candidate, corpus: Corpus) -> bool:
    if one.query.origin == other.query.origin == "heading":
        return one.passages == other.passages
    first, second = set(one.answered_in(corpus)), set(other.answered_in(corpus))
    return bool(first & second) or not first or not second


def _together(one: Candidate, other: Candidate) -> Candidate:
    def both(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*first, *second)))

    return replace(
        one,
        documents=both(one.documents, other.documents),
        passages=both(one.passages, other.passages),
        positives=both(one.positives, other.positives),
        negatives=both(one.negatives, other.negatives),
        miner=one.miner if one.negatives else other.miner,
        answer=one.answer or other.answer,
        paired=one.paired or other.paired,
        contexts=tuple(dict.fromkeys((*one.contexts, *other.contexts))),
    )


def _qualified(candidate: Candidate, corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    """The candidate with its page's title before its text; nothing when there is no title that adds to it."""
    documents = candidate.answered_in(corpus)
    title = corpus.titles[documents[0]] if documents else ""
    text, of_title = normal(candidate.query.text), normal(title)
    if not of_title or of_title in text:
        _ambiguous(candidate, corpus, audit)
        return []
    written = title if text in of_title else f"{title}: {candidate.query.text}"
    return [replace(candidate, query=replace(candidate.query, text=written))]


def _tellable(qualified: Sequence[Candidate], taken: set[str], corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    """Those that their titles did tell apart, from each other and from all other queries."""
    texts = [normal(candidate.query.text) for candidate in qualified]
    times = Counter(texts)
    kept = []
    for candidate, text in zip(qualified, texts, strict=True):
        if text in taken or times[text] > 1:
            _ambiguous(candidate, corpus, audit)
        else:
            kept.append(candidate)
    return kept


def _ambiguous(candidate: Candidate, corpus: Corpus, audit: Audit) -> None:
    detail = "answered in " + ", ".join(candidate.answered_in(corpus)[:3])
    audit.drop("ambiguous", query_id=candidate.query.id, text=candidate.query.text, detail=detail)
