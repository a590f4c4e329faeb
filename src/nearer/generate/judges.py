"""Who says how well a passage answers a query: the dense model, or BM25 where no model may be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from nearer.ranking.bm25 import Bm25

Encode = Callable[[Sequence[str], Literal["query", "passage"]], np.ndarray]
"""Texts → vectors, shape (n, dimension). Passages come rendered by the template; prefixes are added by the model."""

ScorePairs = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""(query, rendered passage) pairs → relevance, by a cross-encoder; above 0 is more likely relevant than not."""


class Judge(Protocol):
    """Whoever scores passages of the corpus, and other texts, against training queries."""

    def score(self, query: int, passages: Sequence[str]) -> list[float]:
        """Of one query (its index) with passages (their ids)."""

    def score_texts(self, query: int, texts: Sequence[str]) -> list[float]:
        """Of one query (its index) with texts."""


class Bm25Scores:
    """BM25 as a judge of passages, for when no dense model may be asked."""

    def __init__(self, bm25: Bm25, queries: Sequence[str]) -> None:
        self._bm25 = bm25
        self._queries = queries

    def __call__(self, query: int, passages: Sequence[str]) -> list[float]:
        """Of one query (its index) with passages (their ids); 0 for those that share no term with it."""
        hits = self._bm25.search([self._queries[query]], len(self._bm25.ids))[0]
        scores = {hit.target: hit.score for hit in hits}
        return [scores.get(passage, 0.0) for passage in passages]


class Teacher:
    """The dense model: dot products of vectors, cosines where the model normalises."""

    def __init__(self, ids: Sequence[str], passages: np.ndarray, queries: np.ndarray, encode: Encode) -> None:
        self.ids = ids
        self.passages = passages  # (n, dimension)
        self.queries = queries  # (m, dimension)
        self._encode = encode
        self._places = {id_: place for place, id_ in enumerate(ids)}
        self._texts: dict[str, np.ndarray] = {}

    def score(self, query: int, passages: Sequence[str]) -> list[float]:
        """Of one query (its index) with passages (their ids)."""
        return self._products(query, self.passages[[self._places[id_] for id_ in passages]]) if passages else []

    def learn(self, texts: Sequence[str]) -> None:
        """Encode texts that stand in no document, all at once."""
        new = sorted(set(texts))
        if new:
            self._texts.update(zip(new, self._encode(new, "passage"), strict=True))

    def score_texts(self, query: int, texts: Sequence[str]) -> list[float]:
        """Of one query with texts that were learnt."""
        return self._products(query, np.stack([self._texts[text] for text in texts])) if texts else []

    def _products(self, query: int, vectors: np.ndarray) -> list[float]:
        # In double precision: the last bits of a single-precision sum depend on the processor's vector width.
        products: list[float] = (vectors.astype(np.float64) @ self.queries[query].astype(np.float64)).tolist()
        return [round(product, 6) for product in products]


class CrossTeacher:
    """A cross-encoder as judge: it reads query and passage together, and costs a forward pass a pair."""

    def __init__(self, score_pairs: ScorePairs, *, queries: Sequence[str], passages: Mapping[str, str]) -> None:
        self._score_pairs = score_pairs
        self._queries = queries
        self._passages = passages

    def score(self, query: int, passages: Sequence[str]) -> list[float]:
        """Of one query (its index) with passages (their ids)."""
        return self.score_texts(query, [self._passages[id_] for id_ in passages])

    def score_texts(self, query: int, texts: Sequence[str]) -> list[float]:
        """Of one query with any texts."""
        scores = self._score_pairs([(self._queries[query], text) for text in texts]) if texts else ()
        return [round(float(score), 6) for score in scores]
