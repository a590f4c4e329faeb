"""What must be true of a generation before an alias points to it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nearer.errors import GateRefused
from nearer.models.encode import Embedder
from nearer.progress import Progress
from nearer.ranking import dense
from nearer.records import Passage
from nearer.reindex.passages import read_passages
from nearer.reindex.shards import encode, unit
from nearer.reindex.sink import Sink

MIN_COSINE: Final = 0.999
"""Between a stored vector and the same passage encoded again. Batches of other lengths move it by some 1e-6; another
model, prefix or template by far more."""
_K: Final = 10
_SAME: Final = 1e-5  # dot products closer than this are ties


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was measured: cosine of samples encoded again, share of their exact top 10 that the index finds."""

    passages: int
    samples: int
    min_cosine: float
    index_recall: float

    def metrics(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def check(
    sink: Sink,
    embedder: Embedder,
    *,
    passages: Path,
    vectors: Iterable[np.ndarray],
    samples: int,
    min_index_recall: float,
    seed: int,
    batch_tokens: int,
    progress: Progress,
) -> Checked:
    """Compare what the sink gives back with what was put in.

    Args:
        sink: finished.
        embedder: that made the vectors.
        passages: the file of passages that were put in.
        vectors: that were put in, shard by shard, in the order of the file; passed over once.
        samples: how many passages are encoded again and searched for.
        min_index_recall: least share of the exact top 10 that the index finds, ties counting as found.
        seed: of the samples.
        batch_tokens: padded tokens a forward pass.
        progress: hears the results.

    Raises:
        GateRefused: ids, counts, samples or index are not right.
    """
    ids = [passage.id for passage in read_passages(passages)]
    _check_ids(ids, sink)
    chosen = set(random.Random(seed).sample(range(len(ids)), min(samples, len(ids))))
    sample = [passage for position, passage in enumerate(read_passages(passages)) if position in chosen]
    again = encode(embedder, sample, batch_tokens=batch_tokens)
    min_cosine = _check_samples(sample, again, sink)
    recall = _recall(again, ids, vectors, sink)
    checked = Checked(passages=len(ids), samples=len(sample), min_cosine=min_cosine, index_recall=recall)
    progress.say("checked the generation", **checked.metrics())
    if recall < min_index_recall:
        raise _refused(
            f"the index finds {recall:.3f} of the exact top {_K}, over {len(sample)} samples",
            rule=f"at least reindex.min_index_recall = {min_index_recall:g}",
            way_out="set `reindex.index: flat` for exact search",
        )
    return checked


def _check_ids(ids: Sequence[str], sink: Sink) -> None:
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = sorted({name for name in ids if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        raise _refused(f"{len(twice)} passage ids stand twice: {', '.join(twice[:3])}", rule="ids are unique")
    if sink.count() != len(ids):
        raise _refused(f"the index holds {sink.count()} passages, {len(ids)} were put in", rule="equal counts")
    missing = sorted(set(ids).difference(sink.ids()))
    if missing:
        raise _refused(f"the index lacks {len(missing)} passages: {', '.join(missing[:3])}", rule="ids are complete")


def _check_samples(sample: Sequence[Passage], again: np.ndarray, sink: Sink) -> float:
    stored = sink.fetch([passage.id for passage in sample])
    if stored.shape != again.shape:
        raise _refused(
            f"stored vectors have {stored.shape[1]} dimensions, the model gives {again.shape[1]}",
            rule="index and model have the same dimension",
        )
    cosines = (unit(stored.astype(np.float64)) * unit(again.astype(np.float64))).sum(axis=1)
    cosines = np.where(np.isfinite(cosines), cosines, -1.0)
    worst = int(cosines.argmin())
    if cosines[worst] < MIN_COSINE:
        raise _refused(
            f"passage {sample[worst].id} encoded again has cosine {cosines[worst]:.4f} with its stored vector",
            rule=f"at least {MIN_COSINE}",
            way_out="reindex again; if it happens again, the model does not compute reproducibly on this device",
        )
    return float(cosines[worst])


def _recall(queries: np.ndarray, ids: Sequence[str], vectors: Iterable[np.ndarray], sink: Sink) -> float:
    k = min(_K, len(ids))
    best = np.full((len(queries), k), -np.inf)
    start = 0
    for shard in vectors:
        for row, hits in enumerate(dense.search(queries, shard, ids[start : start + len(shard)], k)):
            merged = np.concatenate([best[row], [hit.score for hit in hits]])
            best[row] = np.sort(merged)[::-1][:k]
        start += len(shard)
    found = 0
    for row, hits in enumerate(sink.search(queries, k)):
        if hits:
            scores = sink.fetch(sorted({hit.target for hit in hits[:k]})) @ queries[row]
            found += int((scores >= best[row, -1] - _SAME).sum())
    return found / (len(queries) * k)


def _refused(
    what: str, *, rule: str, way_out: str = "reindex again, from another directory if it persists"
) -> Exception:
    return GateRefused(f"{what}; the alias was not moved", rule=rule, way_out=way_out)
