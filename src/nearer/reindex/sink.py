"""What a place for vectors must be able to do: a directory with a FAISS index today, search engines later.

A sink holds one generation. It is written shard by shard, finished, checked through `ids`, `fetch` and `search`, and
only then does an alias point to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from nearer.models.contract import Contract
from nearer.records import Hit, Passage

if TYPE_CHECKING:
    import numpy as np


class Sink(Protocol):
    """One generation of an index."""

    def begin(self, *, contract: Contract) -> None:
        """Make room for vectors of this contract; what an earlier attempt left of the generation may stay."""

    def write(self, shard: int, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        """Take one shard; the same shard again replaces itself.

        Args:
            shard: its number, from 0.
            passages: shape (n,).
            vectors: (n, dimension) float32, of unit length where the contract's similarity is the cosine.
        """

    def finish(self) -> None:
        """All shards were written: make them searchable."""

    def count(self) -> int:
        """How many passages it holds."""

    def ids(self) -> Iterator[str]:
        """The ids of all passages, in any order."""

    def fetch(self, ids: Sequence[str]) -> np.ndarray:
        """The vectors that it holds, (n, dimension) float32.

        Raises:
            KeyError: an id that it does not hold.
        """

    def search(self, vectors: np.ndarray, k: int) -> list[list[Hit]]:
        """The k passages of the largest dot product with each vector (m, dimension), best first."""


class Aliases(Protocol):
    """Names that queries use, each pointing to one generation, and the way back."""

    def current(self, alias: str) -> str | None:
        """The generation that the alias points to; None: no such alias."""

    def previous(self, alias: str) -> str | None:
        """The generation that it pointed to before; None: there was none."""

    def switch(self, alias: str, generation: str) -> None:
        """Point the alias to a generation, atomically."""

    def back(self, alias: str) -> str:
        """Point the alias to the generation before, atomically, and name that.

        Raises:
            InputError: there is none.
        """
