"""BM25 over Korean morphemes: the floor that every embedder must beat, and one of the two miners.

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with Lucene's non-negative idf;
k1 = 1.5 and b = 0.75 are the usual values, not tuned.
"""

from __future__ import annotations

from collections.abc import Sequence

from nearer.progress import Progress, Silent
from nearer.ranking.tokenise import tokenise
from nearer.ranking.top import top
from nearer.records import Hit


class Bm25:
    """An index in memory over texts, each known by its id.

    Args:
        ids: of the texts, no id twice, shape (n,).
        texts: shape (n,).
        progress: shows how many texts are analysed (the slow part: some 300 passages of 80 words a second on 2 cores).
    """

    def __init__(self, ids: Sequence[str], texts: Sequence[str], *, progress: Progress | None = None) -> None:
        import bm25s

        if len(ids) != len(texts):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
        # Ascending ids make "the smaller position" mean "the smaller id" where scores tie.
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self.ids = tuple(ids[index] for index in order)
        tracked = (progress or Silent()).track(
            tokenise([texts[index] for index in order]), what="BM25: morphemes of the passages", total=len(ids)
        )
        terms = list(tracked)
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
        found: list[list[Hit]] = []
        for terms in tokenise(queries):
            known = [term for term in terms if term in self._vocabulary]
            if not known:
                found.append([])
                continue
            scores = self._index.get_scores(known)  # (n,)
            best = top(scores[None, :], k)[0]
            found.append([Hit(self.ids[index], float(scores[index])) for index in best if scores[index] > 0])
        return found
