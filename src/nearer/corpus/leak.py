"""Whether anything of the test part can be learnt from the train part; asked of the finished dataset, after the fact.

Near-duplicates are looked for again from the passages' texts, so a wrong group in the dataset does not hide them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nearer.corpus.dataset import Dataset
from nearer.corpus.group import group
from nearer.corpus.link import Linker
from nearer.corpus.sameness import normal
from nearer.records import Judgment


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Something on the train side and its like on the test side, by their ids."""

    kind: Literal["query", "document", "near-duplicate", "negative", "text"]
    train: str
    test: str

    def __str__(self) -> str:
        words = {
            "query": "the train query {train} asks what the test query {test} asks",
            "document": "the document {test} answers train and test queries",
            "near-duplicate": "the train document {train} nearly repeats the test document {test}",
            "negative": "a hard negative of the train query {train} is a passage of the test document {test}",
            "text": "a training text of the query {train} stands in the test document {test}",
        }
        return words[self.kind].format(train=self.train, test=self.test)


def find_leaks(dataset: Dataset, *, near_duplicate: float, seed: int) -> list[Leak]:
    """All leaks from test to train, in a fixed order; an empty list is what a dataset should have.

    Args:
        dataset: train and test part over one corpus.
        near_duplicate: Jaccard similarity from which on two documents are the same, as `generate.near_duplicate`.
        seed: as that of the grouping.
    """
    train, test = _documents(dataset, dataset.train), _documents(dataset, dataset.test)
    return [
        *_same_queries(dataset),
        *(Leak(kind="document", train=document, test=document) for document in train if document in test),
        *_near_duplicates(dataset, train, test, near_duplicate=near_duplicate, seed=seed),
        *_training_texts(dataset, test),
    ]


def _documents(dataset: Dataset, judgments: Iterable[Judgment]) -> dict[str, None]:
    """Ids of the documents that are judged, directly or through a passage, in order."""
    return dict.fromkeys(
        judgment.target if judgment.level == "document" else dataset.passages[judgment.target].document_id
        for judgment in judgments
    )


def _same_queries(dataset: Dataset) -> list[Leak]:
    by_text: dict[str, str] = {}
    for judgment in dataset.test:
        by_text.setdefault(normal(dataset.queries[judgment.query_id].text), judgment.query_id)
    train = dict.fromkeys((*(judgment.query_id for judgment in dataset.train), *dataset.positives))
    texts = {query: normal(dataset.queries[query].text) for query in train}
    return [Leak(kind="query", train=query, test=by_text[text]) for query, text in texts.items() if text in by_text]


def _near_duplicates(
    dataset: Dataset, train: Mapping[str, None], test: Mapping[str, None], *, near_duplicate: float, seed: int
) -> list[Leak]:
    texts: dict[str, list[str]] = {}
    for passage in dataset.passages.values():
        if passage.document_id in train or passage.document_id in test:
            texts.setdefault(passage.document_id, []).append(passage.text)
    joined = ((document, "\n".join(parts)) for document, parts in texts.items())
    found = group(joined, threshold=near_duplicate, seed=seed)
    of_test: dict[str, str] = {}
    for document in test:
        of_test.setdefault(found[document], document)
    return [
        Leak(kind="near-duplicate", train=document, test=of_test[found[document]])
        for document in train
        if found[document] in of_test and document not in test
    ]


def _training_texts(dataset: Dataset, test: Mapping[str, None]) -> list[Leak]:
    leaks = []
    texts: list[tuple[str, str]] = [(query, text) for query, many in dataset.positives.items() for text in many]
    for query, negatives in dataset.negatives.items():
        for negative in negatives:
            if negative.corpus_id is not None:
                document = dataset.passages[negative.corpus_id].document_id
                if document in test:
                    leaks.append(Leak(kind="negative", train=query, test=document))
            elif negative.text is not None:
                texts.append((query, negative.text))
    return leaks + (_standing_in_test(dataset, texts, test) if texts else [])


def _standing_in_test(dataset: Dataset, texts: Sequence[tuple[str, str]], test: Mapping[str, None]) -> list[Leak]:
    passages = {id_: passage for id_, passage in dataset.passages.items() if passage.document_id in test}
    linker = Linker(passages.values())
    found = ((query, linker.link(text)) for query, text in texts)
    return [
        Leak(kind="text", train=query, test=passages[link.passages[0]].document_id)
        for query, link in found
        if link is not None and link.kind == "exact"
    ]
