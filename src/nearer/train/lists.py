"""What the retriever gives the reranker, so that it trains on, and is chosen by, what it will meet.

Negatives from the ranks of the retriever at hand: Gao, Dai & Callan 2021, "Rethink Training of BERT Rerankers in
Multi-Stage Retrieval Pipeline" (ECIR). Random ones before them are our own addition. They are not held to the rule of
`nearer.ranking.mine` for false negatives: a retriever that still puts much above the answers would take its own
mistakes out of the lists (docs/log.md, 2026-11-28), which are what the reranker is for.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
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
        cpu_seconds: that it took to find them, over all processes.
    """

    negatives: Mapping[str, Sequence[str]]
    candidates: Mapping[str, list[Hit]]
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
        seed: of the sample.
        world: all processes; each encodes its part.
    """
    began = time.process_time()
    validates = material.validation.passages
    trains: list[str] = []
    texts = set(validates)
    if depth is not None:
        trains = _training_texts(material, most=passages, draw=random.Random(f"lists {seed}"))
        texts.update(trains)
    place = {key: row for row, key in enumerate(sorted(texts))}
    vectors = _encode(embedder, [material.texts[key] for key in place], queries=False, world=world)

    def of(keys: Sequence[str]) -> np.ndarray:
        return vectors[[place[key] for key in keys]]

    queries = material.validation.queries
    validated = _encode(embedder, list(queries.values()), queries=True, world=world)
    candidates = dict(zip(queries, dense.search(validated, of(validates), validates, DEPTH), strict=True))
    negatives: dict[str, list[str]] = {}
    if depth is not None:
        asked = _encode(embedder, list(material.queries.values()), queries=True, world=world)
        for query, hits in zip(material.queries, dense.search(asked, of(trains), trains, depth), strict=True):
            negatives[query] = [
                hit.target
                for hit in hits
                if material.relations.is_negative(query, hit.target)
                and not material.relations.repeats_answer(query, hit.target)
            ]
    return Lists(
        negatives=negatives,
        candidates=candidates,
        cpu_seconds=sum(world.gather(time.process_time() - began)),
    )


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
