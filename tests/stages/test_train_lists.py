"""A reranker that learns from its retriever's own lists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nearer.errors import InputError
from nearer.models.load import load_embedder
from nearer.models.source import ModelSource
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import Manifest, Store, WorkArea, open_store
from nearer.testing import korean_dataset, tiny_embedder
from nearer.train.lists import Lists, keep_lists, kept_lists, retrieve
from nearer.train.rows import Material, prepare
from nearer.train.run import plan, run
from nearer.train.world import ALONE

SECTION: dict[str, Any] = {
    "dataset": "data", "base_model": "base", "output_dir": "r", "epochs": 1, "max_steps": 4, "batch_size": 8,
    "device": "cpu", "rerank_depth": 4, "validation_passages": 40, "precision": "fp32", "learning_rate": 1e-3,
    "hard_negatives": 2, "random_negatives": 1, "loss": "listwise",
}  # fmt: skip


@pytest.fixture
def material() -> Material:
    return prepare(korean_dataset(40, 1), val_split=0.2, validation_queries_max=9, validation_passages_max=40, seed=1)


def embedder_at(path: Path) -> Any:
    tiny_embedder(path, sentence_transformer=True)
    source = ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")
    return load_embedder(source, device="cpu")


def lists_of(embedder: Any, material: Material, *, passages: int = 10**6) -> Lists:
    return retrieve(embedder, material, depth=7, passages=passages, seed=1, world=ALONE)


def test_lists_are_the_retrievers_ranks_without_answers(material: Material, tmp_path: Path) -> None:
    """In the order of its own scores; nothing that answers, and nothing that may not train."""
    embedder = embedder_at(tmp_path)
    found = lists_of(embedder, material)
    assert found.negatives.keys() == material.queries.keys()
    may_train = {*material.pool, *(key for keys in material.negatives.values() for key in keys)}
    for query, keys in found.negatives.items():
        assert 0 < len(keys) <= 7
        assert set(keys) <= may_train
        assert all(material.relations.is_negative(query, key) for key in keys)
    query = next(iter(material.queries))
    keys = found.negatives[query]
    vectors = embedder.encode_passages([material.texts[key] for key in keys])
    scores = (vectors @ embedder.encode_queries([material.queries[query]])[0]).tolist()
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    for query, hits in found.candidates.items():
        assert {hit.target for hit in hits} == set(material.validation.passages)
        asked = embedder.encode_queries([material.validation.queries[query]])[0]
        scores = embedder.encode_passages([material.texts[hit.target] for hit in hits]) @ asked
        assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    few = lists_of(embedder, material, passages=5)
    assert len({key for keys in few.negatives.values() for key in keys}) <= 5
    none = retrieve(embedder, material, depth=None, passages=10**6, seed=1, world=ALONE)
    assert none.negatives == {}
    order = {query: [hit.target for hit in hits] for query, hits in found.candidates.items()}
    assert order == {query: [hit.target for hit in hits] for query, hits in none.candidates.items()}


def test_near_duplicates_of_an_answers_document_are_dropped(material: Material, tmp_path: Path) -> None:
    """Whatever they score: other passages of the same document may be negatives, those of its copies are not."""
    embedder = embedder_at(tmp_path)
    before = lists_of(embedder, material)
    row = max(material.rows, key=lambda row: len(before.negatives[row.query_id]))
    copy, *_ = (key for key in before.negatives[row.query_id] if key in material.relations.document_of)
    relations = material.relations
    assert relations.document_of[copy] != relations.document_of[row.positive]
    tied = replace(relations, group_of={**relations.group_of, copy: relations.group_of[row.positive]})
    after = lists_of(embedder, replace(material, relations=tied))
    assert after.negatives[row.query_id] == [key for key in before.negatives[row.query_id] if key != copy]


def test_a_run_that_goes_on_has_the_lists_that_it_began_with(material: Material, tmp_path: Path) -> None:
    """They are kept in the work area, and are whole or not there."""
    work = WorkArea(path=tmp_path / "work")
    work.path.mkdir()
    assert kept_lists(work) is None
    (work.path / "lists.json.tmp").write_text("{")  # killed while it wrote
    assert kept_lists(work) is None
    found = lists_of(embedder_at(tmp_path), material)
    keep_lists(found, work)
    again = kept_lists(work)
    assert again
    assert again == found


@pytest.fixture
def store(workdir: Path) -> Store:
    store = open_store(".")
    tiny_embedder(workdir / "base", sentence_transformer=True)
    with store.scratch() as directory:
        korean_dataset(40, 1).write(directory)
        store.publish("data", directory, Manifest(kind="dataset", name="generate", fingerprint="d" * 64))
    return store


def settings_of(**more: Any) -> Settings:
    return Settings.model_validate({"train": {"reranker": {**SECTION, **more}}})


@pytest.mark.parametrize("loss", ["listwise", "binary"])
def test_it_trains_on_them_and_says_so(store: Store, loss: str) -> None:
    """In the plan and in the manifest; refused, the mined ones are taken, and another model comes out.

    What is put in order is the retriever's list in either case.
    """
    settings = settings_of(retriever="base", loss=loss)
    assert any("the lists of base" in note for note in plan(settings, store, model="reranker").notes)
    manifest = run(settings, store, Silent(), model="reranker")
    assert manifest.metrics["negatives_from"] == "retriever"
    assert manifest.metrics["retrieval_cpu_seconds"] > 0
    assert manifest.metrics["validation_pairs"] == 4 * manifest.metrics["validation_queries"]
    assert manifest.metrics["best_step"] > 0
    other = settings_of(retriever="base", loss=loss, negatives_from="dataset", output_dir="mined")
    assert any("`generate` mined" in note for note in plan(other, store, model="reranker").notes)
    mined = run(other, store, Silent(), model="reranker")
    assert mined.metrics["negatives_from"] == "dataset"
    assert mined.metrics["validation_pairs"] == manifest.metrics["validation_pairs"]
    assert mined.metrics["ndcg_without_reranker"] == manifest.metrics["ndcg_without_reranker"]
    assert mined.fingerprint != manifest.fingerprint
    weights = [{file.path: file.sha256 for file in one.files}["model.safetensors"] for one in (manifest, mined)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("changes", [{"retriever": "base", "negatives_from": "dataset"}, {"retriever": None}])
def test_what_has_no_effect_is_said(store: Store, changes: dict[str, Any]) -> None:
    """Values for a retriever's lists, where there are none; nothing is said of defaults, or where they count."""

    said: list[str] = []

    class Heard(Silent):
        def warn(self, message: str, **_facts: object) -> None:
            said.append(message)

    few = {"max_steps": 1, "loss": "binary"}
    run(settings_of(**few, **changes, curriculum=0.2, negatives_depth=9), store, Heard(), model="reranker")
    assert sum("curriculum, negatives_depth can change nothing" in text for text in said) == 1
    said.clear()
    run(settings_of(**few, **changes, output_dir="other"), store, Heard(), model="reranker")
    run(settings_of(**few, retriever="base", curriculum=0.2, output_dir="lists"), store, Heard(), model="reranker")
    assert not [text for text in said if "can change nothing" in text]


def test_lists_of_nobody_are_refused(store: Store) -> None:
    """Asked for, with no retriever named."""
    with pytest.raises(InputError, match="no retriever"):
        run(settings_of(negatives_from="retriever"), store, Silent(), model="reranker")


@pytest.mark.parametrize(("batch", "hard", "random"), [(3, 2, 1), (8, 0, 0)])
def test_a_step_too_small_for_a_list_is_refused(batch: int, hard: int, random: int) -> None:
    """With what would do."""
    with pytest.raises(ValueError, match=f"batch_size: {max(2, 1 + hard + random)} or more"):
        settings_of(batch_size=batch, hard_negatives=hard, random_negatives=random)
