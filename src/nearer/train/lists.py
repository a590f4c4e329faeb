"""What the retriever gives the reranker, so that it trains on, and is chosen by, what it will meet.

Negatives from the ranks of the retriever at hand: Gao, Dai & Callan 2021, "Rethink Training of BERT Rerankers in
Multi-Stage Retrieval Pipeline" (ECIR). Random ones before them are our own addition, and so is that they may be held to
the rule of `nearer.ranking.mine` for false negatives.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nearer.models.encode import Embedder
from nearer.ranking import dense
from nearer.records import Hit
from nearer.store import WorkArea
from nearer.train import shard
from nearer.train.rows import Material
from nearer.train.world import World

DEPTH: Final = 100
"""Ranks of a list of candidates that are kept: enough for the best ten documents among them."""
_FILE: Final = "lists.json"
_BATCH_TOKENS: Final = 2048
"""Small batches stay in a CPU's cache; a GPU's memory holds more than these anyway."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The retriever's ranks, best first.

    Args:
        negatives: training query id → keys of texts that may train and do not answer it.
        candidates: validation query id → validation passages, with the retriever's scores.
        suspects: how many texts of the negatives' lists were dropped, because they may be unjudged answers.
        cpu_seconds: that it took to find them, over all processes.
    """

    negatives: Mapping[str, Sequence[str]]
    candidates: Mapping[str, list[Hit]]
    suspects: int
    cpu_seconds: float


def kept_lists(work: WorkArea) -> Lists | None:
    """The lists that this run has begun with, so that it goes on with them; None: it has not begun."""
    if _FILE in work.shared():
        work.bring(_FILE)
    path = work.path / _FILE
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    keys = raw["keys"]
    return Lists(
        negatives={query: [keys[number] for number in ranks] for query, ranks in raw["negatives"].items()},
        candidates={query: [Hit(*pair) for pair in ranks] for query, ranks in raw["candidates"].items()},
        suspects=raw["suspects"],
        cpu_seconds=raw["cpu_seconds"],
    )


def keep_lists(lists: Lists, work: WorkArea) -> None:
    """Leave them for a run that goes on; a negative's key is written once, because it stands in many lists."""
    keys = sorted({key for ranks in lists.negatives.values() for key in ranks})
    number = {key: place for place, key in enumerate(keys)}
    raw = {
        "keys": keys,
        "negatives": {query: [number[key] for key in ranks] for query, ranks in lists.negatives.items()},
        "candidates": lists.candidates,
        "suspects": lists.suspects,
        "cpu_seconds": lists.cpu_seconds,
    }
    temporary = Path(f"{work.path / _FILE}.tmp")
    temporary.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    temporary.rename(work.path / _FILE)
    work.share(_FILE)


def retrieve(
    embedder: Embedder,
    material: Material,
    *,
    depth: int | None,
    passages: int,
    max_share: float | None,
    seed: int,
    world: World,
) -> Lists:
    """Rank validation passages for the validation queries and, unless not asked for, training texts for theirs.

    Args:
        embedder: the retriever.
        material: queries and texts.
        depth: ranks of a list of negatives; None: there are to be none.
        passages: the lists of negatives are over so many texts: mined negatives first, then what validation ranks and
            may train, then a sample of the pool.
        max_share: of the best answer's score, both centred by the mean over all queries and texts; what scores above it
            is taken for an unjudged answer. Where no answer scores above that mean, all texts are. None: nothing is.
        seed: of the sample.
        world: all processes; each encodes its part.
    """
    began = time.process_time()
    validates = material.validation.passages
    answers: dict[str, list[str]] = {query: [] for query in material.queries}
    for row in material.rows:
        answers[row.query_id].append(row.positive)
    trains: list[str] = []
    texts = set(validates)
    if depth is not None:
        trains = _training_texts(material, most=passages, draw=random.Random(f"lists {seed}"))
        texts.update(trains, *answers.values())
    place = {key: row for row, key in enumerate(sorted(texts))}
    vectors = _encode(embedder, [material.texts[key] for key in place], queries=False, world=world)

    def of(keys: Sequence[str]) -> np.ndarray:
        return vectors[[place[key] for key in keys]]

    queries = material.validation.queries
    validated = _encode(embedder, list(queries.values()), queries=True, world=world)
    candidates = dict(zip(queries, dense.search(validated, of(validates), validates, DEPTH), strict=True))
    negatives: dict[str, list[str]] = {}
    suspects = 0
    if depth is not None:
        asked = _encode(embedder, list(material.queries.values()), queries=True, world=world)
        found = _negatives(material, asked, of, trains=trains, answers=answers, depth=depth, max_share=max_share)
        negatives, suspects = found
    return Lists(
        negatives=negatives,
        candidates=candidates,
        suspects=suspects,
        cpu_seconds=sum(world.gather(time.process_time() - began)),
    )


def _negatives(
    material: Material,
    asked: np.ndarray,
    of: Callable[[Sequence[str]], np.ndarray],
    *,
    trains: Sequence[str],
    answers: Mapping[str, Sequence[str]],
    depth: int,
    max_share: float | None,
) -> tuple[dict[str, list[str]], int]:
    """Each query's ranks without answers, and how many suspects were dropped; `asked` and `of` are vectors."""
    zero = float(asked.mean(axis=0, dtype=np.float64) @ of(trains).mean(axis=0, dtype=np.float64))
    negatives: dict[str, list[str]] = {}
    suspects = 0
    found = dense.search(asked, of(trains), trains, depth)
    for query, vector, hits in zip(material.queries, asked, found, strict=True):
        answer = max(0.0, float((of(answers[query]) @ vector).max()) - zero)
        others = [
            hit
            for hit in hits
            if material.relations.is_negative(query, hit.target)
            and not material.relations.repeats_answer(query, hit.target)
        ]
        if max_share is not None:
            believed = [hit for hit in others if answer and hit.score - zero <= max_share * answer]
            suspects += len(others) - len(believed)
            others = believed
        negatives[query] = [hit.target for hit in others]
    return negatives, suspects


def _training_texts(material: Material, *, most: int, draw: random.Random) -> list[str]:
    mined = {key for keys in material.negatives.values() for key in keys}
    others = set(material.pool) - mined
    validates = others.intersection(material.validation.passages)
    found: list[str] = []
    for keys in map(sorted, (mined, validates, others - validates)):
        room = most - len(found)
        found += draw.sample(keys, room) if len(keys) > room else keys
    return sorted(found)


def _encode(embedder: Embedder, texts: list[str], *, queries: bool, world: World) -> np.ndarray:
    if shard.is_whole(embedder.model, world=world):
        encode = embedder.encode_queries if queries else embedder.encode_passages
        return encode(texts, batch_tokens=_BATCH_TOKENS)
    contract = embedder.contract
    prefix = contract.query_prefix if queries else contract.passage_prefix
    longest = contract.max_query_tokens if queries else contract.max_passage_tokens
    return shard.vectors(embedder, texts, prefix=prefix, max_tokens=longest, world=world)
