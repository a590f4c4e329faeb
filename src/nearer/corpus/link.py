"""Texts that somebody copied from the documents, traced back to the passages that they stand in.

The guide's ideal contexts were taken from retrieved documents by a language model, "not always letter for letter", and
know nothing of our passages: a context can lie inside one passage, hold several, or lie across a boundary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from nearer.corpus.sameness import normal, shingles
from nearer.records import Passage

CONTAINMENT: Final = 0.7
"""Share of a text's character shingles that must stand in the other for a link that is not letter for letter. A
one-character change breaks five shingles, so this allows about one change in 15 characters. A guess."""

_MIN_CHARACTERS: Final = 20  # in normal form; shorter texts ("예", "표 1") stand in others by chance
_ACROSS: Final = 1 / 3  # share of a text that crosses a boundary which makes a passage one of its places


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where a text stands. `containment` is 1.0 for an exact link."""

    passages: tuple[str, ...]
    kind: Literal["exact", "shingles"]
    containment: float


class Linker:
    """Finds the passages that a text was taken from."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        kept = list(passages)
        self._ids = [passage.id for passage in kept]
        self._normal = [normal(passage.text) for passage in kept]
        self._long = np.array([len(text) >= _MIN_CHARACTERS for text in self._normal], dtype=np.bool_)
        numbers: dict[str, int] = {}
        of_document = [numbers.setdefault(passage.document_id, len(numbers)) for passage in kept]
        self._document = np.array(of_document, dtype=np.int64)
        sets = [shingles(passage.text) for passage in kept]
        self._sizes = np.array([found.size for found in sets], dtype=np.int64)
        hashes = np.concatenate([*sets, np.zeros(0, dtype=np.uint64)])
        owners = np.repeat(np.arange(len(kept), dtype=np.int32), self._sizes)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._owners = hashes[order], owners[order]

    def link(self, text: str) -> Link | None:
        """The passages that the text was taken from, in corpus order; None when it stands in no document.

        First exactly, by normal forms: the text inside a passage, or whole passages inside the text. Then by the share
        of shingles, with the same two directions (the best passage that holds the text, or all that it holds). Last, a
        text that crosses passage boundaries: the passages of the one document that together hold it.
        """
        wanted = normal(text)
        found = shingles(text)
        if not found.size or not self._ids:
            return None
        shared = self._shared(found)  # (passages,)
        if exact := self._exact(wanted, shared):
            return Link(passages=exact, kind="exact", containment=1.0)
        if len(wanted) < _MIN_CHARACTERS:
            return None
        inside = shared / found.size
        holds = np.where(self._long, shared / np.maximum(self._sizes, 1), 0.0)
        if inside.max() >= CONTAINMENT:
            return self._shingled(inside >= inside.max(), float(inside.max()))
        if holds.max() >= CONTAINMENT:
            return self._shingled(holds >= CONTAINMENT, float(holds.max()))
        return self._across(found.size, shared, inside)

    def _shared(self, found: NDArray[np.uint64]) -> NDArray[np.int64]:
        """How many of the shingles each passage has, shape (passages,)."""
        low = np.searchsorted(self._hashes, found, side="left")
        high = np.searchsorted(self._hashes, found, side="right")
        places: Any = [self._owners[start:end] for start, end in zip(low, high, strict=True) if end > start]
        owners = np.concatenate(places) if places else np.zeros(0, dtype=np.int32)
        return np.bincount(owners, minlength=len(self._ids)).astype(np.int64)

    def _exact(self, wanted: str, shared: NDArray[np.int64]) -> tuple[str, ...]:
        candidates = np.flatnonzero(shared).tolist()
        if len(wanted) < _MIN_CHARACTERS:
            around = [index for index in candidates if wanted == self._normal[index]]
        else:
            around = [index for index in candidates if wanted in self._normal[index]]
            around = around or [i for i in candidates if self._long[i] and self._normal[i] in wanted]
        return tuple(self._ids[index] for index in around)

    def _shingled(self, chosen: NDArray[np.bool_], containment: float) -> Link:
        indices = np.flatnonzero(chosen).tolist()
        return Link(passages=tuple(self._ids[index] for index in indices), kind="shingles", containment=containment)

    def _across(self, size: int, shared: NDArray[np.int64], inside: NDArray[np.float64]) -> Link | None:
        together = np.bincount(self._document, weights=shared) / size  # (documents,)
        best = int(together.argmax())
        if together[best] < CONTAINMENT:
            return None
        of_best = self._document == best
        enough = of_best & (inside >= min(_ACROSS, float(inside[of_best].max())))
        return self._shingled(enough, float(min(1.0, together[best])))
