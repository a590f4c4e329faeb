"""The pairs on which PyTorch and ONNX must agree: held-out queries with the passages that a reranker gets to see."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nearer.corpus.dataset import Dataset
from nearer.models.contract import render_passage
from nearer.progress import Progress
from nearer.ranking.bm25 import Bm25
from nearer.records import Passage

PER_QUERY: Final = 10
_NEIGHBOURS: Final = 5  # of the ten: what a first stage would have retrieved; the rest are positives, negatives, random
_POOL: Final = 1000  # passages that BM25 analyses, about a second's work; a guess at what gives near enough neighbours


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """One query and the rendered passages that are ranked for it."""

    query: str
    passages: tuple[str, ...]


def dataset_candidates(
    dataset: Dataset, *, template: str, pairs: int, seed: int, progress: Progress
) -> list[Candidates]:
    """Seeded queries of the test part, each with a judged passage, its negatives, BM25 neighbours and random passages.

    Args:
        dataset: whose test queries are taken; its training queries if it has no test queries.
        template: of the contract; renders the passages.
        pairs: how many pairs in all, in lists of up to ten.
        seed: of the draws.
        progress: hears of the morpheme analysis.

    Returns:
        At least one query where the dataset has judgments.
    """
    draw = random.Random(seed)
    by_document: dict[str, list[str]] = {}
    for passage in dataset.passages.values():
        by_document.setdefault(passage.document_id, []).append(passage.id)
    positives: dict[str, str] = {}
    for judgment in sorted(dataset.test or dataset.train, key=lambda one: (one.query_id, one.target)):
        targets = by_document.get(judgment.target, []) if judgment.level == "document" else [judgment.target]
        if targets and judgment.relevance > 0:
            positives.setdefault(judgment.query_id, targets[0])
    chosen = draw.sample(sorted(positives), min(len(positives), max(1, -(-pairs // PER_QUERY))))
    pool = sorted(draw.sample(sorted(dataset.passages), min(len(dataset.passages), _POOL)))
    bm25 = Bm25(pool, [_render(dataset.passages[passage], template) for passage in pool], progress=progress)
    neighbours = bm25.search([dataset.queries[query].text for query in chosen], _NEIGHBOURS)
    candidates = []
    for query, hits in zip(chosen, neighbours, strict=True):
        mined = [one.corpus_id for one in dataset.negatives.get(query, ()) if one.corpus_id in dataset.passages]
        strangers = draw.sample(pool, min(len(pool), PER_QUERY))
        names = dict.fromkeys([positives[query], *mined[:2], *(hit.target for hit in hits), *strangers])
        texts = [_render(dataset.passages[name], template) for name in names if name is not None]
        candidates.append(Candidates(query=dataset.queries[query].text, passages=tuple(texts[:PER_QUERY])))
    return candidates


def vocabulary_candidates(vocabulary: Mapping[str, int], *, pairs: int, seed: int) -> list[Candidates]:
    """Pairs of random words of the tokenizer's vocabulary, for want of a dataset. They mean nothing.

    Args:
        vocabulary: token to id.
        pairs: how many pairs in all, in lists of ten.
        seed: of the draws.
    """
    draw = random.Random(seed)
    words = sorted(word for word in (token.strip("▁#Ġ") for token in vocabulary) if len(word) > 1 and word.isalnum())

    def text(longest: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(2, longest)))

    return [
        Candidates(query=text(8), passages=tuple(text(120) for _ in range(PER_QUERY)))
        for _ in range(max(1, -(-pairs // PER_QUERY)))
    ]


def flat(candidates: Sequence[Candidates]) -> list[tuple[str, str]]:
    """All (query, passage) pairs, in order."""
    return [(one.query, passage) for one in candidates for passage in one.passages]


def _render(passage: Passage, template: str) -> str:
    return render_passage(template, title=passage.title, path=passage.path, text=passage.text)
