"""A generation: documents cut, encoded, written to a sink and checked. What is finished survives a kill."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nearer.corpus.chunk import chunk_all
from nearer.errors import ArtifactCorrupt, ArtifactMissing, GateRefused
from nearer.models.encode import Embedder
from nearer.progress import Progress, timed
from nearer.records import Document
from nearer.reindex.check import check
from nearer.reindex.passages import read_passages, write_passages
from nearer.reindex.shards import encode_shards
from nearer.reindex.sink import Sink
from nearer.store import WorkArea


def build(
    sink: Sink,
    embedder: Embedder,
    documents: Iterable[Document],
    work: WorkArea,
    *,
    max_tokens: int,
    shard_passages: int,
    batch_tokens: int,
    earlier: Path,
    samples: int,
    min_index_recall: float,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Fill the sink and check it.

    Args:
        sink: not begun.
        embedder: its contract says how to render and encode.
        documents: streamed; not touched when the work directory holds the passages already.
        work: for this model and these documents alone; survives a kill, and the loss of the machine if it is shared.
        max_tokens: longest passage.
        shard_passages: passages a shard.
        batch_tokens: padded tokens a forward pass.
        earlier: the cache in which an evaluation may have left vectors of this model; emptied if the check refuses.
        samples: see `check`.
        min_index_recall: see `check`.
        seed: see `check`.
        progress: hears what happens.

    Returns:
        The metrics.

    Raises:
        InputError: there is nothing to index.
        GateRefused: a check failed.
    """
    passages = work.path / "passages.jsonl"
    vectors = work.path / f"vectors-{shard_passages}"
    _bring(work, (passages.name, f"{vectors.name}/"), progress)
    if not passages.exists():
        tracked = progress.track(documents, what="cutting documents")
        cut = chunk_all(tracked, max_tokens=max_tokens, count_tokens=embedder.count_tokens)
        write_passages(itertools.chain.from_iterable(cut), passages)
        work.share(passages.name)
    total = sum(1 for _ in read_passages(passages))
    try:
        sink.begin(contract=embedder.contract)
        shards = encode_shards(
            embedder,
            passages,
            vectors,
            total=total,
            shard_passages=shard_passages,
            batch_tokens=batch_tokens,
            earlier=earlier,
            finished=lambda shard: work.share(f"{vectors.name}/{shard.name}"),
            progress=progress,
        )
        for number, shard, encoded in shards:
            sink.write(number, shard, encoded)
        with timed(progress, f"indexed {total} passages"):
            sink.finish()
        checked = check(
            sink,
            embedder,
            passages=passages,
            vectors=(np.load(path, mmap_mode="r") for path in sorted(vectors.glob("*.npy"))),
            samples=samples,
            min_index_recall=min_index_recall,
            seed=seed,
            batch_tokens=batch_tokens,
            progress=progress,
        )
    except GateRefused:
        # The next try encodes again, or would be refused for ever.
        shutil.rmtree(vectors, ignore_errors=True)
        for path in earlier.glob("*.npy"):  # the directory stays: another process may be writing there
            path.unlink(missing_ok=True)
        raise
    count = sum(1 for _ in itertools.groupby(read_passages(passages), key=lambda passage: passage.document_id))
    made = {"dimension": embedder.contract.dimension, "precision": embedder.precision}
    return {"documents": count, **made, **checked.metrics()}


def _bring(work: WorkArea, wanted: tuple[str, ...], progress: Progress) -> None:
    """Bring what another machine finished; what cannot be brought is made again."""
    for name in sorted(work.shared()):
        if name.startswith(wanted):
            try:
                work.bring(name)
            except (ArtifactCorrupt, ArtifactMissing) as error:
                progress.warn(f"{name} of the unfinished work is made again: {error.what}")
