"""Which queries train and which are held out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nearer.corpus.split import split_groups
from nearer.generate.audit import Audit
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus

RealQueries = Literal["auto", "test", "split"]


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The two parts, in the order of the candidates, and the groups of documents that are held out."""

    train: tuple[Candidate, ...]
    test: tuple[Candidate, ...]
    test_groups: frozenset[str]


def draw(candidates: Sequence[Candidate], *, at_most: int | None, seed: int, audit: Audit) -> list[Candidate]:
    """At most so many of the candidates, drawn with the seed, in their order."""
    if at_most is None or len(candidates) <= at_most:
        return list(candidates)
    chosen = set(random.Random(seed).sample(range(len(candidates)), at_most))
    for place, candidate in enumerate(candidates):
        if place not in chosen:
            audit.drop("not-drawn", query_id=candidate.query.id, text=candidate.query.text)
    return [candidate for place, candidate in enumerate(candidates) if place in chosen]


def choose_sides(
    candidates: Sequence[Candidate],
    corpus: Corpus,
    *,
    real_queries: RealQueries,
    test_share: float,
    seed: int,
    audit: Audit,
) -> Sides:
    """Split the candidates by group of near-duplicate documents.

    `test`: every real query is held out, and with it the groups of the documents that answer it. Other queries that are
    answered there are left out. `split`: groups are drawn until about `test_share` of all queries is held out. `auto`:
    `test` for the real queries that came with a judgment only, when something else is there to train on; queries that
    came with texts to train on (the enhanced file, FlagEmbedding, triplets) train. Else `split`.

    A query whose answers lie on both sides is left out. One whose ideal contexts stand in no document can only train.
    """
    bare = [candidate for candidate in candidates if _is_pinned(candidate, real_queries)]
    others = len(candidates) - len(bare)
    pins = real_queries == "test" or (real_queries == "auto" and bool(bare) and others > 0)
    pinned = {candidate.query.id for candidate in bare} if pins else set()
    groups = {candidate.query.id: _groups(candidate, corpus) for candidate in candidates}
    if pins:
        test_groups = {group for candidate in bare for group in groups[candidate.query.id]}
    else:
        counts = Counter(min(found) for found in groups.values() if found)
        test_groups = split_groups(counts, test_share=test_share, seed=seed)
    audit.facts["real_queries"] = "test" if pins else "split"
    train: list[Candidate] = []
    test: list[Candidate] = []
    for candidate in candidates:
        query, found = candidate.query, groups[candidate.query.id]
        rule = ""
        if query.id in pinned:
            rule = "" if found else "not-in-corpus"
            test += [candidate] if found else []
        elif not found & test_groups:
            train.append(candidate)
        elif not found <= test_groups:
            rule = "spans-train-and-test"
        elif pins and query.origin != "real":
            rule = "answers-from-a-test-document"
        else:
            test.append(candidate)
        if rule:
            detail = "answered in " + ", ".join(candidate.answered_in(corpus)[:3])
            audit.drop(rule, query_id=query.id, text=query.text, detail=detail)
    return Sides(train=tuple(train), test=tuple(test), test_groups=frozenset(test_groups))


def _is_pinned(candidate: Candidate, real_queries: RealQueries) -> bool:
    """Whether it is one of the real queries that `test` holds out."""
    return candidate.query.origin == "real" and (real_queries == "test" or not candidate.paired)


def _groups(candidate: Candidate, corpus: Corpus) -> set[str]:
    return {corpus.groups[document] for document in candidate.answered_in(corpus)}
