"""What a written query must be: in the corpus's language, understood alone, in its own words, and found again.

Each rule says no for one reason, which the audit counts. All thresholds are settings or confessed guesses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from nearer.corpus.group import group
from nearer.corpus.sameness import normal, shingles

MIN_OWN_SHARE: Final = 0.5
"""Of the letters that are no technical terms of the passage, so many are of the corpus's script. A guess."""
MIN_COPY_CHARACTERS: Final = 15
"""Shorter queries (in normal form) are search words, which stand in the passage by right. A guess."""
_HANGUL_CORPUS: Final = 0.3  # share of Hangul among the letters from which on a corpus is Korean
_QUERY_SHINGLE: Final = 3

_DEPENDENT: Final = re.compile(
    r"(?:(?:(?:^|[,.?!]\s*)(?:위|아래|다음|앞)의?|(?:^|\s)(?:이|본|해당|상기|주어진|제시된|언급된))\s*"
    r"(?:문서|글|문단|본문|지문|표|그림|단락|자료|텍스트|예시|구절|절|발췌|내용|목록|코드|문장|기사|섹션)"
    r"(?=$|[^가-힣]|에|의|은|는|이|을|를|과|와|도|로|처럼|대로|상))"
    r"|(?:^(?:이|그|저|해당)\s+(?:명령|기능|옵션|대화\s?상자|함수|설정|필드|값|방법|도구|창|항목|메뉴|과정|제품|규정|제도)"
    r"(?=$|[^가-힣]|은|는|이|을|를|에|의|과|와|도|로))"
    r"|(?:본문|지문|문서|글|표|그림)(?:에|에서)\s*(?:나온|나오는|나타난|따르면|언급|설명된|설명한|제시|적힌)"
    r"|글쓴이|필자"
    r"|\b(?:the|this|above|given|following)\s+(?:passage|document|text|section|table|figure|paragraph|excerpt)\b",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W\d_]+")


def corpus_language(texts: Iterable[str]) -> str:
    """`ko` when at least 30 % of the letters are Hangul, else `other`, which no query is held to."""
    letters = hangul = 0
    for text in texts:
        for character in text:
            if character.isalpha():
                letters += 1
                hangul += _is_hangul(character)
    return "ko" if letters and hangul / letters >= _HANGUL_CORPUS else "other"


def is_other_language(query: str, *, source: str) -> bool:
    """Whether a query to a Korean corpus is not Korean.

    Words of other scripts that stand in the passage are technical terms (VLOOKUP, Ctrl) and count for nothing; of the
    other letters, half must be Hangul. Nothing but such terms is a Korean user's search as well.
    """
    known = {word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", source))}
    hangul = foreign = 0
    for word in _WORD.findall(unicodedata.normalize("NFKC", query)):
        own = sum(map(_is_hangul, word))
        hangul += own
        if own < len(word) and not _latin_parts(word) <= known:
            foreign += len(word) - own
    return foreign > 0 and hangul < MIN_OWN_SHARE * (hangul + foreign)


def _latin_parts(word: str) -> set[str]:
    """The runs of a word that are not Hangul: `LibreOffice에서` holds `libreoffice`."""
    return {part.casefold() for part in re.split(r"[가-힣ㄱ-ㆎ]+", word) if part}


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣" or "ㄱ" <= character <= "ㆎ" or "ᄀ" <= character <= "ᇿ"


def depends_on_passage(query: str) -> str:
    """The words that only make sense beside the passage ("위 문서에서"); "" when there are none."""
    found = _DEPENDENT.search(query)
    return found[0].strip() if found else ""


def copied_share(query: str, *, source: str) -> float:
    """Share of the query's character 5-grams that stand in the passage, both in normal form; 0 for search words."""
    if len(normal(query)) < MIN_COPY_CHARACTERS:
        return 0.0
    own, of_source = shingles(query), shingles(source)
    return float(np.isin(own, of_source, assume_unique=True).mean()) if own.size else 0.0


def near_duplicates(queries: Sequence[tuple[str, str]], *, threshold: float, seed: int) -> Mapping[str, str]:
    """Queries that nearly repeat an earlier one → that one, by id.

    Args:
        queries: (id, text), the ones to be kept first.
        threshold: Jaccard similarity of character 3-grams in normal form.
        seed: of the MinHash permutations.
    """
    groups = group(queries, threshold=threshold, seed=seed, size=_QUERY_SHINGLE)
    first: dict[str, str] = {}
    repeated = {}
    for id_, _ in queries:
        kept = first.setdefault(groups[id_], id_)
        if kept != id_:
            repeated[id_] = kept
    return repeated
