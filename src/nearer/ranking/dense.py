"""Exact nearest passages by dot product: faiss does the products, ties are broken by us."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from nearer.progress import Progress, Silent
from nearer.ranking.top import top
from nearer.records import Hit

if TYPE_CHECKING:
    import numpy as np

_QUERIES_PER_BLOCK: Final = 1024
_PASSAGES_PER_BLOCK: Final = 32_768
_SPARE: Final = 28
"""So many hits more than are asked for are fetched, so that ties at the last place are mostly among them."""
_DECIMALS: Final = 6
"""Scores are rounded to what fp32 can say of a cosine: else the place of a passage within a matrix product decides
between two passages of the same text, and not its id."""


class Index:
    """Passages that are searched by dot product.

    Args:
        passages: shape (n, dimension); may be a memory map, it is read from front to back for each block of queries.
        ids: of the passages, no id twice, shape (n,).

    Raises:
        ValueError: shapes do not fit, or a vector holds NaN.
    """

    def __init__(self, passages: np.ndarray, ids: Sequence[str]) -> None:
        import numpy as np

        if passages.ndim != 2 or len(ids) != len(passages):
            raise ValueError(f"{len(ids)} ids for passages of the shape {passages.shape}")
        self.passages = np.ascontiguousarray(passages, dtype=np.float32)
        self.ids = ids
        _require_numbers(self.passages)
        # rank[i]: the place of passage i among the ascending ids; ties are decided on it.
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        self._rank = np.empty(len(ids), dtype=np.int64)
        self._rank[order] = np.arange(len(ids))
        self._order = order

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        exclude: Sequence[Collection[str]] | None = None,
        progress: Progress | None = None,
    ) -> list[list[Hit]]:
        """The k passages of the largest dot product with each query, best first, ties by ascending id.

        Args:
            queries: shape (m, dimension).
            k: at most so many hits a query; fewer when the corpus is smaller.
            exclude: ids that are no hits, for each query, shape (m,).
            progress: shows the blocks of queries.

        Raises:
            ValueError: shapes do not fit, or a vector holds NaN.
        """
        import faiss
        import numpy as np

        if queries.ndim != 2 or queries.shape[1] != self.passages.shape[1]:
            raise ValueError(f"queries {queries.shape} and passages {self.passages.shape} do not fit")
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        _require_numbers(queries)
        hidden = list(exclude) if exclude is not None else [()] * len(queries)
        most = max(map(len, hidden), default=0)
        count = len(self.ids)
        fetched = min(count, k + most + _SPARE)
        found: list[list[Hit]] = []
        starts = range(0, len(queries), _QUERIES_PER_BLOCK)
        for start in (progress or Silent()).track(starts, what="exact search, blocks of queries"):
            block = queries[start : start + _QUERIES_PER_BLOCK]
            if not fetched:
                found += [[] for _ in block]
                continue
            raw, places = faiss.knn(block, self.passages, fetched, metric=faiss.METRIC_INNER_PRODUCT)
            scores = np.round(raw, _DECIMALS)
            # Whatever was not fetched scores at most as much as the last that was: where that ties with the last place
            # that counts, passages with smaller ids may be missing.
            last = min(k + most, fetched) - 1
            unsure = np.flatnonzero(scores[:, -1] >= scores[:, last]) if fetched < count else ()
            by_id = np.lexsort((self._rank[places], -scores), axis=1)
            scores, places = np.take_along_axis(scores, by_id, axis=1), np.take_along_axis(places, by_id, axis=1)
            rows = {int(row): self._exactly(block[row], k + most) for row in unsure}
            for row in range(len(block)):
                names = hidden[start + row]
                enough = k + len(names)
                best = rows.get(row) or zip(places[row, :enough].tolist(), scores[row, :enough].tolist(), strict=True)
                hits = [Hit(self.ids[place], score) for place, score in best]
                found.append([hit for hit in hits if hit.target not in names][:k])
        return found

    def _exactly(self, query: np.ndarray, k: int) -> list[tuple[int, float]]:
        """The k best passages of one query, all of them looked at."""
        import numpy as np

        blocks = range(0, len(self.ids), _PASSAGES_PER_BLOCK)
        parts = [self.passages[start : start + _PASSAGES_PER_BLOCK] @ query for start in blocks]
        scores = np.round(np.concatenate(parts), _DECIMALS)
        best = self._order[top(scores[None, self._order], k)[0]]
        return [(int(place), float(scores[place])) for place in best]


def search(
    queries: np.ndarray,
    passages: np.ndarray,
    ids: Sequence[str],
    k: int,
    *,
    exclude: Sequence[Collection[str]] | None = None,
    progress: Progress | None = None,
) -> list[list[Hit]]:
    """Search once; see `Index`."""
    if queries.ndim != 2 or passages.ndim != 2 or queries.shape[1] != passages.shape[1]:
        raise ValueError(f"queries {queries.shape} and passages {passages.shape} do not fit")
    return Index(passages, ids).search(queries, k, exclude=exclude, progress=progress)


def _require_numbers(vectors: np.ndarray) -> None:
    import numpy as np

    for start in range(0, len(vectors), _PASSAGES_PER_BLOCK):
        if np.isnan(vectors[start : start + _PASSAGES_PER_BLOCK]).any():
            raise ValueError("a query or passage vector holds NaN")
