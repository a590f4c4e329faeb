"""Single queries, for people: where the candidate gained most and lost most, with what was retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.systems import System

_CASES: Final = 10
_SHOWN: Final = 3
_CHARACTERS: Final = 240


def cases(
    held: HeldOut, *, queries: Sequence[str], before: System, after: System, measure: str
) -> dict[str, list[dict[str, Any]]]:
    """The queries that improved most and those that were harmed most; ties by ascending id.

    Args:
        held: all queries.
        queries: those that count.
        before: the baseline.
        after: the candidate.
        measure: by which they are compared.
    """

    def gain(query: str) -> float:
        return after.scores.per_query[query][measure] - before.scores.per_query[query][measure]

    ordered = sorted(queries, key=lambda query: (-gain(query), query))
    improved = [query for query in ordered[:_CASES] if gain(query) > 0]
    harmed = [query for query in sorted(queries, key=lambda query: (gain(query), query))[:_CASES] if gain(query) < 0]
    texts = {query.id: query.text for query in held.queries}

    def case(query: str) -> dict[str, Any]:
        return {
            "query_id": query,
            "query": texts[query],
            "before": before.scores.per_query[query][measure],
            "after": after.scores.per_query[query][measure],
            "wanted": [
                _target(held, name, query) for name, relevance in _wanted(held, query)[:_SHOWN] if relevance > 0
            ],
            "found_before": _found(held, before, query),
            "found_after": _found(held, after, query),
        }

    return {"improved": [case(query) for query in improved], "harmed": [case(query) for query in harmed]}


def _wanted(held: HeldOut, query: str) -> list[tuple[str, int]]:
    return sorted(held.judgments[query].items(), key=lambda item: (-item[1], item[0]))


def _found(held: HeldOut, system: System, query: str) -> list[dict[str, Any]]:
    relevant = {target for target, relevance in held.judgments[query].items() if relevance > 0}
    first = next((rank for rank, hit in enumerate(system.run[query], start=1) if hit.target in relevant), None)
    hits = [
        {"rank": rank, "relevant": hit.target in relevant, **_target(held, hit.target, query)}
        for rank, hit in enumerate(system.run[query][:_SHOWN], start=1)
    ]
    if first is not None and first > _SHOWN:
        hits.append({"rank": first, "relevant": True, **_target(held, system.run[query][first - 1].target, query)})
    return hits


def _target(held: HeldOut, target: str, query: str) -> dict[str, str]:
    """Id, title and the beginning of the text of a passage, or of a document's first passage."""
    passage = held.passages.get(target) if query not in held.on_documents else None
    passage = passage or next((one for one in held.passages.values() if one.document_id == target), None)
    if passage is None:
        return {"id": target, "title": "", "text": ""}
    text = " ".join(passage.text.split())
    title = " › ".join(part for part in (passage.title, *passage.path) if part)
    return {
        "id": target,
        "title": title,
        "text": text if len(text) <= _CHARACTERS else text[:_CHARACTERS].rstrip() + " …",
    }
