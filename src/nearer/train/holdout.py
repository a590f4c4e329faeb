"""Which training queries validate, and on what: the same for every model that is trained on a dataset."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nearer.corpus.dataset import Dataset
from nearer.corpus.split import split_groups
from nearer.records import Judgment
from nearer.train.relations import Relations

CANDIDATES: Final = 5
"""A validation query with fewer mined negatives is given random ones up to so many, so that there is something to
rerank."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Queries that do not train, and what they are ranked against."""

    queries: Mapping[str, str]
    """query id → text."""
    judgments: tuple[Judgment, ...]
    passages: tuple[str, ...]
    """Keys that an embedder ranks: all answers, hard negatives, and a sample of the corpus."""
    candidates: Mapping[str, tuple[str, ...]]
    """query id → keys that a reranker ranks: its answers and its hard negatives."""
    document_of: Mapping[str, str]
    """key → document, for queries that are judged on documents; a text of no document stands for itself."""
    alike: bool = False
    """Whether its queries are of the kind that the test's are: real ones, or the test has none either."""


def documents_by_query(dataset: Dataset) -> dict[str, frozenset[str]]:
    """Training queries in ascending order, each with the documents that answer it."""
    found: dict[str, set[str]] = {query: set() for query in dataset.positives}
    for judgment in dataset.train:
        documents = found.setdefault(judgment.query_id, set())
        if judgment.relevance > 0:
            passage = dataset.passages.get(judgment.target)
            documents.add(passage.document_id if judgment.level == "passage" and passage else judgment.target)
    return {query: frozenset(found[query]) for query in sorted(found)}


def groups_by_query(dataset: Dataset) -> dict[str, frozenset[str]]:
    """Training queries, each with the groups of its documents; one that no document answers is a group of its own."""
    return {
        query: frozenset(dataset.groups.get(document, document) for document in documents)
        or frozenset({f"query:{query}"})
        for query, documents in documents_by_query(dataset).items()
    }


def validation_queries(dataset: Dataset, *, val_split: float, seed: int) -> frozenset[str]:
    """Ids of the training queries that validate: about `val_split` of them, in whole groups of near-duplicates.

    Groups that one query ties together, because it is answered in both, stay together.
    """
    groups = groups_by_query(dataset)
    lump = _tie(groups.values())
    size: dict[str, int] = {}
    for tied in groups.values():
        size[lump[min(tied)]] = size.get(lump[min(tied)], 0) + 1
    held_out = split_groups(size, test_share=val_split, seed=seed)
    return frozenset(query for query, tied in groups.items() if lump[min(tied)] in held_out)


def validate_on(
    dataset: Dataset,
    queries: Iterable[str],
    *,
    positives: Mapping[str, Sequence[str]],
    negatives: Mapping[str, Sequence[str]],
    relations: Relations,
    max_queries: int,
    max_passages: int,
    seed: int,
) -> Validation:
    """Draw the validation queries and the passages that they are ranked against.

    Args:
        dataset: for the judgments.
        queries: ids that may validate; those without an answer that may be used are left out.
        positives: query id → keys that answer it.
        negatives: query id → keys of its mined negatives.
        relations: what may count as a negative.
        max_queries: at most so many queries.
        max_passages: at most so many passages, but all answers and hard negatives of the chosen queries.
        seed: of the draws.
    """
    draw = random.Random(f"validation {seed}")
    able = sorted(query for query in queries if positives[query])
    chosen = sorted(draw.sample(able, max_queries)) if len(able) > max_queries else able
    judgments = [Judgment(query_id=query, target=key) for query in chosen for key in positives[query]]
    judgments += [
        Judgment(query_id=query, target=document, level="document")
        for query in chosen
        for document in sorted(relations.judged_documents[query])
    ]
    corpus = sorted(relations.document_of)
    candidates: dict[str, tuple[str, ...]] = {}
    needed: set[str] = set()
    for query in chosen:
        hard = [key for key in negatives[query] if relations.is_negative(query, key)]
        fill = max(0, CANDIDATES - len(hard))
        hard += relations.draw_negatives(query, fill, pool=corpus, taken=hard, draw=draw)
        candidates[query] = tuple(sorted({*positives[query], *hard}))
        needed.update(candidates[query])
        judged = relations.judged_documents[query]
        needed.update(key for key in corpus if judged and relations.document_of[key] in judged)
    others = [key for key in corpus if key not in needed]
    room = max(0, max_passages - len(needed))
    sample = draw.sample(others, room) if len(others) > room else others
    passages = tuple(sorted({*needed, *sample}))
    tested = {dataset.queries[judgment.query_id].origin for judgment in dataset.test}
    return Validation(
        queries={query: dataset.queries[query].text for query in chosen},
        judgments=tuple(judgments),
        passages=passages,
        candidates=candidates,
        document_of={key: relations.document_of.get(key, key) for key in passages},
        alike="real" not in tested or all(dataset.queries[query].origin == "real" for query in chosen),
    )


def _tie(sets: Iterable[frozenset[str]]) -> dict[str, str]:
    """Group → the smallest name among all groups that are tied to it."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for tied in sets:
        first = root(min(tied))
        for name in tied:
            low, high = sorted((first, root(name)))
            parents[high] = first = low
    return {name: root(name) for name in parents}
