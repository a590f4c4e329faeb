"""The documents, cut and grouped: what queries are judged on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nearer.corpus.chunk import chunk_all, longest_unbroken
from nearer.corpus.group import group
from nearer.corpus.read import read_documents
from nearer.errors import InputError
from nearer.progress import Progress
from nearer.records import Passage

MAX_UNBROKEN_CHARACTERS: Final = 20_000
"""Ten pages without a full stop or a line break are broken extraction, not a sentence. A guess on the safe side: the
longest sentence of the LibreOffice help has some 600 characters."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Passages by id, and by document id what is known of each document."""

    passages: dict[str, Passage]
    of_document: dict[str, tuple[str, ...]]
    titles: dict[str, str]
    questions: dict[str, tuple[str, ...]]
    groups: dict[str, str]

    def text(self, document: str) -> str:
        """The document's text as its passages have it: without headings."""
        return "\n".join(self.passages[passage].text for passage in self.of_document[document])


def read_corpus(
    path: Path,
    *,
    max_tokens: int,
    count_tokens: Callable[[Sequence[str]], list[int]],
    near_duplicate: float,
    seed: int,
    progress: Progress,
) -> Corpus:
    """Read, cut and group the documents, in their order.

    The file is read twice: errors of line 4,017 come up before anything is cut, and the texts are never all in memory.

    Raises:
        InputError: see `read_documents`; or a text is not broken into sentences or lines for longer than
            `MAX_UNBROKEN_CHARACTERS`.
    """
    titles, questions = check_documents(path)
    passages: dict[str, Passage] = {}
    of_document: dict[str, tuple[str, ...]] = {}
    cut = chunk_all(read_documents(path), max_tokens=max_tokens, count_tokens=count_tokens)
    for found in progress.track(cut, what="cutting documents", total=len(titles)):
        of_document[found[0].document_id] = tuple(passage.id for passage in found)
        passages.update((passage.id, passage) for passage in found)
    corpus = Corpus(passages=passages, of_document=of_document, titles=titles, questions=questions, groups={})
    texts = ((document, corpus.text(document)) for document in of_document)
    return replace(corpus, groups=group(texts, threshold=near_duplicate, seed=seed))


def check_documents(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Read the documents once and judge them; titles and hypothetical questions by document id.

    Raises:
        InputError: as `read_corpus`.
    """
    titles: dict[str, str] = {}
    questions: dict[str, tuple[str, ...]] = {}
    unbroken: dict[str, int] = {}
    for document in read_documents(path):
        titles[document.id], questions[document.id] = document.title, document.questions
        if (length := longest_unbroken(document.text)) > MAX_UNBROKEN_CHARACTERS:
            unbroken[document.id] = length
    if unbroken:
        raise _broken_extraction(unbroken, path)
    return titles, questions


def _broken_extraction(unbroken: Mapping[str, int], path: Path) -> InputError:
    shown = [f"document {id_!r}: {length:,} characters" for id_, length in list(unbroken.items())[:5]]
    shown += [f"… and {len(unbroken) - 5} more"] if len(unbroken) > 5 else []
    return InputError(
        f"{len(unbroken)} documents hold a sentence that does not end\n    " + "\n    ".join(shown),
        where=str(path),
        rule=f"a sentence end or a line break at least every {MAX_UNBROKEN_CHARACTERS:,} characters; "
        "text without them is almost surely broken extraction",
        way_out="extract these documents again, break the text into lines, or leave them out",
    )
