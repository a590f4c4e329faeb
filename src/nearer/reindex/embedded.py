"""The sink without a server: a directory.

vectors-00000.npy …   (n, dimension) float32, in the order of the passages
passages.jsonl        one passage a line
ids.jsonl             their ids alone, one JSON string a line
index.faiss           inner product; the position in it is the line number
contract.json         of the model that made the vectors
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from nearer.models.contract import Contract
from nearer.records import Hit, Passage
from nearer.reindex.passages import from_line, to_line

PASSAGES: Final = "passages.jsonl"
IDS: Final = "ids.jsonl"
INDEX: Final = "index.faiss"
HNSW_ABOVE: Final = 200_000
"""Passages above which `auto` gives up exact search: at 384 dimensions some 20 ms a query and core (a guess)."""
_HNSW_LINKS: Final = 32  # M, construction and search depth: common choices for .95 recall and more, not tuned
_HNSW_CONSTRUCTION: Final = 200
_HNSW_SEARCH: Final = 128


class EmbeddedSink:
    """A generation in a directory.

    Args:
        directory: to be written, or finished before.
        index: of FAISS; matters for writing only. `auto` chooses by the number of passages.
    """

    def __init__(self, directory: Path, *, index: Literal["auto", "flat", "hnsw"] = "auto") -> None:
        self.directory = directory
        self.index = index

    def begin(self, *, contract: Contract) -> None:
        """Write the contract."""
        self.directory.mkdir(parents=True, exist_ok=True)
        contract.save(self.directory)

    def write(self, shard: int, passages: Sequence[Passage], vectors: np.ndarray) -> None:
        """Write a shard's vectors and lines."""
        np.save(self._vectors(shard), np.ascontiguousarray(vectors, dtype=np.float32))
        part = self.directory / f"passages-{shard:05}.part"
        part.write_text("".join(map(to_line, passages)), encoding="utf-8", newline="\n")

    def finish(self) -> None:
        """Join the shards' lines, and build the index from their vectors."""
        parts = sorted(self.directory.glob("passages-*.part"))
        with (self.directory / PASSAGES).open("wb") as joined:
            for part in parts:
                with part.open("rb") as lines:
                    shutil.copyfileobj(lines, joined)
        with (
            (self.directory / PASSAGES).open("rb") as lines,
            (self.directory / IDS).open("w", encoding="utf-8", newline="\n") as ids,
        ):
            ids.writelines(json.dumps(from_line(line).id, ensure_ascii=False) + "\n" for line in lines)
        self._build_index()
        for part in parts:
            part.unlink()

    def count(self) -> int:
        """Passages in the index."""
        return int(self._index.ntotal)

    def ids(self) -> Iterator[str]:
        """Ids in the order of the lines."""
        return iter(self._ids)

    def fetch(self, ids: Sequence[str]) -> np.ndarray:
        """Vectors from the shards, (n, dimension)."""
        shards = list(self.shards())
        starts = np.cumsum([0, *(len(vectors) for vectors in shards)])
        found = np.zeros((len(ids), shards[0].shape[1]), dtype=np.float32)
        for row, name in enumerate(ids):
            position = self._positions[name]
            shard = int(np.searchsorted(starts, position, side="right")) - 1
            found[row] = shards[shard][position - starts[shard]]
        return found

    def search(self, vectors: np.ndarray, k: int) -> list[list[Hit]]:
        """Ask FAISS; ties by ascending id."""
        scores, positions = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return [
            sorted(
                (
                    Hit(self._ids[place], float(score))
                    for place, score in zip(places, row, strict=True)
                    if place >= 0  # fewer than k were found
                ),
                key=lambda hit: (-round(hit.score, 6), hit.target),
            )
            for places, row in zip(positions, scores, strict=True)
        ]

    def shards(self) -> Iterator[np.ndarray]:
        """The vectors of each shard, (n, dimension), as memory maps."""
        for path in sorted(self.directory.glob("vectors-*.npy")):
            vectors: np.ndarray = np.load(path, mmap_mode="r")
            yield vectors

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """The passages themselves, in the order of the ids.

        Raises:
            KeyError: an id that it does not hold.
        """
        found = []
        with (self.directory / PASSAGES).open("rb") as lines:
            for name in ids:
                lines.seek(self._line_starts[self._positions[name]])
                found.append(from_line(lines.readline()))
        return found

    def _vectors(self, shard: int) -> Path:
        return self.directory / f"vectors-{shard:05}.npy"

    def _build_index(self) -> None:
        import faiss

        total = sum(len(vectors) for vectors in self.shards())
        dimension = next(self.shards()).shape[1]
        graph = self.index == "hnsw" or (self.index == "auto" and total > HNSW_ABOVE)
        index: Any
        if graph:
            index = faiss.IndexHNSWFlat(dimension, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _HNSW_CONSTRUCTION
            index.hnsw.efSearch = _HNSW_SEARCH
        else:
            index = faiss.IndexFlatIP(dimension)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # with more, the graph depends on which thread comes first
        try:
            for vectors in self.shards():
                index.add(np.ascontiguousarray(vectors))
        finally:
            faiss.omp_set_num_threads(threads)
        faiss.write_index(index, str(self.directory / INDEX))

    @functools.cached_property
    def _index(self) -> Any:
        import faiss

        return faiss.read_index(str(self.directory / INDEX))

    @functools.cached_property
    def _ids(self) -> list[str]:
        with (self.directory / IDS).open("rb") as lines:
            return [json.loads(line) for line in lines]

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self._ids)}

    @functools.cached_property
    def _line_starts(self) -> list[int]:
        starts, place = [], 0
        with (self.directory / PASSAGES).open("rb") as lines:
            for line in lines:
                starts.append(place)
                place += len(line)
        return starts
