"""A dataset as training material: examples, their usable negatives, and what validates.

Nothing of a test document, nor of a near-duplicate of one, is in here; nothing that validates trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nearer.corpus.dataset import Dataset
from nearer.errors import InputError
from nearer.models.contract import render_passage
from nearer.train.holdout import Validation, documents_by_query, groups_by_query, validate_on, validation_queries
from nearer.train.relations import Relations, relate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training example: a query, and the key of a text that answers it."""

    query_id: str
    positive: str


@dataclass(frozen=True, kw_only=True)
class Material:
    """All that a trainer needs of a dataset.

    A text's key is its passage id, or `text:<query id>:<kind>:<number>` for one that stands in no document.
    """

    texts: Mapping[str, str]
    """key → text as a model is given it, without prefix."""
    queries: Mapping[str, str]
    """training query id → text."""
    rows: tuple[Row, ...]
    negatives: Mapping[str, tuple[str, ...]]
    """training query id → keys of its usable hard negatives, hardest first."""
    pool: tuple[str, ...]
    """Keys that random negatives are drawn from."""
    relations: Relations
    validation: Validation


def prepare(
    dataset: Dataset, *, val_split: float, validation_queries_max: int, validation_passages_max: int, seed: int
) -> Material:
    """Divide and render a dataset.

    Args:
        dataset: as generate wrote it.
        val_split: share of the training queries that validate.
        validation_queries_max: at most so many of them are used.
        validation_passages_max: they are ranked against about so many passages.
        seed: of every draw.

    Raises:
        InputError: nothing trains, or nothing is left to validate on.
    """
    held_out = validation_queries(dataset, val_split=val_split, seed=seed)
    texts = _texts(dataset)
    positives = _positives(dataset, texts)
    negatives = {query: _negatives(dataset, query, texts) for query in positives}
    relations = relate(dataset, texts=texts, positives=positives, negatives=negatives, seed=seed)
    groups = groups_by_query(dataset)
    held_out_groups = {name for query in held_out for name in groups[query]}
    training = [query for query in positives if query not in held_out and positives[query]]
    validation = validate_on(
        dataset,
        held_out,
        positives=positives,
        negatives=negatives,
        relations=relations,
        max_queries=validation_queries_max,
        max_passages=validation_passages_max,
        seed=seed,
    )
    if not training or not validation.queries:
        raise InputError(
            f"{len(positives)} training queries about {len(set().union(*groups.values()))} groups of documents "
            f"give {len(training)} to train and {len(validation.queries)} to validate",
            where="val_split",
            rule="at least one of each: whole groups of near-duplicate documents go to one side",
            way_out="generate more queries, or queries about more documents",
        )
    usable = {
        query: tuple(
            key
            for key in negatives[query]
            if relations.group_of.get(key) not in held_out_groups and relations.is_negative(query, key)
        )
        for query in training
    }
    return Material(
        texts=texts,
        queries={query: dataset.queries[query].text for query in training},
        rows=tuple(Row(query_id=query, positive=key) for query in training for key in positives[query]),
        negatives=usable,
        pool=tuple(sorted(key for key, name in relations.group_of.items() if name not in held_out_groups)),
        relations=relations,
        validation=validation,
    )


def _texts(dataset: Dataset) -> dict[str, str]:
    """Every text that may be used: no passage of a group that holds a test document."""
    tested = {
        dataset.passages[judgment.target].document_id if judgment.level == "passage" else judgment.target
        for judgment in dataset.test
    }
    closed = {dataset.groups.get(document, document) for document in tested}
    texts = {
        passage.id: render_passage(dataset.chunking.template, title=passage.title, path=passage.path, text=passage.text)
        for passage in dataset.passages.values()
        if dataset.groups.get(passage.document_id, passage.document_id) not in closed
    }
    for query, found in dataset.positives.items():
        texts |= {f"text:{query}:positive:{number}": text for number, text in enumerate(found)}
    for query, hard in dataset.negatives.items():
        texts |= {
            f"text:{query}:negative:{number}": negative.text
            for number, negative in enumerate(hard)
            if negative.corpus_id is None and negative.text is not None
        }
    return texts


def _positives(dataset: Dataset, texts: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Training query id, in ascending order → keys of the texts that answer it, and may be used."""
    found: dict[str, list[str]] = {query: [] for query in documents_by_query(dataset)}
    for judgment in dataset.train:
        if judgment.level == "passage" and judgment.relevance > 0:
            found[judgment.query_id].append(judgment.target)
    for query, free in dataset.positives.items():
        found[query] += [f"text:{query}:positive:{number}" for number in range(len(free))]
    return {query: tuple(key for key in dict.fromkeys(sorted(keys)) if key in texts) for query, keys in found.items()}


def _negatives(dataset: Dataset, query: str, texts: Mapping[str, str]) -> tuple[str, ...]:
    keys = [
        negative.corpus_id if negative.corpus_id is not None else f"text:{query}:negative:{number}"
        for number, negative in enumerate(dataset.negatives.get(query, ()))
    ]
    return tuple(key for key in dict.fromkeys(keys) if key in texts)
