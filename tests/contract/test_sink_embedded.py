"""What every sink must do; each sink that is added joins the fixture."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nearer.models.contract import Contract
from nearer.ranking import dense
from nearer.records import Passage
from nearer.reindex.embedded import EmbeddedSink
from nearer.reindex.shards import unit
from nearer.reindex.sink import Sink

DIMENSION = 12
CONTRACT = Contract(
    kind="embedder",
    base_model="m",
    base_revision="r",
    weights_sha256="w",
    tokenizer_sha256="t",
    similarity="cosine",
    dimension=DIMENSION,
)
PASSAGES = [Passage(id=f"p{n:03}", document_id=f"d{n // 3}", text=f"글 {n}", title=f"제목 {n}") for n in range(90)]
VECTORS = unit(np.random.default_rng(3).normal(size=(90, DIMENSION)).astype(np.float32))


@pytest.fixture(params=["flat", "hnsw"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Sink]:
    """Each call gives the same empty generation once more, as a process after a kill would see it."""
    return lambda: EmbeddedSink(tmp_path / "generation", index=request.param)


def fill(sink: Sink, order: list[int]) -> Sink:
    sink.begin(contract=CONTRACT)
    for shard in order:
        rows = slice(shard * 40, (shard + 1) * 40)
        sink.write(shard, PASSAGES[rows], VECTORS[rows])
    sink.finish()
    return sink


def test_it_gives_back_what_was_written(make: Callable[[], Sink]) -> None:
    """Count, ids and vectors are those that were put in."""
    sink = fill(make(), [0, 1, 2])
    assert sink.count() == 90
    assert sorted(sink.ids()) == [passage.id for passage in PASSAGES]
    wanted = ["p089", "p000", "p041"]
    np.testing.assert_array_equal(sink.fetch(wanted), VECTORS[[89, 0, 41]])
    with pytest.raises(KeyError):
        sink.fetch(["nobody"])


def test_it_finds_what_exact_search_finds(make: Callable[[], Sink]) -> None:
    """At this size every index is exact: same ids in the same order, scores are dot products."""
    sink = fill(make(), [0, 1, 2])
    queries = unit(np.random.default_rng(5).normal(size=(20, DIMENSION)).astype(np.float32))
    expected = dense.search(queries, VECTORS, [passage.id for passage in PASSAGES], 5)
    found = sink.search(queries, 5)
    assert [[hit.target for hit in hits] for hits in found] == [[hit.target for hit in hits] for hits in expected]
    np.testing.assert_allclose(
        [[hit.score for hit in hits] for hits in found], [[hit.score for hit in hits] for hits in expected], atol=1e-5
    )


def test_asking_for_more_than_there_is_gives_all(make: Callable[[], Sink]) -> None:
    """k beyond the size is no error and invents nothing."""
    hits = fill(make(), [0, 1, 2]).search(VECTORS[:1], 500)[0]
    assert sorted(hit.target for hit in hits) == [passage.id for passage in PASSAGES]


def test_a_shard_written_again_replaces_itself(make: Callable[[], Sink]) -> None:
    """A generation that was begun, left and begun again, with shards repeated, is the same generation."""
    half = make()
    half.begin(contract=CONTRACT)
    half.write(0, PASSAGES[:40], VECTORS[:40] * 0)
    half.write(1, PASSAGES[40:80], VECTORS[40:80])
    sink = fill(make(), [1, 0, 2, 1])
    assert sink.count() == 90
    np.testing.assert_array_equal(sink.fetch([passage.id for passage in PASSAGES]), VECTORS)


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_the_embedded_sink_writes_the_same_bytes_each_time(tmp_path: Path, index: str) -> None:
    """Two directories filled from the same vectors hold the same files, the HNSW graph included."""
    digests = []
    for name in ("one", "two"):
        fill(EmbeddedSink(tmp_path / name, index=index), [0, 1, 2])
        files = sorted(file for file in (tmp_path / name).iterdir())
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert digests[0] == digests[1]
    assert list(digests[0]) == [
        "contract.json",
        "ids.jsonl",
        "index.faiss",
        "passages.jsonl",
        "vectors-00000.npy",
        "vectors-00001.npy",
        "vectors-00002.npy",
    ]


def test_the_embedded_sink_gives_passages_by_id(tmp_path: Path) -> None:
    """Passages come back whole and in the order that was asked for."""
    sink = fill(EmbeddedSink(tmp_path / "generation"), [0, 1, 2])
    assert EmbeddedSink(sink.directory).passages(["p089", "p002"]) == [PASSAGES[89], PASSAGES[2]]
