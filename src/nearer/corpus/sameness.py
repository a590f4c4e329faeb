"""When two texts are the same, and how much of one stands in the other.

Texts are compared without regard to case, width, spaces and punctuation, because extraction, language models and people
change these without meaning anything by it. Shingles are runs of characters of that form, as 64-bit hashes: set
operations on sorted arrays are exact up to hash collisions and need no word boundaries, which Korean spelling leaves
open.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Shingles = NDArray[np.uint64]
"""Sorted distinct hashes, shape (n,)."""

SHINGLE_CHARACTERS: Final = 5
"""Character 5-grams are usual for short texts (Leskovec et al., Mining of Massive Datasets, 3.2); a Korean word has
about three syllables, so five reach over a word."""

_IGNORED: Final = frozenset(
    ".,?!~·…:;'\"`‘’“”「」『』()[]{}<>《》〈〉|-–—_/\\*•、。"
)  # not + and #: C is neither C++ nor C#


def normal(text: str) -> str:
    """The text as it is compared: NFKC, case-folded, without spaces, control characters and common punctuation."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(
        character
        for character in folded
        if character not in _IGNORED and not character.isspace() and unicodedata.category(character)[0] != "C"
    )


def shingles(text: str, *, size: int = SHINGLE_CHARACTERS) -> Shingles:
    """Hashes of all runs of `size` characters of the text's normal form; a shorter text is one shingle."""
    codes = np.frombuffer(normal(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if not codes.size:
        return np.zeros(0, dtype=np.uint64)
    size = min(size, codes.size)
    hashes: Any = np.full(codes.size - size + 1, size, dtype=np.uint64)
    for offset in range(size):
        hashes = _mix(hashes ^ codes[offset : codes.size - size + 1 + offset])
    return np.unique(hashes)


def jaccard(left: Shingles, right: Shingles) -> float:
    """Shared shingles over all shingles; 0 when both have none."""
    shared = np.intersect1d(left, right, assume_unique=True).size
    together = left.size + right.size - shared
    return float(shared / together) if together else 0.0


def alike(left: Shingles, right: Shingles, threshold: float) -> bool:
    """Whether `jaccard` is at least the threshold, above 0. Most pairs are told apart by their sizes alone."""
    smaller, larger = sorted((left.size, right.size))
    return smaller >= threshold * larger > 0 and jaccard(left, right) >= threshold


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), modulo 2^64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
