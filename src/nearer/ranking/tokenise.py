"""Korean (and Latin) text as the terms that BM25 counts: content morphemes by kiwi, lower-cased.

Particles, endings and affixes are left out: `필터를`, `필터의` and `필터가` are one term. Kept are nouns, stems of
verbs and adjectives, adverbs, roots, foreign words, numbers, Chinese characters, and what kiwi finds as one piece (mail
and web addresses, serial numbers). A model name that kiwi splits (`D20`) is kept in its parts and, joined, as one more
term, so that `D10` and `D20` differ by more than a number that any text may hold.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from nearer.process import cpu_count

if TYPE_CHECKING:
    from kiwipiepy import Kiwi, Token

_CONTENT: Final = frozenset(("NNG", "NNP", "NNB", "NR", "NP", "VV", "VA", "MAG", "XR", "SL", "SH", "SN"))
_PIECES: Final = frozenset(("W_URL", "W_EMAIL", "W_HASHTAG", "W_MENTION", "W_SERIAL"))
_JOINED: Final = frozenset(("SL", "SN"))


def tokenise(texts: Sequence[str]) -> Iterator[list[str]]:
    """The terms of each text, in the order of the text; the same text always gives the same terms.

    Args:
        texts: any text; composed to NFC first, because files from macOS hold decomposed Hangul.

    Returns:
        One list a text, empty when nothing in it bears content. The analyser is loaded at the call, not at the first
        text, which would look like slow progress.
    """
    found: Iterable[Any] = _kiwi().tokenize([unicodedata.normalize("NFC", text) for text in texts])
    return (list(_terms(tokens)) for tokens in found)


def _terms(tokens: Sequence[Token]) -> Iterator[str]:
    name: list[Token] = []
    for token in tokens:
        if token.tag.partition("-")[0] in _CONTENT | _PIECES:
            yield token.form.lower()
        if name and (token.tag not in _JOINED or token.start != name[-1].start + name[-1].len):
            yield from _joined(name)
            name = []
        if token.tag in _JOINED:
            name.append(token)
    yield from _joined(name)


def _joined(name: Sequence[Token]) -> Iterator[str]:
    if len(name) > 1:
        yield "".join(token.form for token in name).lower()


@functools.cache
def _kiwi() -> Kiwi:
    """One analyser a process: loading takes seconds."""
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=cpu_count())
