"""Queries as their sources give them, each with what its source says about the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nearer.corpus.link import Linker
from nearer.corpus.queries import QueryFile
from nearer.errors import InputError
from nearer.generate.audit import Audit
from nearer.generate.corpus import Corpus
from nearer.records import Query


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A query that may enter the dataset.

    `documents` answer it as wholes, `passages` by themselves, `positives` are texts that stand in no document;
    `negatives` are texts that were given with it. `paired`: its source gave it texts to train on. `kind`:
    of a query that the language model wrote. `contexts`: of each text that was given as its answer, the passages that
    it stands in.
    """

    query: Query
    documents: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    miner: str = ""
    answer: str = ""
    paired: bool = False
    kind: str = ""
    contexts: tuple[tuple[str, ...], ...] = ()

    def judged(self) -> bool:
        """Whether anything is known to answer it."""
        return bool(self.documents or self.passages or self.positives)

    def answered_in(self, corpus: Corpus) -> tuple[str, ...]:
        """The documents that it is answered in, each once."""
        of_passages = (corpus.passages[passage].document_id for passage in self.passages)
        return tuple(dict.fromkeys((*self.documents, *of_passages)))


def from_file(file: QueryFile, corpus: Corpus, *, linker: Linker | None, audit: Audit) -> list[Candidate]:
    """The user's queries; texts that came with them are traced back to the passages that they stand in.

    Args:
        file: as read.
        corpus: that its judgments name.
        linker: over the corpus; None for files without texts.
        audit: hears how many texts were linked.

    Raises:
        InputError: a judgment names a document that is not there.
    """
    unknown = [judgment for judgment in file.judgments if judgment.target not in corpus.of_document]
    if unknown:
        shown = [
            f"{file.places[judgment.query_id, judgment.target]}: query {judgment.query_id!r} is judged on "
            f"{judgment.target!r}"
            for judgment in unknown[:5]
        ]
        shown += [f"… and {len(unknown) - 5} more"] if len(unknown) > 5 else []
        raise InputError(
            f"{len(unknown)} judgments name documents that are not there\n    " + "\n    ".join(shown),
            where=file.places[unknown[0].query_id, unknown[0].target],
            rule="each judged document is one of the documents",
            way_out="give the documents that these queries were judged on, or remove these judgments",
        )
    judged: dict[str, list[str]] = {}
    for judgment in file.judgments:
        judged.setdefault(judgment.query_id, []).append(judgment.target)
    links = {"exact": 0, "shingles": 0, "unlinked": 0}
    candidates = []
    for query in file.queries:
        passages: dict[str, None] = {}
        unlinked, contexts = [], []
        for text in file.positives.get(query.id, ()):
            link = linker.link(text) if linker else None
            links[link.kind if link else "unlinked"] += 1
            contexts.append(link.passages if link else ())
            if link:
                passages.update(dict.fromkeys(link.passages))
            else:
                unlinked.append(text)
        candidates.append(
            Candidate(
                query=query,
                documents=tuple(judged.get(query.id, ())),
                passages=tuple(passages),
                positives=tuple(unlinked),
                negatives=file.negatives.get(query.id, ()),
                miner=file.form,
                answer=file.answers.get(query.id, ""),
                paired=query.id in file.positives,
                contexts=tuple(contexts),
            )
        )
    if file.positives:
        audit.facts.setdefault("ideal_contexts", {})[file.form] = links
    return candidates


def from_questions(corpus: Corpus) -> list[Candidate]:
    """The documents' hypothetical questions, each judged on its whole document."""
    return [
        Candidate(query=Query(id=f"{document}:h{number}", text=question, origin="hypothetical"), documents=(document,))
        for document, questions in corpus.questions.items()
        for number, question in enumerate(questions, start=1)
    ]


def merge_by_id(queries: Sequence[Candidate], enhanced: Sequence[Candidate], *, audit: Audit) -> list[Candidate]:
    """The user's queries with what the enhanced file adds to those of the same id; its other queries follow.

    The wording of the user's own file stands.
    """
    added: Mapping[str, Candidate] = {candidate.query.id: candidate for candidate in enhanced}
    merged = []
    for candidate in queries:
        other = added.get(candidate.query.id)
        merged.append(
            candidate if other is None else replace(other, query=candidate.query, documents=candidate.documents)
        )
    known = {candidate.query.id for candidate in queries}
    both = sum(candidate.query.id in known for candidate in enhanced)
    if queries and enhanced:
        audit.facts["enhanced_queries_merged_by_id"] = both
    return merged + [candidate for candidate in enhanced if candidate.query.id not in known]
