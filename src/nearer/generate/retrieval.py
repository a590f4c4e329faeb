"""The passages as BM25 and the dense model find them; built when first needed, and once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nearer.generate.judges import Encode
from nearer.models.contract import render_passage
from nearer.progress import Progress
from nearer.ranking import dense
from nearer.ranking.bm25 import Bm25
from nearer.ranking.fuse import reciprocal_rank_fusion
from nearer.records import Hit, Passage

if TYPE_CHECKING:
    import numpy as np


class Retrieval:
    """Both retrievers over passages that are rendered by the template.

    Args:
        template: of a passage.
        encode: the dense model.
        progress: told what takes time.

    `texts` are the rendered passages by id.
    """

    def __init__(self, *, template: str, encode: Encode, progress: Progress) -> None:
        self._template = template
        self._encode = encode
        self._progress = progress
        self.texts: dict[str, str] = {}
        self._ids: tuple[str, ...] = ()
        self._bm25: Bm25 | None = None
        self._vectors: np.ndarray | None = None

    def over(self, passages: Mapping[str, Passage]) -> None:
        """Retrieve among these from now on; what was built for the same texts is kept."""
        texts = {
            id_: render_passage(self._template, title=p.title, path=p.path, text=p.text) for id_, p in passages.items()
        }
        if texts != self.texts or tuple(passages) != self._ids:
            self.texts, self._ids, self._bm25, self._vectors = texts, tuple(passages), None, None

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the passages, in order."""
        return self._ids

    @property
    def bm25(self) -> Bm25:
        """The lexical index."""
        if self._bm25 is None:
            self._bm25 = Bm25(self._ids, list(self.texts.values()), progress=self._progress)
        return self._bm25

    @property
    def vectors(self) -> np.ndarray:
        """Of the passages, shape (n, dimension)."""
        if self._vectors is None:
            self._vectors = self._encode(list(self.texts.values()), "passage")
        return self._vectors

    def both(self, queries: Sequence[str], k: int) -> tuple[list[list[Hit]], list[list[Hit]]]:
        """The k best passages of each query by BM25, and by the dense model."""
        if not queries:
            return [], []
        vectors = self._encode(list(queries), "query")
        return self.bm25.search(queries, k), dense.search(vectors, self.vectors, self._ids, k)

    def fused(self, queries: Sequence[str], k: int) -> list[list[str]]:
        """The k best passage ids of each query by both, their ranks fused."""
        sparse, close = self.both(queries, 5 * k)
        runs = [{str(place): hits for place, hits in enumerate(each)} for each in (sparse, close)]
        fused = reciprocal_rank_fusion(runs)
        return [[hit.target for hit in fused.get(str(place), [])[:k]] for place in range(len(queries))]
