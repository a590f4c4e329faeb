from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nearer.errors import GateRefused
from nearer.models.encode import Embedder
from nearer.models.load import load_embedder
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.records import Hit, Passage
from nearer.reindex.check import Checked, check
from nearer.reindex.embedded import EmbeddedSink
from nearer.reindex.passages import write_passages
from nearer.reindex.shards import encode
from nearer.store import open_store
from nearer.testing import korean_documents, tiny_embedder


class Lossy(EmbeddedSink):
    """Says that it holds everything, and lacks a passage."""

    def ids(self) -> Iterator[str]:
        return (name for name in super().ids() if name != "doc-0007")


class Short(EmbeddedSink):
    """Has one passage less than was put in."""

    def count(self) -> int:
        return super().count() - 1


class Forgetful(EmbeddedSink):
    """Answers with the wrong passages for a quarter of its hits."""

    def search(self, vectors: np.ndarray, k: int) -> list[list[Hit]]:
        return [[Hit(hits[-1].target, 1.0) if n % 4 == 0 else hit for n, hit in enumerate(hits[:k])]
                for hits in super().search(vectors, 3 * k)]  # fmt: skip


class Blurred(EmbeddedSink):
    """Stores other vectors than it was given."""

    def fetch(self, ids: Sequence[str]) -> np.ndarray:
        noise = np.random.default_rng(1).normal(size=(len(ids), 32)).astype(np.float32)
        return super().fetch(ids) + 0.02 * noise


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """A tiny base model."""
    directory = tiny_embedder(tmp_path_factory.mktemp("model"))
    return load_embedder(find_model(str(directory), store=open_store(str(directory.parent))), device="cpu")


def checked(
    kind: type[EmbeddedSink],
    embedder: Embedder,
    directory: Path,
    passages: list[Passage] | None = None,
    **changes: float,
) -> Checked:
    """Fill a sink of this kind with 40 passages and check it."""
    given = passages or [
        Passage(id=one["docid"], document_id=one["docid"], text=one["content"], title=one["title"])
        for one in korean_documents(40, seed=1)
    ]
    write_passages(given, directory / "given.jsonl")
    sink = kind(directory / "generation")
    sink.begin(contract=embedder.contract)
    vectors = encode(embedder, given, batch_tokens=2048)
    sink.write(0, given[:15], vectors[:15])
    sink.write(1, given[15:], vectors[15:])
    sink.finish()
    return check(
        sink,
        embedder,
        passages=directory / "given.jsonl",
        vectors=iter([vectors[:15], vectors[15:]]),
        samples=16,
        min_index_recall=changes.get("min_index_recall", 0.95),
        seed=1,
        batch_tokens=512,
        progress=Silent(),
    )


def test_a_sound_generation_passes_whatever_the_batches(embedder: Embedder, tmp_path: Path) -> None:
    """Everything is found, and encoding in other batches moves no vector noticeably."""
    found = checked(EmbeddedSink, embedder, tmp_path)
    assert (found.passages, found.samples, found.index_recall) == (40, 16, 1.0)
    assert found.min_cosine == pytest.approx(1, abs=1e-5)


def test_passages_of_the_same_text_are_ties_and_no_loss(embedder: Embedder, tmp_path: Path) -> None:
    """When 30 passages share a text, any ten of them are the right top ten."""
    same = [Passage(id=f"p{n}", document_id="d", text="같은 글이다.") for n in range(30)]
    other = [Passage(id=f"x{n}", document_id="d", text=f"제습기 {n}번 부품") for n in range(10)]
    assert checked(EmbeddedSink, embedder, tmp_path, same + other).index_recall == 1.0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Lossy, "lacks 1 passages: doc-0007"),
        (Short, "holds 39 passages, 40 were put in"),
        (Forgetful, "of the exact top 10, over 16 samples"),
        (Blurred, "encoded again has cosine"),
    ],
)
def test_a_faulty_sink_is_refused_in_words(
    kind: type[EmbeddedSink], words: str, embedder: Embedder, tmp_path: Path
) -> None:
    """Each fault ends in a refusal that says what is wrong and that the alias stays."""
    with pytest.raises(GateRefused) as caught:
        checked(kind, embedder, tmp_path)
    assert words in str(caught.value)
    assert "the alias was not moved" in str(caught.value)
    assert caught.value.code == 3


def test_the_index_gate_follows_its_setting(embedder: Embedder, tmp_path: Path) -> None:
    """What the default refuses passes where the user asks for less."""
    assert 0.5 < checked(Forgetful, embedder, tmp_path, min_index_recall=0.5).index_recall < 0.95


def test_another_model_prefix_or_template_is_noticed(embedder: Embedder, tmp_path: Path) -> None:
    """Vectors made with a prefix do not pass for those made without."""
    checked(EmbeddedSink, embedder, tmp_path)
    other = Embedder(contract=replace(embedder.contract, passage_prefix="query: "), model=embedder.model)
    sink = EmbeddedSink(tmp_path / "generation")
    with pytest.raises(GateRefused, match="encoded again"):
        check(sink, other, passages=tmp_path / "given.jsonl", vectors=sink.shards(), samples=16,
              min_index_recall=0.95, seed=1, batch_tokens=512, progress=Silent())  # fmt: skip


def test_an_id_that_stands_twice_is_refused(embedder: Embedder, tmp_path: Path) -> None:
    """Ids must be unique, and the one that is not is named."""
    twice = [Passage(id="same", document_id="d", text=f"글 {n}") for n in range(2)]
    with pytest.raises(GateRefused, match="1 passage ids stand twice: same"):
        checked(EmbeddedSink, embedder, tmp_path, twice)
