"""Whether a model may have learnt from what it is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nearer.corpus.dataset import Dataset
from nearer.corpus.leak import find_leaks


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """`leaks`: each as a sentence. `unknown`: what could not be looked into, each as a sentence."""

    leaks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def leakage(test: Dataset, trained_on: Mapping[str, Dataset | None], *, near_duplicate: float, seed: int) -> Leakage:
    """Look for test queries, test documents and their near-duplicates in everything that trained the models.

    Args:
        test: the dataset whose test part is asked; its own train part is looked into as well.
        trained_on: the dataset of each model that was trained on another one, by role; None: it is not there any more.
        near_duplicate: see `corpus.leak.find_leaks`.
        seed: likewise.
    """
    options: dict[str, Any] = {"near_duplicate": near_duplicate, "seed": seed}
    leaks = [str(leak) for leak in find_leaks(test, **options)]
    for role, train in trained_on.items():
        if train is not None:
            leaks += [f"{role}: {leak}" for leak in find_leaks(_joined(train, test), **options)]
    unknown = [
        f"the {role} model was trained on a dataset that is not there any more"
        for role, one in trained_on.items()
        if not one
    ]
    return Leakage(leaks=tuple(leaks), unknown=tuple(unknown))


def _joined(train: Dataset, test: Dataset) -> Dataset:
    """The train part of one dataset and the test part of another. Ids of the former are marked: they may be others'."""

    def mark(name: str) -> str:
        return f"train/{name}"

    passages = {
        mark(id_): replace(passage, id=mark(id_), document_id=mark(passage.document_id))
        for id_, passage in train.passages.items()
    }
    queries = {mark(id_): replace(query, id=mark(id_)) for id_, query in train.queries.items()}
    negatives = {
        mark(query): tuple(
            replace(one, corpus_id=None, text=train.passages[one.corpus_id].text) if one.corpus_id else one
            for one in found
        )
        for query, found in train.negatives.items()
    }
    return Dataset(
        passages={**test.passages, **passages},
        queries={**test.queries, **queries},
        train=tuple(replace(one, query_id=mark(one.query_id), target=mark(one.target)) for one in train.train),
        test=test.test,
        positives={mark(query): texts for query, texts in train.positives.items()},
        negatives=negatives,
    )
