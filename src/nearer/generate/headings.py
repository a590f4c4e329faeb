"""Headings as queries: what a section is called, answered by what it says.

A heading that stood in the title, heading path or text of its passage would make retrieval a search for itself; so it
is taken out of titles and paths of the whole document, and not used at all when the section's text repeats it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from nearer.corpus.sameness import jaccard, normal, shingles
from nearer.generate.audit import Audit
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.records import Passage, Query

MAX_PAGES: Final = 10
"""A heading of more pages than this ("서식", "옵션") says nothing even beside its page's title. A guess."""
MIN_SECTION_CHARACTERS: Final = 20
"""A section shorter than this, without spaces and punctuation, answers nothing. A guess."""

NEARLY_THE_SAME: Final = 0.6
"""Jaccard similarity of character pairs: "편집기에서 콘트롤 속성 변경" and "편집기에서 콘트롤의 속성 변경" have 0.75. A
guess."""

_MIN_LETTERS: Final = 2  # letters or syllables: "1.2" and "A-1" name nothing


def from_headings(corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    """One query a section that has a heading, judged on the section's passages."""
    found: list[tuple[str, int, str, tuple[str, ...]]] = []
    for document, passages in corpus.of_document.items():
        by_path: dict[tuple[str, ...], list[str]] = {}
        for passage in passages:
            by_path.setdefault(corpus.passages[passage].path, []).append(passage)
        for number, (path, of_section) in enumerate(by_path.items(), start=1):
            if path:
                found.append((document, number, path[-1], tuple(of_section)))
    pages = Counter({key: len(documents) for key, documents in _documents_by_heading(found).items()})
    candidates = []
    for document, number, heading, passages in found:
        id_ = f"{document}:s{number}"
        said = normal("".join(corpus.passages[passage].text for passage in passages))
        if sum(character.isalpha() for character in heading) < _MIN_LETTERS:
            audit.drop("too-short", query_id=id_, text=heading)
        elif pages[normal(heading)] > MAX_PAGES:
            audit.drop("recurs-on-many-pages", query_id=id_, text=heading, detail=f"{pages[normal(heading)]} pages")
        elif len(said) < MIN_SECTION_CHARACTERS:
            audit.drop("section-too-short", query_id=id_, text=heading)
        elif any(normal(heading) in normal(corpus.passages[passage].text) for passage in passages):
            audit.drop("heading-in-text", query_id=id_, text=heading)
        else:
            candidates.append(Candidate(query=Query(id=id_, text=heading, origin="heading"), passages=passages))
    return candidates


def without_headings(corpus: Corpus, kept: Iterable[Candidate]) -> dict[str, Passage]:
    """The passages, in order, with the headings that became queries taken out of their documents' titles and paths.

    A title goes when it holds one of these headings, stands in one or nearly repeats one; a step of the path when it
    holds or nearly repeats one.
    """
    used: dict[str, set[str]] = {}
    for candidate in kept:
        if candidate.query.origin == "heading":
            first = corpus.passages[candidate.passages[0]]
            used.setdefault(first.document_id, set()).add(normal(first.path[-1]))
    return {
        id_: _stripped(passage, used[passage.document_id]) if passage.document_id in used else passage
        for id_, passage in corpus.passages.items()
    }


def _documents_by_heading(found: Iterable[tuple[str, int, str, tuple[str, ...]]]) -> Mapping[str, set[str]]:
    documents: dict[str, set[str]] = {}
    for document, _, heading, _ in found:
        documents.setdefault(normal(heading), set()).add(document)
    return documents


def _stripped(passage: Passage, headings: set[str]) -> Passage:
    title = normal(passage.title)
    title_stays = not any(title in heading or _repeats(passage.title, heading) for heading in headings)
    path = tuple(step for step in passage.path if not any(_repeats(step, heading) for heading in headings))
    return replace(passage, title=passage.title if title_stays else "", path=path)


def _repeats(text: str, heading: str) -> bool:
    """Whether the text holds the heading (in normal form), or is it but for a particle or two."""
    return heading in normal(text) or jaccard(shingles(text, size=2), shingles(heading, size=2)) >= NEARLY_THE_SAME
