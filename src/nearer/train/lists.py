"""What the retriever gives the reranker, so that it trains on, and is chosen by, what it will meet.

Negatives from the ranks of the retriever at hand: Gao, Dai & Callan 2021, "Rethink Training of BERT Rerankers in
Multi-Stage Retrieval Pipeline" (ECIR). Random ones before them are our own addition.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nearer.models.encode import Embedder
from nearer.ranking import dense
from nearer.store import WorkArea
from nearer.train import shard
from nearer.train.rows import Material
from nearer.train.world import World

_FILE: Final = "lists.json"
_BATCH_TOKENS: Final = 2048
"""Small batches stay in a CPU's cache; a GPU's memory holds more than these anyway."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The retriever's ranks, best first.

    Args:
        negatives: training query id → keys of texts that may train and do not answer it.
        candidates: validation query id → keys of validation passages.
    """

    negatives: Mapping[str, Sequence[str]]
    candidates: Mapping[str, Sequence[str]]


def kept_lists(work: WorkArea) -> Lists | None:
    """The lists that this run has begun with, so that it goes on with them; None: it has not begun."""
    if _FILE in work.shared():
        work.bring(_FILE)
    path = work.path / _FILE
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    keys = raw.pop("keys")
    return Lists(
        **{
            name: {query: [keys[number] for number in ranks] for query, ranks in ranked.items()}
            for name, ranked in raw.items()
        }
    )


def keep_lists(lists: Lists, work: WorkArea) -> None:
    """Leave them for a run that goes on; each key is written once, because it stands in many lists."""
    parts = asdict(lists)
    keys = sorted({key for ranked in parts.values() for ranks in ranked.values() for key in ranks})
    number = {key: place for place, key in enumerate(keys)}
    raw = {
        name: {query: [number[key] for key in ranks] for query, ranks in ranked.items()}
        for name, ranked in parts.items()
    }
    temporary = Path(f"{work.path / _FILE}.tmp")
    temporary.write_text(json.dumps({"keys": keys, **raw}, ensure_ascii=False), encoding="utf-8")
    temporary.rename(work.path / _FILE)
    work.share(_FILE)


def retrieve(
    embedder: Embedder, material: Material, *, depth: int, rerank_depth: int, passages: int, seed: int, world: World
) -> Lists:
    """Rank training texts for the training queries, and validation passages for the validation queries.

    Args:
        embedder: the retriever.
        material: queries and texts.
        depth: ranks of a list of negatives.
        rerank_depth: ranks of a list of candidates.
        passages: the lists of negatives are over so many texts: mined negatives first, then a sample of the pool.
        seed: of the sample.
        world: all processes; each encodes its part.
    """
    trains = _training_texts(material, most=passages, draw=random.Random(f"lists {seed}"))
    validates = material.validation.passages
    texts = sorted({*trains, *validates})
    place = {key: row for row, key in enumerate(texts)}
    vectors = _encode(embedder, [material.texts[key] for key in texts], queries=False, world=world)

    def ranked(queries: Mapping[str, str], keys: Sequence[str], k: int) -> dict[str, list[str]]:
        asked = _encode(embedder, list(queries.values()), queries=True, world=world)
        found = dense.search(asked, vectors[[place[key] for key in keys]], keys, k)
        return {query: [hit.target for hit in hits] for query, hits in zip(queries, found, strict=True)}

    is_negative = material.relations.is_negative
    return Lists(
        negatives={
            query: [key for key in keys if is_negative(query, key)]
            for query, keys in ranked(material.queries, trains, depth).items()
        },
        candidates=ranked(material.validation.queries, validates, rerank_depth),
    )


def _training_texts(material: Material, *, most: int, draw: random.Random) -> list[str]:
    mined = sorted({key for keys in material.negatives.values() for key in keys})
    others = sorted(set(material.pool).difference(mined))
    found: list[str] = []
    for keys in (mined, others):
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
