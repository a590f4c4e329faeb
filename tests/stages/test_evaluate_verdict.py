"""The verdict on tiny models, where the right one is known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nearer.corpus.dataset import Dataset
from nearer.evaluate.run import run
from nearer.progress import Silent
from nearer.records import Judgment, Query
from nearer.settings.model import Settings
from nearer.store import InputEntry, Manifest, Store, open_store
from nearer.testing import korean_dataset, tiny_cross_encoder, tiny_embedder

DOCUMENTS = 40
PLAIN = {"format": "pt"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder that counts words (a bag of random vectors), one of random weights, and one that sees no words."""
    directory = tmp_path_factory.mktemp("models")
    for name in ("good", "weak", "blind"):
        tiny_embedder(directory / name, sentence_transformer=True)
        for path in (directory / name).rglob("*.safetensors"):
            save_file(
                {key: changed(name, key, tensor) for key, tensor in load_file(path).items()}, path, metadata=PLAIN
            )
    return directory


def changed(name: str, key: str, tensor: torch.Tensor) -> torch.Tensor:
    order = "position_embeddings" in key or "token_type_embeddings" in key or key.endswith("output.dense.weight")
    if name == "good" and order:
        return torch.zeros_like(tensor)
    if name == "blind" and key.endswith("word_embeddings.weight"):
        return tensor[:1].expand_as(tensor).contiguous()
    return tensor


def dataset() -> Dataset:
    """Every document's three questions are test, each judged on a passage; nothing trains."""
    found = korean_dataset(DOCUMENTS, 1, test_share=1.0)
    real = {id_: Query(id=id_, text=query.text, origin="real") for id_, query in found.queries.items()}
    return replace(found, queries=real)


@pytest.fixture
def store(workdir: Path) -> Store:
    """A store with the dataset, and one whose train part holds documents of the test part."""
    found = open_store(".")
    whole = dataset()
    asked = whole.test[0]
    copied = Query(id="copy", text=f"{whole.queries[asked.query_id].text} 알려 주세요", origin="llm")
    leaked = replace(
        whole,
        queries={**whole.queries, "copy": copied},
        train=(Judgment(query_id="copy", target=asked.target),),
    )
    for name, one in (("data", whole), ("leaked", leaked)):
        with found.scratch() as directory:
            one.write(directory)
            found.publish(name, directory, Manifest(kind="dataset", name="generate", fingerprint=name[0] * 64))
    return found


def settings(
    models: Path, /, *, base: str = "blind", tuned: str = "good", verdict: dict[str, Any] | None = None, **changes: Any
) -> Settings:
    fields = {
        "dataset": "data",
        "base_embedder": str(models / base),
        "embedder": str(models / tuned),
        "bm25": False,
        "speed_queries": 0,
        "output_dir": "report",
        "gate": True,
        "verdict": verdict or {},
    }
    return Settings.model_validate({"eval": {**fields, **changes}})


def verdict_of(store: Store) -> dict[str, Any]:
    path = store.open("report").path / "report.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["verdict"]
    return found


def state(store: Store, name: str) -> str:
    (found,) = [check["state"] for check in verdict_of(store)["checks"] if check["name"] == name]
    return str(found)


def test_a_model_that_is_better_is_shipped(store: Store, models: Path) -> None:
    """Exit 0, and the first reason names the systems, the effect and its interval."""
    manifest = run(settings(models), store, Silent())
    assert verdict_of(store)["decision"] == "ship"
    assert manifest.outcome.code == 0
    reason = verdict_of(store)["reasons"][0]
    assert reason.startswith("tuned against base on 120 real queries (40 groups of documents): nDCG@10")
    assert "95\u00a0% interval" in reason


def test_the_base_in_the_place_of_the_tuned_model_is_no_difference(store: Store, models: Path) -> None:
    """Exit 3; the same command finds the report and gives the same code."""
    manifest = run(settings(models, base="good"), store, Silent())
    assert verdict_of(store)["decision"] == "do not ship"
    assert "no difference" in verdict_of(store)["reasons"][0]
    assert manifest.outcome.code == 3
    assert manifest.outcome.reason.startswith("do not ship: tuned against base")
    assert run(settings(models, base="good"), store, Silent()).outcome.code == 3


def test_a_damaged_model_is_not_shipped(store: Store, models: Path) -> None:
    """It is worse, and one that sees nothing has collapsed scores as well."""
    assert run(settings(models, base="good", tuned="blind"), store, Silent()).outcome.code == 3
    assert verdict_of(store)["decision"] == "do not ship"
    assert "it is worse" in verdict_of(store)["reasons"][0]
    assert state(store, "scores of tuned") == "fail"


def test_few_queries_cannot_tell_and_say_how_many_could(store: Store, models: Path) -> None:
    """A gain that is there, on five queries."""
    assert run(settings(models, max_queries=5), store, Silent()).outcome.code == 3
    assert verdict_of(store)["decision"] == "inconclusive"
    assert "queries of this kind would settle it" in verdict_of(store)["reasons"][0]


def test_leaked_test_documents_refuse_a_model_that_looks_better(store: Store, models: Path) -> None:
    """The leak is named, by the documents that leak."""
    assert run(settings(models, dataset="leaked"), store, Silent()).outcome.code == 3
    assert verdict_of(store)["decision"] == "do not ship"
    assert state(store, "primary") == "pass"
    (reason, *_) = verdict_of(store)["reasons"]
    assert reason.startswith("Leakage")
    assert "the document doc-0000 answers train and test queries" in reason


@pytest.mark.parametrize(("there", "expected"), [(True, "fail"), (False, "unclear")])
def test_a_model_that_was_trained_on_another_dataset_is_looked_into(
    store: Store, models: Path, there: bool, expected: str
) -> None:
    """Its training data hold test documents; when they are gone, that cannot be ruled out."""
    mark = "l" * 64 if there else "g" * 64
    inputs = {"dataset": InputEntry(address="leaked", fingerprint=mark)}
    store.publish("mine", models / "good", Manifest(kind="embedder", name="train", fingerprint="m" * 64, inputs=inputs))
    run(settings(models, embedder="mine"), store, Silent())
    assert state(store, "leakage") == expected
    assert verdict_of(store)["decision"] == ("do not ship" if there else "inconclusive")


def test_without_the_gate_a_refused_model_is_told_and_the_command_succeeds(store: Store, models: Path) -> None:
    """The default is to look; CI asks for the gate."""
    manifest = run(settings(models, base="good", gate=False), store, Silent())
    assert (manifest.outcome.code, manifest.metrics["verdict"]) == (0, "do not ship")


@pytest.mark.parametrize(("base", "said"), [("blind", True), ("good", False)])
def test_a_reranker_that_spoils_a_better_embedder_is_told_apart(
    store: Store, models: Path, tmp_path: Path, base: str, *, said: bool
) -> None:
    """The verdict is about what was declared; what to do instead is said only where it would be better than today."""
    reranker = tiny_cross_encoder(tmp_path / "random")
    run(settings(models, base=base, reranker=str(reranker), verdict={"reranker_beats_none": True}), store, Silent())
    assert verdict_of(store)["decision"] != "ship"
    instead = [reason for reason in verdict_of(store)["reasons"] if "eval.verdict.candidate: tuned;" in reason]
    assert bool(instead) is said


def test_too_few_real_queries_make_it_inconclusive(store: Store, models: Path) -> None:
    """However good the model looks."""
    run(settings(models, verdict={"min_real_queries": 500}), store, Silent())
    assert verdict_of(store)["decision"] == "inconclusive"
    assert verdict_of(store)["reasons"][0] == "120 real queries; at least 500 are asked for."


def test_the_tuned_embedder_must_beat_bm25(store: Store, models: Path) -> None:
    """A weak embedder that is better than the one before is still worse than words alone."""
    run(
        settings(models, base="blind", tuned="weak", bm25=True, verdict={"baseline": "base", "candidate": "tuned"}),
        store,
        Silent(),
    )
    assert state(store, "bm25") == "fail"
    assert verdict_of(store)["decision"] == "do not ship"


@pytest.mark.parametrize(("tuned", "expected"), [("good", "pass"), ("blind", "fail")])
def test_what_is_forgotten_on_a_second_dataset_counts(store: Store, models: Path, tuned: str, expected: str) -> None:
    """A BEIR directory of another domain: nothing lost, or too much."""
    other = korean_dataset(40, 9, test_share=1.0)
    beir = Path("beir")
    (beir / "qrels").mkdir(parents=True)
    rows = [{"_id": one.id, "title": one.title, "text": one.text} for one in other.passages.values()]
    (beir / "corpus.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    asked = [{"_id": one.id, "text": one.text} for one in other.queries.values()]
    (beir / "queries.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), encoding="utf-8"
    )
    lines = ["query-id\tcorpus-id\tscore", *(f"{one.query_id}\t{one.target}\t1" for one in other.test)]
    (beir / "qrels/test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run(settings(models, base="good", tuned=tuned, general="beir"), store, Silent())
    assert state(store, "forgetting") == expected
