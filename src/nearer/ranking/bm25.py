"""BM25 over Korean morphemes: the floor that every embedder must beat, and one of the two miners.

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with Lucene's non-negative idf;
k1 = 1.5 and b = 0.75 are the usual values, not tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearer.progress import Progress, Silent
from nearer.ranking.tokenise import tokenise
from nearer.records import Hit


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

        self.ids = tuple(ids)
        self._vocabulary = {term for text in terms for term in text}
        self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, backend="numpy")
        if self._vocabulary:
            self._index.index(terms, show_progress=False)

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
        """The same for queries that are terms already. One row of scores at a time: memory is flat in the queries."""
        import numpy as np

        found: list[list[Hit]] = []
        for terms in queries:
            known = [term for term in terms if term in self._vocabulary]
            if not known:
                found.append([])
                continue
            scores = self._index.get_scores(known)  # (n,)
            places = scores.nonzero()[0]
            values = scores[places]
            if len(values) > k:
                bound = np.partition(values, -k)[-k]  # the k-th largest; those that tie with it are looked at too
                places, values = places[values >= bound], values[values >= bound]
            # Ids are ascending, and a stable sort keeps them so where scores tie.
            best = np.argsort(-values, kind="stable")[:k]
            pairs = zip(places[best].tolist(), values[best].tolist(), strict=True)
            found.append([Hit(self.ids[place], score) for place, score in pairs])
        return found


def _order(ids: Sequence[str], texts: Sequence[object]) -> list[int]:
    """Positions in ascending order of the ids."""
    if len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
    return sorted(range(len(ids)), key=ids.__getitem__)
