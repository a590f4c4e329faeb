"""The systems side by side: which there are, what each retrieves and reorders, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from nearer.evaluate.heldout import HeldOut
from nearer.ranking import metrics
from nearer.ranking.compare import compare
from nearer.ranking.metrics import Scores
from nearer.records import Run

Stage = Literal["retrieve", "rerank"]

_EMBEDDERS: Final = (("base", "tuned"), ("incumbent", "tuned"), ("bm25", "tuned"))
RERANKERS: Final = ("base_reranker", "reranker")


@dataclass(frozen=True, kw_only=True)
class System:
    """A retriever, or a retriever with a reranker after it."""

    name: str
    stage: Stage
    retriever: str
    reranker: str | None
    run: Run
    """In the unit that is judged, as deep as it was retrieved."""
    scores: Scores


def system(held: HeldOut, run: Run, *, retriever: str, reranker: str | None, depth: int, ks: Sequence[int]) -> System:
    """Score one system.

    Args:
        held: the queries.
        run: passages by query, best first.
        retriever: `bm25`, `base`, `tuned` or `incumbent`.
        reranker: `base_reranker`, `reranker`, or None.
        depth: of the list that is scored and written down, in the unit that is judged.
        ks: see `metrics.evaluate`.
    """
    judged = {query.id: held.in_judged_unit(query.id, run.get(query.id, []))[:depth] for query in held.queries}
    return System(
        name=retriever if reranker is None else f"{retriever}+{reranker}",
        stage="retrieve" if reranker is None else "rerank",
        retriever=retriever,
        reranker=reranker,
        run=judged,
        scores=metrics.evaluate(judged, held.judgments, ks),
    )


def comparisons(systems: Sequence[System], groups: Mapping[str, str], *, seed: int) -> list[dict[str, Any]]:
    """Every before and after among the systems, by every measure, `base` and `tuned` first.

    Embedders are compared alone; a reranker is compared with the list that it was given, and after with before.
    """
    by_name = {system.name: system for system in systems}
    pairs = list(_EMBEDDERS)
    for retriever in dict.fromkeys(system.retriever for system in systems):
        before, after = (f"{retriever}+{reranker}" for reranker in RERANKERS)
        pairs += [(retriever, before), (retriever, after), (before, after)]
    found = []
    for before, after in pairs:
        if before not in by_name or after not in by_name:
            continue
        old, new = by_name[before].scores, by_name[after].scores
        measures = {}
        for measure, mean in old.mean.items():
            change = compare(
                {query: values[measure] for query, values in old.per_query.items()},
                {query: values[measure] for query, values in new.per_query.items()},
                groups,
                seed,
            )
            measures[measure] = {"before": mean, "after": new.mean[measure], **asdict(change)}
        found.append({"before": before, "after": after, "measures": measures})
    return found
