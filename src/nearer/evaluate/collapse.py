"""Whether a model's scores still tell passages apart.

A reranker that sits on the plateau of its loss gives every pair the same score, and a collapsed embedder puts every
text in the same place: the list is then an order of ids, or the same few passages for every query.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Final

from nearer.records import Run

_SPREAD: Final = 1e-3
"""Median over the queries of the best minus the worst score of a list. E5's cosines, which live between 0.7 and 1.0,
spread over some 0.1 in the first hundred; the logits of a reranker on its plateau over less than 1e-3. A guess in
between."""
_SHARE: Final = 0.5
"""Share of the queries that one passage comes first for. In a healthy run it is a few per cent; a guess."""
_QUERIES: Final = 10
"""Fewer queries may well have the same answer."""


def collapse(run: Run, *, top: int) -> str | None:
    """What is wrong with the scores of one model's run, in words; None: nothing.

    Args:
        run: passages by query, best first, with the scores that the model gave.
        top: how many of each list that model has ordered.
    """
    lists = [hits[:top] for hits in run.values() if len(hits) > 1]
    if not lists:
        return None
    spread = statistics.median(hits[0].score - hits[-1].score for hits in lists)
    if spread < _SPREAD:
        return f"it hardly tells passages apart: first and last scores of a list differ by {spread:.2g} (median)"
    (passage, times), *_ = Counter(hits[0].target for hits in lists).most_common(1)
    if len(lists) >= _QUERIES and times > _SHARE * len(lists):
        return f"it puts the same passage {passage} first for {times} of {len(lists)} queries"
    return None
