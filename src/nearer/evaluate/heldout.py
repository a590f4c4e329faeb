"""The held-out part of a dataset: which queries are asked, and what answers them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nearer.corpus.dataset import Dataset
from nearer.errors import InputError
from nearer.ranking import metrics
from nearer.records import Hit, Passage, Query


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Test queries that can be scored, in ascending order of id, over the whole corpus."""

    passages: dict[str, Passage]
    """In the order of the dataset: the vectors that `generate` left in the cache are found by their order."""
    queries: tuple[Query, ...]
    judgments: dict[str, dict[str, int]]
    """query id → target (passage, or document for queries in `on_documents`) → relevance."""
    on_documents: frozenset[str]
    ideal_contexts: dict[str, tuple[tuple[str, ...], ...]]
    """query id → of each snippet that somebody named as ideal, the passages that it stands in."""
    groups: dict[str, str]
    """query id → group of near-duplicate documents that its answers stand in."""
    unscored: int
    """Test queries without a relevant target."""
    left_out: int
    """Test queries that a limit left out."""

    def origins(self) -> dict[str, int]:
        """How many queries come from where, in alphabetical order."""
        return dict(sorted(Counter(query.origin for query in self.queries).items()))

    def in_judged_unit(self, query_id: str, hits: Sequence[Hit]) -> list[Hit]:
        """A list of passages as it is scored: of documents, for a query that is judged on documents."""
        if query_id not in self.on_documents:
            return list(hits)
        return metrics.to_documents(hits, lambda passage: self.passages[passage].document_id)


def held_out(dataset: Dataset, *, max_queries: int | None, seed: int) -> HeldOut:
    """The test part of a dataset.

    Args:
        dataset: as `generate` made it.
        max_queries: at most so many, drawn with the seed.
        seed: of the draw.

    Raises:
        InputError: the test part is empty, or judges what is not in the corpus.
    """
    documents = {passage.document_id for passage in dataset.passages.values()}
    for judgment in dataset.test:
        known = dataset.passages if judgment.level == "passage" else documents
        if judgment.target not in known or judgment.query_id not in dataset.queries:
            raise InputError(
                f"test judgment of query {judgment.query_id!r} on unknown {judgment.level} {judgment.target!r}",
                rule="judgments name queries and targets of the dataset",
                way_out="make the dataset again: nearer generate --overwrite",
            )

    def document_of(passage: str) -> str:
        return dataset.passages[passage].document_id

    judgments = metrics.relevant(dataset.test, document_of)
    asked = {judgment.query_id for judgment in dataset.test}
    if not judgments:
        raise InputError(
            f"the dataset has no test query to score ({len(asked)} test queries, none with a relevant target)",
            rule="at least one judged query in qrels/test.tsv or qrels/test.documents.tsv",
            way_out="give `generate` more queries, or a larger test_share",
        )
    chosen = sorted(judgments)
    if max_queries is not None and max_queries < len(chosen):
        chosen = sorted(random.Random(seed).sample(chosen, max_queries))
    on_documents = metrics.on_documents(dataset.test) & set(chosen)
    groups = {}
    for query in chosen:
        targets = [target for target, relevance in judgments[query].items() if relevance > 0]
        found = targets if query in on_documents else [document_of(target) for target in targets]
        groups[query] = min(dataset.groups.get(document, document) for document in found)
    return HeldOut(
        passages=dataset.passages,
        queries=tuple(dataset.queries[query] for query in chosen),
        judgments={query: judgments[query] for query in chosen},
        on_documents=on_documents,
        ideal_contexts={query: dataset.ideal_contexts[query] for query in chosen if query in dataset.ideal_contexts},
        groups=groups,
        unscored=len(asked) - len(judgments),
        left_out=len(judgments) - len(chosen),
    )
