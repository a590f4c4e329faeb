"""Recall@K and Precision@K as the guide defines them: by snippet.

Its ideal contexts are texts without ids, "taken from retrieved documents". Recall@K is the fraction of a query's ideal
contexts that are found in the first K results, Precision@K the fraction of the first K results that are ideal
contexts. A snippet is found when a passage that it stands in is found; one that stands in no document cannot be
found by any system: it is counted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearer.records import Run

Contexts = Mapping[str, Sequence[Sequence[str]]]
"""query id → of each snippet, the passages that it stands in."""


def by_snippet(run: Run, contexts: Contexts, ks: Sequence[int]) -> dict[str, float]:
    """Mean R@K and P@K over the queries that have a snippet that stands in a document.

    Args:
        run: passages by query, best first.
        contexts: of the queries.
        ks: ranks K.
    """
    linked = {query: [set(one) for one in found if one] for query, found in contexts.items()}
    linked = {query: found for query, found in linked.items() if found}
    values: dict[str, float] = {}
    for k in sorted(set(ks)) if linked else ():
        tops = {query: [hit.target for hit in run.get(query, [])[:k]] for query in linked}
        recall = [sum(not one.isdisjoint(tops[query]) for one in found) / len(found) for query, found in linked.items()]
        hits = [sum(target in set().union(*found) for target in tops[query]) / k for query, found in linked.items()]
        values |= {f"R@{k}": sum(recall) / len(recall), f"P@{k}": sum(hits) / len(hits)}
    return {name: values[name] for name in sorted(values, key=lambda name: (name[0] != "R", int(name[2:])))}


def counts(contexts: Contexts) -> dict[str, Any]:
    """How many queries and snippets there are, and how many of the snippets stand in no document."""
    total = sum(len(found) for found in contexts.values())
    unlinked = sum(not one for found in contexts.values() for one in found)
    scored = sum(any(found) for found in contexts.values())
    return {"queries": len(contexts), "queries_scored": scored, "snippets": total, "unlinked": unlinked}
