"""A system's ranked lists and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.lineup import Entry
from nearer.ranking import metrics
from nearer.ranking.metrics import Scores
from nearer.records import Run

Stage = Literal["retrieve", "rerank"]


@dataclass(frozen=True, kw_only=True)
class System:
    """A retriever, or a retriever with a reranker after it."""

    name: str
    retriever: str
    reranker: str | None
    passages: Run
    """As they were found."""
    run: Run
    """In the unit that is judged, as deep as it is scored."""
    scores: Scores

    @property
    def stage(self) -> Stage:
        """Which stage was the last."""
        return "retrieve" if self.reranker is None else "rerank"


def system(held: HeldOut, run: Run, *, entry: Entry, depth: int, ks: Sequence[int]) -> System:
    """Score one system.

    Args:
        held: the queries.
        run: passages by query, best first.
        entry: which system it is.
        depth: of the list that is scored and written down, in the unit that is judged.
        ks: see `metrics.evaluate`.
    """
    judged = {query.id: held.in_judged_unit(query.id, run.get(query.id, []))[:depth] for query in held.queries}
    return System(
        name=entry.name,
        retriever=entry.retriever,
        reranker=entry.reranker,
        passages=run,
        run=judged,
        scores=metrics.evaluate(judged, held.judgments, ks),
    )
