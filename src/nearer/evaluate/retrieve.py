"""First stage: every query against every passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from nearer.evaluate.heldout import HeldOut
from nearer.records import Hit

Search = Callable[[Sequence[int], int], list[list[Hit]]]
"""`(positions of queries, k) -> the k best passages of each`."""

_DEEPER: Final = 4


def retrieve(held: HeldOut, search: Search, *, depth: int, documents: int) -> dict[str, list[Hit]]:
    """The best passages of each query.

    Args:
        held: the queries.
        search: one retriever over the whole corpus.
        depth: passages a query.
        documents: a query that is judged on documents gets as many passages more as it takes to see so many different
            documents; otherwise a few long documents could fill its list and R@10 would not be exact.

    Returns:
        query id → passages, best first.
    """
    run: dict[str, list[Hit]] = {}
    pending, k = list(range(len(held.queries))), depth
    while pending:
        found = dict(zip(pending, search(pending, k), strict=True))
        run.update((held.queries[index].id, hits) for index, hits in found.items())
        pending = [
            index
            for index, hits in found.items()
            if held.queries[index].id in held.on_documents
            and len(hits) == k < len(held.passages)
            and len(held.in_judged_unit(held.queries[index].id, hits)) < documents
        ]
        k *= _DEEPER
    return {query.id: run[query.id] for query in held.queries}
