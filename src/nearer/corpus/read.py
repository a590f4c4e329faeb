"""The user's documents and queries, in the forms that they have, converted once into records."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nearer.corpus.lines import (
    BadLineError,
    BadLines,
    clean,
    decode,
    get_id,
    get_text,
    get_texts,
    guess_encoding,
    json_lines,
    require,
    undecodable,
)
from nearer.corpus.pages import SUFFIXES, read_page
from nearer.corpus.queries import QueryFile, query_parts, read_queries
from nearer.errors import InputError
from nearer.records import Document

__all__ = ["QueryFile", "corpus_file", "query_parts", "read_documents", "read_queries"]

FORMS: Final = (
    "the forms of documents that are read: JSON lines with `docid` and `content` (the guide's), `_id` and `text` "
    "(BEIR) or `id` and `text`, each with an optional `title`; a BEIR directory (corpus.jsonl); a folder of .md, .txt "
    "and .html files. UTF-8, ids distinct, texts not empty"
)
_ID_KEYS: Final = ("docid", "_id", "id")
_TEXT_KEYS: Final = ("content", "text")
_NUMBERED: Final = re.compile(r"\s*(?:\d{1,3}\s*[.)\]:](?!\d)\s*|[①-⑳]\s*|[-*•]\s+)")


def read_documents(path: Path, *, max_bad_lines: int = 0) -> Iterator[Document]:
    """The documents of a file or folder, one at a time.

    Titles, ids and texts come out in NFC and without control characters; hypothetical questions without their numbers.
    Reading goes on past bad lines; they are counted, and after the last line the first few are shown.

    Args:
        path: a JSON lines file, a BEIR directory, or a folder of pages.
        max_bad_lines: so many bad lines are passed over without an error.

    Raises:
        InputError: the path is missing, there is no document in it, or there are too many bad lines. Raised at the end
            of the iteration: keep nothing that was yielded when it is.
    """
    require(path)
    bad = BadLines(path, forms=FORMS, max_bad_lines=max_bad_lines)
    seen: dict[str, str] = {}
    file = corpus_file(path)
    for where, document in _from_lines(file, bad) if file else _from_folder(path, bad):
        if document.id in seen:
            bad.add(where, f"duplicate id {document.id!r}, first at {seen[document.id]}")
            continue
        seen[document.id] = where
        bad.read += 1
        yield document
    bad.settle(what="documents")


def corpus_file(path: Path) -> Path | None:
    """The JSON lines file that holds the documents: the path itself, or a BEIR directory's `corpus.jsonl`."""
    if path.is_file():
        return path
    return path / "corpus.jsonl" if (path / "corpus.jsonl").is_file() else None


def _from_lines(path: Path, bad: BadLines) -> Iterator[tuple[str, Document]]:
    if path.suffix.lower() in SUFFIXES:
        raise InputError(
            f"{path} is a single page", where=str(path), rule=FORMS, way_out="name the folder that holds the pages"
        )
    for where, row in json_lines(path, bad):
        try:
            document = _to_document(row)
        except BadLineError as error:
            bad.add(where, str(error), str(dict(row)))
        else:
            yield where, document


def _to_document(row: Mapping[str, Any]) -> Document:
    if "msg" in row or "ideal_context" in row:
        raise BadLineError("this is a query, not a document")
    return Document(
        id=get_id(row, _present(row, _ID_KEYS)),
        text=get_text(row, _present(row, _TEXT_KEYS)),
        title=" ".join(get_text(row, "title", optional=True).split()),
        source=get_text(row, "src", optional=True),
        questions=_questions(row),
    )


def _questions(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The hypothetical questions without their numbers; a single text holds one a line."""
    whole = isinstance(row.get("hypothetical_questions"), str)
    texts = get_texts(row, "hypothetical_questions")
    lines = texts[0].splitlines() if whole and texts else texts
    questions = (" ".join(line[match.end() if (match := _NUMBERED.match(line)) else 0 :].split()) for line in lines)
    return tuple(dict.fromkeys(question for question in questions if question))


def _present(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """The first of the keys that the row has.

    Raises:
        BadLineError: it has none.
    """
    for key in keys:
        if key in row:
            return key
    has = ", ".join(f"`{key}`" for key in list(row)[:6]) or "none"
    raise BadLineError(f"none of {', '.join(f'`{key}`' for key in keys)} among its keys ({has})")


def _from_folder(path: Path, bad: BadLines) -> Iterator[tuple[str, Document]]:
    """Pages in the order of their paths; hidden files and folders and other suffixes are passed over."""
    files = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    for name in files:
        file = path / name
        raw = file.read_bytes()
        try:
            text = decode(raw, first=True, where=str(file))
            if "\x00" in text:
                raise BadLineError("holds NUL bytes: not a text file")  # noqa: TRY301 - counted like the others
            document = read_page(file, id_=clean(unicodedata.normalize("NFC", name)), text=text)
        except UnicodeDecodeError as error:
            bad.add(str(file), undecodable(error), encoding=guess_encoding(raw))
        except BadLineError as error:
            bad.add(str(file), str(error))
        else:
            yield str(file), document
