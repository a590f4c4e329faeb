"""Second stage: every system's passages, and how long its reranker takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearer import process
from nearer.evaluate.first import Caches, Model, rendered, reranker_seconds
from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.lineup import Lineup
from nearer.evaluate.protocol import Protocol
from nearer.evaluate.rerank import pairs_of, rerank, score_pairs
from nearer.evaluate.runs import Kept, cached, digest
from nearer.progress import Progress
from nearer.records import Run


@dataclass(frozen=True, kw_only=True)
class Reranked:
    """What the second stage found.

    Args:
        passages: by system, best first, as they are judged.
        alone: by system with a reranker that counts, in the order of the reranker's own scores.
        weights: by role of the reranker: what it counted beside the list that it was given.
    """

    passages: dict[str, Run]
    alone: dict[str, Run]
    weights: dict[str, float]


def second_stage(
    held: HeldOut,
    line: Lineup,
    *,
    runs: Mapping[str, Run],
    seconds: dict[str, tuple[float, ...]],
    rerankers: Mapping[str, Model],
    plan: Protocol,
    positions: Sequence[int],
    caches: Caches,
    progress: Progress,
) -> Reranked:
    """The passages of every system, best first; adds the rerankers' seconds to those that are known."""
    alone: dict[str, Run] = {}
    weights: dict[str, float] = {}
    found = {one.name: runs[one.retriever] for one in line.entries if one.reranker is None}
    for role, model in rerankers.items():
        process.STOP.check()
        entries = [one for one in line.entries if one.reranker == role]
        if not entries:
            continue
        if role in line.muted:  # what it would say changes nothing, and costs more than all else
            weights[role] = 0.0
            found |= {one.name: runs[one.retriever] for one in entries}
            continue
        reranker = model.load()
        queries = {query.id: query.text for query in held.queries}
        texts = rendered(held, reranker.contract.passage_template)
        scores = score_pairs(
            reranker,
            pairs_of([runs[one.retriever] for one in entries], depth=plan.rerank_depth),
            queries=queries,
            passages=texts,
            directory=caches.pair_scores,
            batch_tokens=plan.batch_tokens,
            progress=progress,
            name=role,
        )
        chosen = reranker.contract.rerank_weight if plan.rerank_weight is None else plan.rerank_weight
        weights[role] = weight = 1.0 if chosen is None else chosen
        for one in entries:
            found[one.name] = rerank(runs[one.retriever], scores, depth=plan.rerank_depth, weight=weight)
            alone[one.name] = rerank(runs[one.retriever], scores, depth=plan.rerank_depth)
        asked = [held.queries[position].id for position in positions]
        lists = [
            [(queries[query], texts[hit.target]) for hit in runs[entries[-1].retriever][query][: plan.rerank_depth]]
            for query in asked
        ]
        identity = {
            "kind": "speed",
            "model": model.identity,
            "depth": plan.rerank_depth,
            "corpus": digest(held),
            "asked": asked,
        }

        def timing(reranker: Any = reranker, lists: Any = lists) -> Kept:
            return Kept(run={}, seconds=reranker_seconds(reranker, lists, batch_tokens=plan.batch_tokens))

        seconds[role] = cached(caches.runs, identity=identity, compute=timing).seconds
    return Reranked(passages=found, alone=alone, weights=weights)
