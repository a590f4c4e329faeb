"""What a text is to a query: an answer, no answer, or something that nobody may take for either."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nearer.corpus.dataset import Dataset
from nearer.corpus.group import group
from nearer.corpus.sameness import normal

NEAR_IDENTICAL: Final = 0.9
"""Texts whose shingles agree to this Jaccard share are one text to the loss. A guess, on the careful side."""
_TRIES: Final = 20
"""Draws for each random negative that is wanted; a pool that holds nothing for a query gives fewer."""


@dataclass(frozen=True, kw_only=True)
class Relations:
    """Texts are named by their key: the passage id, or a name of our own for a text that stands in no document."""

    same: Mapping[str, str]
    """key → the key that stands for all near-identical texts; a key that is not here stands for itself."""
    answers: Mapping[str, frozenset[str]]
    """query id → `same` of every text that answers it, or answers a query of the same words."""
    judged_documents: Mapping[str, frozenset[str]]
    """query id → documents that answer it as a whole: nobody knows about each of their passages."""
    document_of: Mapping[str, str]
    group_of: Mapping[str, str]
    """key → group of near-duplicate documents."""

    def one(self, key: str) -> str:
        """The key that stands for all texts near-identical to this one."""
        return self.same.get(key, key)

    def is_negative(self, query_id: str, key: str) -> bool:
        """Whether a text may count as not answering a query."""
        return (
            self.one(key) not in self.answers[query_id]
            and self.document_of.get(key) not in self.judged_documents[query_id]
        )

    def repeats_answer(self, query_id: str, key: str) -> bool:
        """Whether a text stands in a near-duplicate of a document that holds an answer, but in none that does."""
        answers = [answer for answer in self.answers[query_id] if answer in self.document_of]
        return self.document_of.get(key) not in {self.document_of[answer] for answer in answers} and (
            self.group_of.get(key) in {self.group_of[answer] for answer in answers}
        )

    def draw_negatives(
        self, query_id: str, count: int, *, pool: Sequence[str], taken: Iterable[str], draw: random.Random
    ) -> list[str]:
        """Different random texts of the pool that may count as negative, none from a group that holds an answer."""
        near = {self.group_of[key] for key in self.answers[query_id] if key in self.group_of}
        used = {self.one(key) for key in taken}
        found: list[str] = []
        for _ in range(_TRIES * count if pool else 0):
            key = draw.choice(pool)
            if self.one(key) in used or self.group_of.get(key) in near or not self.is_negative(query_id, key):
                continue
            found.append(key)
            used.add(self.one(key))
            if len(found) == count:
                break
        return found


def relate(
    dataset: Dataset,
    *,
    texts: Mapping[str, str],
    positives: Mapping[str, Sequence[str]],
    negatives: Mapping[str, Sequence[str]],
    seed: int,
) -> Relations:
    """Find which texts are the same and which answer what.

    Args:
        dataset: for documents, groups and judgments.
        texts: key → text, all that may be used.
        positives: query id → keys that answer it.
        negatives: query id → keys of mined negatives.
        seed: of the search for near-identical texts.
    """
    same = _sameness(
        texts, used=sorted({key for keys in (*positives.values(), *negatives.values()) for key in keys}), seed=seed
    )
    by_words: dict[str, set[str]] = {}
    for query, keys in positives.items():
        by_words.setdefault(normal(dataset.queries[query].text), set()).update(same.get(key, key) for key in keys)
    judged: dict[str, set[str]] = {query: set() for query in positives}
    for judgment in dataset.train:
        if judgment.level == "document" and judgment.query_id in judged and judgment.relevance > 0:
            judged[judgment.query_id].add(judgment.target)
    documents = {key: dataset.passages[key].document_id for key in texts if key in dataset.passages}
    return Relations(
        same=same,
        answers={query: frozenset(by_words[normal(dataset.queries[query].text)]) for query in positives},
        judged_documents={query: frozenset(found) for query, found in judged.items()},
        document_of=documents,
        group_of={key: dataset.groups.get(document, document) for key, document in documents.items()},
    )


def _sameness(texts: Mapping[str, str], *, used: Sequence[str], seed: int) -> dict[str, str]:
    """Equal texts anywhere; near-identical ones among those that are used."""
    first: dict[str, str] = {}
    for key in [*used, *texts]:
        first.setdefault(texts[key], key)
    distinct = {first[texts[key]] for key in used}
    near = group(((key, texts[key]) for key in sorted(distinct)), threshold=NEAR_IDENTICAL, seed=seed)
    stands = {key: near.get(first[text], first[text]) for key, text in texts.items()}
    return {key: one for key, one in stands.items() if one != key}
