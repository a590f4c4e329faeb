"""Kinds of queries, and which passages are asked for which: by the passages' own text, not by their place.

What a passage is asked for depends on the seed and on its own words alone, so that a document that is added, removed
or changed changes no other document's calls.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nearer.generate.corpus import Corpus
from nearer.records import Passage

SINGLE: Final = ("natural", "keyword", "colloquial")
SEVERAL: Final = ("multi_passage", "comparison")
KINDS: Final = (*SINGLE, *SEVERAL)
MIN_CHARACTERS: Final = 40
"""A passage shorter than this answers nothing worth asking. A guess."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One call: passages of one document, and the kinds of queries that are asked for."""

    document: str
    passages: tuple[Passage, ...]
    kinds: tuple[str, ...]


def plan_tasks(
    corpus: Corpus,
    *,
    shares: Mapping[str, float],
    per_passage: int,
    at_most: int | None,
    seed: int,
) -> list[Task]:
    """What is asked of which passages.

    Each passage draws its kinds by the shares. Kinds about several passages take the next passage of the same document
    along; where there is none, a kind about one passage is drawn instead.

    Args:
        corpus: the documents.
        shares: of the kinds; together 1.
        per_passage: queries asked for a passage.
        at_most: so many queries are enough: passages are left out by the hash of their text. None: all.
        seed: of the draws.

    Returns:
        Tasks in the order of the corpus.
    """
    chosen: list[tuple[str, int]] = []
    for document, of_document in corpus.of_document.items():
        for place, id_ in enumerate(of_document):
            if len(corpus.passages[id_].text) >= MIN_CHARACTERS:
                chosen.append((document, place))
    if at_most is not None and (enough := -(-at_most // per_passage)) < len(chosen):
        hashes = {each: text_hash(seed, corpus.passages[corpus.of_document[each[0]][each[1]]].text) for each in chosen}
        kept = set(sorted(chosen, key=lambda each: (hashes[each], each))[:enough])
        chosen = [each for each in chosen if each in kept]
    tasks: list[Task] = []
    for document, place in chosen:
        ids = corpus.of_document[document]
        passage = corpus.passages[ids[place]]
        partner = corpus.passages[ids[place + 1]] if place + 1 < len(ids) else None
        single, several = draw_kinds(passage.text, shares=shares, count=per_passage, alone=partner is None, seed=seed)
        if single:
            tasks.append(Task(document=document, passages=(passage,), kinds=single))
        if several and partner is not None:
            tasks.append(Task(document=document, passages=(passage, partner), kinds=several))
    return tasks


def draw_kinds(
    text: str, *, shares: Mapping[str, float], count: int, alone: bool, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The kinds that a passage is asked for: about itself, and about it and another."""
    draw = random.Random(text_hash(seed, text))
    kinds = [kind for kind in KINDS if shares.get(kind, 0) > 0]
    single = [kind for kind in kinds if kind in SINGLE] or ["natural"]
    drawn = draw.choices(kinds, weights=[shares[kind] for kind in kinds], k=count)
    if alone:
        weights = [shares.get(kind, 0) or 1.0 for kind in single]
        drawn = [kind if kind in SINGLE else draw.choices(single, weights=weights)[0] for kind in drawn]
    return (
        tuple(sorted((kind for kind in drawn if kind in SINGLE), key=KINDS.index)),
        tuple(sorted((kind for kind in drawn if kind in SEVERAL), key=KINDS.index)),
    )


def text_hash(seed: int, text: str) -> str:
    """A number in the disguise of hex digits, by seed and text."""
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()


def shard_of(document: str, *, shards: int) -> int:
    """The shard that makes a document's calls, by the hash of its id."""
    return int(text_hash(0, document)[:15], 16) % shards


def numbered(passages: Sequence[Passage]) -> str:
    """Passages as a prompt shows them, numbered from 1."""
    parts = []
    for number, passage in enumerate(passages, start=1):
        path = f' section="{" > ".join(passage.path)}"' if passage.path else ""
        parts.append(f'<passage n="{number}"{path}>\n{passage.text}\n</passage>')
    return "\n".join(parts)
