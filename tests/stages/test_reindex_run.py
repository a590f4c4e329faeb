import hashlib
import json
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest

from nearer.corpus.chunk import CHUNKER
from nearer.errors import ArtifactMissing, ContractMismatch, GateRefused, InputError
from nearer.models.cache import encode_cached
from nearer.models.contract import Contract
from nearer.models.encode import Embedder
from nearer.models.load import load_embedder
from nearer.models.save import save_embedder
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.reindex.passages import read_passages, rendered
from nearer.reindex.query import Index
from nearer.reindex.run import plan, rollback, run
from nearer.settings.model import Settings
from nearer.store import Store, open_store
from nearer.testing import korean_documents, tiny_embedder


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str, **facts: object) -> None:
        self.lines.append(message)

    def warn(self, message: str, **facts: object) -> None:
        self.lines.append(f"warning: {message}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two base models and one that carries a contract of its own."""
    directory = tmp_path_factory.mktemp("models")
    tiny_embedder(directory / "old", sentence_transformer=True)
    tiny_embedder(directory / "new", seed=3)
    store = open_store(str(directory))
    loaded = load_embedder(
        find_model(str(directory / "old"), store=store),
        device="cpu",
        chunker="kiwi-sentences-v1",
        chunk_tokens=40,
        passage_template="{title}: {text}",
    )
    save_embedder(loaded, directory / "tuned")
    return directory


@pytest.fixture
def store(workdir: Path) -> Store:
    """A store with 30 documents beside it."""
    rows = korean_documents(30, seed=1)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path("documents.jsonl").write_text(text, encoding="utf-8")
    return open_store(".")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passages each call encoded."""
    counts: list[int] = []
    encode = Embedder.encode_passages

    def counting(self: Embedder, texts: Sequence[str], **options: Any) -> np.ndarray:
        counts.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(Embedder, "encode_passages", counting)
    return counts


def settings(models: Path, model: str = "old", **changes: Any) -> Settings:
    fields = {
        "documents": "documents.jsonl",
        "embedder": str(models / model),
        "output_dir": "idx",
        "shard_passages": 20,
        "check_samples": 8,
        "chunk": {"max_tokens": 30},
    }
    return Settings.model_validate({"reindex": {**fields, **changes}})


def generations() -> dict[str, dict[str, str]]:
    """sha256 by file of each generation, manifests left out."""
    return {
        place.name: {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(place.iterdir())
            if file.name != "manifest.json"
        }
        for place in sorted(Path("idx/generations").iterdir())
    }


def alias() -> dict[str, Any]:
    return json.loads(Path("idx/aliases/current.json").read_text(encoding="utf-8"))


def test_stored_vectors_are_those_of_plain_sentence_transformers(models: Path, store: Store) -> None:
    """A reader who has the passages and the model's prompt gets the very vectors that the shards hold."""
    from sentence_transformers import SentenceTransformer

    manifest = run(settings(models), store, Silent())
    place = Path("idx/generations") / manifest.fingerprint[:12]
    rows = [json.loads(line) for line in (place / "passages.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [
        "\n".join(part for part in (row["title"], " > ".join(row["metadata"]["path"]), row["text"]) if part)
        for row in rows
    ]
    expected = SentenceTransformer(str(models / "old"), device="cpu").encode(texts, prompt_name="document")
    stored = np.concatenate([np.load(shard) for shard in sorted(place.glob("vectors-*.npy"))])
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    assert manifest.metrics["passages"] == len(rows) > 60
    assert manifest.metrics["documents"] == 30
    assert alias()["generation"] == place.name


def test_the_same_work_again_is_done_already(models: Path, store: Store) -> None:
    """A second run, with other execution settings, encodes nothing and leaves every file as it was."""
    run(settings(models), store, Silent())
    before, written = generations(), alias()
    heard = Heard()
    run(settings(models, shard_passages=7, batch_tokens=100), store, heard)
    assert heard.lines == ["already done: reindex"]
    assert (generations(), alias()) == (before, written)


def test_what_an_evaluation_has_encoded_is_not_encoded_again(models: Path, store: Store, encoded: list[int]) -> None:
    """The same vectors come out; wrong ones are found by the check, and the next run is not caught by them again."""
    run(settings(models), store, Silent())
    place = Path("idx/generations") / alias()["generation"]
    expected = np.concatenate([np.load(shard) for shard in sorted(place.glob("vectors-*.npy"))])
    embedder = load_embedder(
        find_model(str(models / "old"), store=store), device="cpu", chunker=CHUNKER, chunk_tokens=30
    )
    texts = [rendered(one, embedder.contract.passage_template) for one in read_passages(place / "passages.jsonl")]
    encode_cached(embedder, texts, side="passage", directory=store.cache("vectors"))
    encoded.clear()
    run(settings(models, output_dir="idx2", shard_passages=4096), store, Silent())
    assert encoded == [8]  # the samples of the check
    found = np.concatenate([np.load(shard) for shard in sorted(Path("idx2").rglob("vectors-*.npy"))])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (kept,) = store.cache("vectors").glob("*.npy")
    np.save(kept, np.roll(np.load(kept), 1, axis=0))
    with pytest.raises(GateRefused):
        run(settings(models, output_dir="idx3", shard_passages=4096), store, Silent())
    run(settings(models, output_dir="idx3", shard_passages=4096), store, Silent())
    assert encoded == [8, 8, len(texts), 8]


def test_a_new_model_makes_a_new_generation_and_the_way_back_stands(models: Path, store: Store) -> None:
    """The alias moves to the new model's generation, back by rollback, and forward again without encoding anew."""
    first = run(settings(models), store, Silent()).fingerprint[:12]
    second = run(settings(models, "new"), store, Silent()).fingerprint[:12]
    assert (alias()["generation"], alias()["previous"]) == (second, first)
    assert rollback(settings(models, "new"), store, Silent()).fingerprint[:12] == first
    assert alias()["generation"] == first
    before, heard = generations(), Heard()
    run(settings(models, "new"), store, heard)
    assert heard.lines == ["already done: reindex", "checked the generation", "alias 'current' switched"]
    assert (generations(), alias()["generation"]) == (before, second)


def test_rollback_to_a_generation_that_is_gone_leaves_the_alias(models: Path, store: Store) -> None:
    """The alias never comes to point to nothing."""
    first = run(settings(models), store, Silent()).fingerprint[:12]
    second = run(settings(models, "new"), store, Silent()).fingerprint[:12]
    (Path("idx/generations") / first).rename("elsewhere")
    with pytest.raises(InputError, match=first):
        rollback(settings(models), store, Silent())
    assert alias()["generation"] == second


def test_rollback_without_a_generation_before_says_so(models: Path, store: Store) -> None:
    """One generation is not enough to go back."""
    run(settings(models), store, Silent())
    with pytest.raises(InputError, match="only ever pointed to"):
        rollback(settings(models), store, Silent())


def test_a_tuned_models_contract_decides_how_documents_are_cut(models: Path, store: Store) -> None:
    """Chunk size and template come from the model; a section that says otherwise is told so."""
    heard = Heard()
    manifest = run(settings(models, "tuned"), store, heard)
    place = Path("idx/generations") / manifest.fingerprint[:12]
    contract = Contract.load(place)
    assert contract == Contract.load(models / "tuned")
    assert any("`reindex.chunk` is not used" in line for line in heard.lines)
    base = run(settings(models, "old"), store, Silent())
    assert manifest.metrics["passages"] < base.metrics["passages"]
    known = Contract.load(Path("idx/generations") / base.fingerprint[:12])
    assert known is not None
    assert (known.chunker, known.chunk_tokens) == ("kiwi-sentences-v1", 30)


def test_a_model_that_gives_no_numbers_is_refused_and_the_alias_stays(
    models: Path, store: Store, tmp_path: Path
) -> None:
    """A diverged model's NaN vectors end in exit code 3; nothing is published, and the old generation serves on."""
    import torch

    first = run(settings(models), store, Silent()).fingerprint[:12]
    broken = load_embedder(find_model(str(models / "new"), store=store), device="cpu")
    with torch.no_grad():
        broken.model[0].auto_model.embeddings.word_embeddings.weight[50:].fill_(float("nan"))
    save_embedder(broken, tmp_path / "broken")
    before = generations()
    with pytest.raises(GateRefused, match="zero or not finite: doc-0000#0") as caught:
        run(settings(tmp_path, "broken"), store, Silent())
    assert caught.value.code == 3
    assert (generations(), alias()["generation"]) == (before, first)


class Deadly(Silent):
    """Kills its process when two shards are encoded."""

    def track(self, items: Iterable[Any], *, what: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if what.startswith("encoding, ") and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def reindex_until_killed(asked: Settings) -> None:
    run(asked, open_store("."), Deadly())


def test_after_kill_9_only_what_is_missing_is_encoded_and_the_result_is_the_same(
    models: Path, store: Store, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two shards survive the kill; the same command ends with the bytes of an undisturbed run."""
    asked = settings(models)
    killed = forked.call(Path.cwd(), reindex_until_killed, asked)
    assert killed.code == -signal.SIGKILL, killed.said
    assert not Path("idx/aliases").exists()
    encoded.clear()
    manifest = run(asked, store, Silent())
    samples = asked.reindex.check_samples
    assert sum(encoded) == manifest.metrics["passages"] - 2 * 20 + samples
    resumed = generations()
    monkeypatch.chdir("..")
    Path("undisturbed").mkdir()
    monkeypatch.chdir("undisturbed")
    Path("documents.jsonl").symlink_to("../work/documents.jsonl")
    run(asked, open_store("."), Silent())
    assert generations() == resumed


def test_the_index_answers_queries_of_its_own_model(models: Path, store: Store) -> None:
    """Hits are passages of the index, best first, and the same whatever path the model was loaded from."""
    run(settings(models), store, Silent())
    index = Index.open(store, "idx")
    link = Path("same-model")
    link.symlink_to(models / "old")
    embedder = load_embedder(find_model("./same-model", store=store), device="cpu")
    [hits] = index.search(["가습기 물때세척 안내"], embedder, 3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    vectors = index.sink.fetch([hit.target for hit in hits])
    np.testing.assert_allclose(
        vectors @ embedder.encode_queries(["가습기 물때세척 안내"])[0], [hit.score for hit in hits], atol=1e-5
    )
    assert [passage.id for passage in index.passages([hit.target for hit in hits])] == [hit.target for hit in hits]


def test_the_index_refuses_a_model_of_another_contract_and_shows_both_sides(models: Path, store: Store) -> None:
    """The same architecture with other weights and prefixes is refused; what differs is named with both values."""
    run(settings(models), store, Silent())
    other = load_embedder(find_model(str(models / "new"), store=store), device="cpu")
    with pytest.raises(ContractMismatch) as caught:
        Index.open(store, "idx").search(["가습기"], other)
    assert 'query_prefix: the model has "", index generation' in str(caught.value)
    assert 'has "query: "' in str(caught.value)


def test_vectors_of_another_dimension_are_refused(models: Path, store: Store) -> None:
    """The most feared mistake is told with both numbers."""
    run(settings(models), store, Silent())
    with pytest.raises(ContractMismatch, match=r"\(1, 2048\) do not fit the index of 32 dimensions"):
        Index.open(store, "idx").search_vectors(np.ones((1, 2048), dtype=np.float32))


def test_an_alias_that_nobody_set_is_missing(workdir: Path) -> None:
    """Opening an index before the first reindex says what to do."""
    with pytest.raises(ArtifactMissing, match="no alias 'current'"):
        Index.open(open_store("."), "idx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"documents": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"embedder": "./nowhere"}, "nowhere"),
        ({"embedder": None}, "nearer train embedding"),
    ],
)
def test_missing_inputs_are_named_with_the_way_out(
    changes: dict[str, Any], words: str, models: Path, store: Store
) -> None:
    """No documents, no such model, no trained model: exit 2 before anything is written, the hub not asked."""
    with pytest.raises(InputError) as caught:
        run(settings(models, **changes), store, Silent())
    assert words in str(caught.value)
    assert not Path("idx").exists()


def test_the_plan_names_generation_and_alias_and_touches_nothing(models: Path, store: Store) -> None:
    """Before the run it says what would be made and switched; after it, that all is done."""
    before = plan(settings(models), store)
    assert not Path("idx").exists()
    generation = run(settings(models), store, Silent()).fingerprint[:12]
    after = plan(settings(models), store)
    assert before.output == after.output == f"idx/generations/{generation}"
    assert (before.state, after.state) == ("would be made", "already done")
    assert f"alias 'current' would be switched to {generation} after its checks" in before.notes
    assert after.notes == (f"alias 'current' points to {generation}",)
    assert [one.state for one in after.inputs] == ["there", "there"]


def test_the_plan_knows_what_has_still_to_be_made(store: Store) -> None:
    """With a model that is trained first, the generation's name is not known yet."""
    asked = Settings.model_validate({"train": {"embedding": {}}, "reindex": {"documents": "documents.jsonl"}})
    found = plan(asked, store)
    assert [one.state for one in found.inputs] == ["there", "made by `train embedding` first"]
    assert found.output == "indexes/docs/generations/<fingerprint>"
