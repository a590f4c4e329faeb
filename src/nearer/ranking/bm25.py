"""BM25 over Korean morphemes: the floor that every embedder must beat, and one of the two miners.

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with Lucene's non-negative idf;
k1 = 1.5 and b = 0.75 are the usual values, not tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Final

from nearer.progress import Progress, Silent
from nearer.ranking.tokenise import tokenise
from nearer.records import Hit

_SCORES_AT_ONCE: Final = 1 << 22
"""Scores above 0 of the queries that are searched together, at most; 8 bytes each."""


class Bm25:
    """An index in memory over texts, each known by its id.

    Args:
        ids: of the texts, no id twice, shape (n,).
        texts: shape (n,).
        progress: shows how many texts are analysed (the slow part: some 300 passages of 80 words a second on 2 cores).
    """

    def __init__(self, ids: Sequence[str], texts: Sequence[str], *, progress: Progress | None = None) -> None:
        order = _order(ids, texts)
        tracked = (progress or Silent()).track(
            tokenise([texts[index] for index in order]), what="BM25: morphemes of the passages", total=len(ids)
        )
        self._build([ids[index] for index in order], list(tracked))

    @classmethod
    def of_terms(cls, ids: Sequence[str], terms: Sequence[Sequence[str]]) -> Bm25:
        """An index over texts that are terms already, shape (n,)."""
        order = _order(ids, terms)
        index = cls.__new__(cls)
        index._build([ids[place] for place in order], [list(terms[place]) for place in order])  # noqa: SLF001 - another constructor
        return index

    def _build(self, ids: Sequence[str], terms: list[list[str]]) -> None:
        import bm25s
        from scipy import sparse

        self.ids = tuple(ids)
        # What a term adds to the score of a text, for every text that holds it.
        self._scores = sparse.csr_array((0, len(ids)), dtype="float32")  # (terms, n)
        self._row: dict[str, int] = {}
        if vocabulary := {term for text in terms for term in text}:
            index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numpy")
            index.index(terms, show_progress=False)
            self._row = {term: index.vocab_dict[term] for term in vocabulary}
            parts = tuple(index.scores[name] for name in ("data", "indices", "indptr"))
            self._scores = sparse.csr_array(parts, shape=(len(parts[-1]) - 1, len(ids)))
        self._texts_with = [stop - start for start, stop in pairwise(self._scores.indptr.tolist())]

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The k best texts of each query, best first, ties by ascending id.

        Texts that share no term with the query are no hits, so a list may be shorter than k, and is empty for a query
        without known terms.

        Args:
            queries: shape (m,).
            k: at most so many hits a query.
        """
        return self.search_terms(tokenise(queries), k)

    def search_terms(self, queries: Iterable[Sequence[str]], k: int) -> list[list[Hit]]:
        """The same for queries that are terms already. Memory is flat in the number of queries."""
        return [hits for block in self._blocks(queries) for hits in self._best(block, k)]

    def _blocks(self, queries: Iterable[Sequence[str]]) -> Iterator[list[list[int]]]:
        """Rows of the queries' terms, of as many queries at once as may be."""
        block: list[list[int]] = []
        scores = 0
        for terms in queries:
            rows = [self._row[term] for term in terms if term in self._row]
            own = sum(self._texts_with[row] for row in rows)
            if block and scores + own > _SCORES_AT_ONCE:
                yield block
                block, scores = [], 0
            block.append(rows)
            scores += own
        yield block

    def _best(self, block: list[list[int]], k: int) -> Iterator[list[Hit]]:
        """The hits of each query of a block."""
        import numpy as np
        from scipy import sparse

        rows = np.fromiter(chain.from_iterable(block), dtype=np.int32)
        starts = np.cumsum([0, *map(len, block)])
        # A term that a query names twice stands here twice, and counts twice.
        times = sparse.csr_array(
            (np.ones(len(rows), self._scores.dtype), rows, starts), shape=(len(block), self._scores.shape[0])
        )
        scores = times @ self._scores  # (queries, n)
        for start, stop in pairwise(scores.indptr.tolist()):
            places, values = scores.indices[start:stop], scores.data[start:stop]
            if len(values) > k:
                bound = np.partition(values, -k)[-k]  # the k-th largest; those that tie with it are looked at too
                places, values = places[values >= bound], values[values >= bound]
            best = np.lexsort((places, -values))[:k]  # ids are ascending, and so are places
            pairs = zip(places[best].tolist(), values[best].tolist(), strict=True)
            yield [Hit(self.ids[place], score) for place, score in pairs]


def _order(ids: Sequence[str], texts: Sequence[object]) -> list[int]:
    """Positions in ascending order of the ids."""
    if len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
    return sorted(range(len(ids)), key=ids.__getitem__)
