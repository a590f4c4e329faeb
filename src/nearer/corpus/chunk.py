"""Documents cut into passages: by section, then by sentence, within a token budget.

Sentence boundaries come from Kiwi's morphemes, so that Korean sentences without punctuation end where they end and a
hard line break inside a sentence is none. A passage never crosses a heading. A sentence is cut only when it alone is
over the budget: at line breaks first, then between words, then between characters.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nearer import process
from nearer.records import Document, Passage

CHUNKER: Final = "kiwi-sentences-v1"
"""Named in the model contract; a change that cuts differently gets a new name."""

CountTokens = Callable[[Sequence[str]], list[int]]
"""Texts → tokens of each, special tokens not counted."""

_HEADING: Final = re.compile(r"(#{1,6})[ \t]+(\S.*?)[ \t]*#*[ \t]*$")
_FENCE: Final = re.compile(r"[ \t]{0,3}(```|~~~)")
_SENTENCE_END: Final = re.compile(r"[.!?。！？…]+[\"'”’)\]」』]*(?=\s|$)|[\r\n]+")
_LINE: Final = re.compile(r"[\r\n]+")
_WORD: Final = re.compile(r"\s+")
_WINDOW: Final = 16
"""Characters a token that the search for a cut inside a word looks at; more than any tokenizer has on average."""
_BLOCK: Final = 256
"""Documents that are split and counted together: enough for the batch calls to pay."""

_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Section:
    """Text under one heading path (outermost first), headings themselves left out."""

    path: tuple[str, ...]
    text: str


def chunk(document: Document, *, max_tokens: int, count_tokens: CountTokens) -> list[Passage]:
    """Cut one document; see `chunk_all`."""
    return next(chunk_all([document], max_tokens=max_tokens, count_tokens=count_tokens))


def chunk_all(documents: Iterable[Document], *, max_tokens: int, count_tokens: CountTokens) -> Iterator[list[Passage]]:
    """Cut documents, in order, a block at a time.

    A passage's text is a slice of the document's: joined again, the passages of a document give back its text apart
    from whitespace and heading lines. Passages are numbered within their document: `<document id>#<n>` from 0.

    Args:
        documents: streamed.
        max_tokens: most tokens of a passage's text, title and heading path not counted. A single character that has
            more stands alone.
        count_tokens: of the embedder that the passages are for.

    Yields:
        The passages of each document; at least one for a document that holds any text.
    """
    stream = iter(documents)
    while block := list(itertools.islice(stream, _BLOCK)):
        of_document = [sections(document.text) for document in block]
        texts = [section.text for found in of_document for section in found]
        cuts = iter(_cut(texts, max_tokens=max_tokens, count_tokens=count_tokens))
        for document, found in zip(block, of_document, strict=True):
            pieces = [(section.path, text) for section in found for text in next(cuts)]
            yield [
                Passage(
                    id=f"{document.id}#{number}",
                    document_id=document.id,
                    text=text,
                    title=document.title,
                    path=path,
                    source=document.source,
                )
                for number, (path, text) in enumerate(pieces)
            ]


def sections(text: str) -> list[Section]:
    """The parts of a Markdown text between its heading lines, empty ones left out.

    A text of nothing but headings is one section that holds them, so that no document vanishes. Heading lines inside
    fenced code are code.
    """
    found: list[Section] = []
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    headings: list[str] = []
    fence = ""

    def close() -> None:
        body = "".join(lines)
        if body.strip():
            found.append(Section(tuple(title for _, title in path), body))
        lines.clear()

    for line in text.splitlines(keepends=True):
        heading = None if fence else _HEADING.match(line.rstrip("\r\n"))
        if heading:
            close()
            level = len(heading[1])
            path = [(depth, title) for depth, title in path if depth < level] + [(level, heading[2])]
            headings.append(heading[2])
            continue
        if marker := _FENCE.match(line):
            fence = "" if fence == marker[1] else fence or marker[1]
        lines.append(line)
    close()
    return found or ([Section((), "\n".join(headings))] if headings else [])


def longest_unbroken(text: str) -> int:
    """Characters of the longest stretch of the text without a sentence end or a line break."""
    longest = start = 0
    for end in _SENTENCE_END.finditer(text):
        longest = max(longest, end.start() - start)
        start = end.end()
    return max(longest, len(text) - start)


@functools.cache
def _kiwi() -> Any:
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=process.cpu_count())


def _cut(texts: Sequence[str], *, max_tokens: int, count_tokens: CountTokens) -> Iterator[list[str]]:
    """Each text as the texts of its passages."""
    found = _kiwi().split_into_sents(texts, return_sub_sents=False)
    spans = [
        _seamless(text, [(sentence.start, sentence.end) for sentence in sentences])
        for text, sentences in zip(texts, found, strict=True)
    ]
    counts = iter(
        count_tokens([text[slice(*span)].strip() for text, of in zip(texts, spans, strict=True) for span in of])
    )
    packed: list[list[list[_Span]]] = []
    for text, of in zip(texts, spans, strict=True):
        pieces: list[tuple[_Span, int]] = []
        for span in of:
            tokens = next(counts)
            pieces += [(span, tokens)] if tokens <= max_tokens else _break(text, span, max_tokens, count_tokens)
        packed.append(_pack(pieces, max_tokens))
    # Joined sentences can have more tokens than they have one by one: some tokenizers count the line breaks.
    actual = iter(count_tokens([_slice(text, run) for text, runs in zip(texts, packed, strict=True) for run in runs]))
    for text, runs in zip(texts, packed, strict=True):
        fitting = [
            passage
            for run in runs
            for passage in (
                [_slice(text, run)] if next(actual) <= max_tokens else _repack(text, run, max_tokens, count_tokens)
            )
        ]
        yield [passage for passage in fitting if passage]


def _seamless(text: str, spans: Sequence[_Span]) -> list[_Span]:
    """The spans with each stretched to the start of the next, so that together they are the whole text."""
    starts = [0, *(start for start, _ in spans[1:]), len(text)]
    return list(itertools.pairwise(starts))


def _slice(text: str, run: Sequence[_Span]) -> str:
    return text[run[0][0] : run[-1][1]].strip()


def _pack(pieces: Sequence[tuple[_Span, int]], max_tokens: int) -> list[list[_Span]]:
    """Neighbouring pieces in runs whose counts stay within the budget together."""
    runs: list[list[_Span]] = []
    total = 0
    for span, tokens in pieces:
        if runs and total + tokens <= max_tokens:
            runs[-1].append(span)
            total += tokens
        else:
            runs.append([span])
            total = tokens
    return runs


def _repack(text: str, run: Sequence[_Span], max_tokens: int, count_tokens: CountTokens) -> list[str]:
    """A run that is over the budget once joined, in runs that are not; counted anew for every piece that is added."""
    runs: list[list[_Span]] = [[run[0]]]
    for span in run[1:]:
        if count_tokens([_slice(text, [*runs[-1], span])])[0] <= max_tokens:
            runs[-1].append(span)
        else:
            runs.append([span])
    return [_slice(text, part) for part in runs]


def _break(text: str, span: _Span, max_tokens: int, count_tokens: CountTokens) -> list[tuple[_Span, int]]:
    """One sentence that is over the budget: its lines, the words of lines that are over it, the characters of words."""
    parts = [span]
    counts = [max_tokens + 1]
    for boundary in (_LINE, _WORD):
        finer = [
            piece
            for part, tokens in zip(parts, counts, strict=True)
            for piece in ([part] if tokens <= max_tokens else _split(text, part, boundary))
        ]
        parts, counts = finer, count_tokens([_slice(text, [part]) for part in finer])
    pieces: list[tuple[_Span, int]] = []
    for part, tokens in zip(parts, counts, strict=True):
        pieces += [(part, tokens)] if tokens <= max_tokens else _characters(text, part, max_tokens, count_tokens)
    return pieces


def _split(text: str, span: _Span, boundary: re.Pattern[str]) -> list[_Span]:
    """The span cut after each match of the boundary."""
    start, end = span
    cuts = [match.end() for match in boundary.finditer(text, start, end)]
    return list(itertools.pairwise(sorted({start, *cuts, end})))


def _characters(text: str, span: _Span, max_tokens: int, count_tokens: CountTokens) -> list[tuple[_Span, int]]:
    """The span in the longest prefixes that fit, one after the other, each at least a character."""
    pieces: list[tuple[_Span, int]] = []
    start, end = span
    while start < end:
        fits, too_long = 1, min(end - start, _WINDOW * max_tokens) + 1
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if count_tokens([text[start : start + middle].strip()])[0] <= max_tokens:
                fits = middle
            else:
                too_long = middle
        pieces.append(((start, start + fits), count_tokens([text[start : start + fits].strip()])[0]))
        start += fits
    return pieces
