"""Parts of the queries, so that a gain on average does not hide a loss somewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.systems import System
from nearer.ranking.compare import Comparison, compare
from nearer.records import Query

SMALL: Final = 30
"""Groups of documents below which a slice is too small to say anything: the usual rule of thumb for a mean."""
_MOST_SOURCES: Final = 10
"""Sources beyond the largest ones are one slice."""
_WORDS: Final = ((1, 2), (3, 5), (6, None))
_CHARACTERS: Final = ((0, 199), (200, 499), (500, None))


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the queries: what they have in common, and how the candidate differs from the baseline on them."""

    kind: str
    value: str
    comparison: Comparison

    @property
    def small(self) -> bool:
        """Whether it is too small to be judged."""
        return self.comparison.groups < SMALL

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "value": self.value, "small": self.small, **asdict(self.comparison)}


def slices(
    held: HeldOut,
    *,
    queries: Sequence[str],
    before: System,
    after: System,
    measure: str,
    confidence: float,
    seed: int,
) -> list[Slice]:
    """The queries by kind, source of the answer, length of the query and of the answer, and level of the judgment.

    A division in which all queries are alike is left out.

    Args:
        held: all queries.
        queries: those that count.
        before: the baseline.
        after: the candidate.
        measure: by which they are compared.
        confidence: of the intervals.
        seed: of the draws.
    """
    wanted = set(queries)
    asked = [query for query in held.queries if query.id in wanted]
    lengths, sources = _answers(held)
    common = sorted(set(sources.values()), key=lambda name: (-list(sources.values()).count(name), name))[:_MOST_SOURCES]
    divisions: dict[str, Callable[[Query], str]] = {
        "kind of query": lambda query: query.origin,
        "source of the answer": lambda query: sources[query.id] if sources[query.id] in common else "other sources",
        "words of the query": lambda query: _bin(len(query.text.split()), _WORDS),
        "characters of the answer": lambda query: _bin(lengths[query.id], _CHARACTERS),
        "judged on": lambda query: "whole documents" if query.id in held.on_documents else "passages",
    }
    found = []
    for kind, value_of in divisions.items():
        members: dict[str, list[str]] = {}
        for query in asked:
            members.setdefault(value_of(query), []).append(query.id)
        if len(members) < 2:
            continue
        for value, ids in sorted(members.items()):
            old, new = ({id_: side.scores.per_query[id_][measure] for id_ in ids} for side in (before, after))
            comparison = compare(old, new, held.groups, seed, confidence=confidence)
            found.append(Slice(kind=kind, value=value, comparison=comparison))
    return found


def _answers(held: HeldOut) -> tuple[dict[str, int], dict[str, str]]:
    """Of each query: mean characters of the relevant passages (of all passages of relevant documents), and a source."""
    of_document: dict[str, list[str]] = {}
    for passage in held.passages.values():
        of_document.setdefault(passage.document_id, []).append(passage.id)
    lengths, sources = {}, {}
    for query, targets in held.judgments.items():
        relevant = [target for target, relevance in targets.items() if relevance > 0]
        if query in held.on_documents:
            relevant = [passage for document in relevant for passage in of_document[document]]
        passages = [held.passages[target] for target in relevant]
        lengths[query] = round(sum(len(passage.text) for passage in passages) / len(passages))
        sources[query] = min(passage.source for passage in passages) or "unknown"
    return lengths, sources


def _bin(value: int, bins: Sequence[tuple[int, int | None]]) -> str:
    for low, high in bins:
        if high is None or value <= high:
            return f"{low} and more" if high is None else f"{low} to {high}"
    raise AssertionError
