"""How systems are evaluated, whichever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_DEPTH: Final = 100
"""Results a query that are kept and scored, unless reranking or a K asks for more: what MAP looks at."""
_SEEN_BY_MEASURES: Final = 10
"""nDCG@10 and RR@10 look so far, whatever the Ks are."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the systems are evaluated: see the fields of the same names of `eval`."""

    ks: Sequence[int]
    rerank_depth: int
    bm25: bool
    alpha: float
    max_queries: int | None
    batch_tokens: int
    speed_queries: int
    seed: int
    reranked: Sequence[str] | None = None
    rerank_weight: float | None = None

    @property
    def depth(self) -> int:
        """Results a query."""
        return max(_DEPTH, self.rerank_depth, *self.ks)

    @property
    def documents(self) -> int:
        """So many different documents a query that is judged on documents; see `retrieve`."""
        return max(_SEEN_BY_MEASURES, *self.ks)
