"""`nearer train` as a whole: a dataset and a tiny base model in, a better model out that plain libraries load."""

import json
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from train_root import put_dataset

from nearer.errors import DoesNotFit, GateRefused, InputError
from nearer.models.load import load_embedder, load_reranker
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.records import Origin
from nearer.settings.model import Settings
from nearer.store import Manifest, open_store
from nearer.testing import korean_dataset, korean_documents, tiny_cross_encoder, tiny_embedder
from nearer.train import collapse, embedding
from nearer.train import run as job
from nearer.train.checkpoint import Journal
from nearer.train.holdout import Validation
from nearer.train.measure import Measured, measured

TEXTS = [document["content"] for document in korean_documents(6, 9)]
EMBEDDING = {"base_model": "base", "learning_rate": 2e-3, "batch_size": 8, "max_steps": 12, "val_split": 0.2}
LEARNING = {
    **EMBEDDING,
    "learning_rate": 5e-3,
    "scale": 10,
    "batch_size": 16,
    "epochs": 20,
    "evaluations_per_epoch": 1,
    "max_steps": 60,
}
RERANKER = {**EMBEDDING, "max_pair_tokens": 128}


class Ears(Silent):
    """Hears what a job says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, message: str, **facts: object) -> None:
        self.said.append(f"{message} {json.dumps(facts)}")

    def warn(self, message: str, **facts: object) -> None:
        self.warned.append(message)


def train(root: Path, model: str, section: dict[str, Any], *, ears: Ears | None = None) -> Manifest:
    settings = Settings.model_validate({"artifacts": str(root), "seed": 7, "train": {model: section}})
    return job.run(settings, open_store(str(root)), ears or Ears(), model=model)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put_dataset(open_store(str(tmp_path)), korean_dataset(100, 1))
    return tmp_path


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "gpt_neox"])
def test_a_trained_embedder_loads_plainly_and_is_another_model(root: Path, architecture: str) -> None:
    """It has learnt; plain sentence-transformers gives the same vectors, which are not the base's."""
    from sentence_transformers import SentenceTransformer

    tiny_embedder(root / "base", architecture=architecture)
    section = {**LEARNING, "query_prefix": "query: ", "passage_prefix": "passage: "}
    manifest = train(root, "embedding", section)
    store = open_store(str(root))
    tuned = load_embedder(find_model("models/fine_tuned_embedding", store=store))
    path = store.open("models/fine_tuned_embedding", kind="embedder").path
    plain = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    assert np.abs(plain.encode_document(TEXTS) - tuned.encode_passages(TEXTS)).max() < 1e-5
    assert np.abs(plain.encode_query(TEXTS) - tuned.encode_queries(TEXTS)).max() < 1e-5
    base = load_embedder(find_model("base", store=store), query_prefix="query: ", passage_prefix="passage: ")
    assert manifest.metrics["best_ndcg"] > 2 * manifest.metrics["base_ndcg"]
    assert np.abs(base.encode_passages(TEXTS) - tuned.encode_passages(TEXTS)).max() > 1e-3
    contract = tuned.contract
    assert (contract.base_model, contract.chunker, contract.chunk_tokens) == ("base", "testing", 200)
    assert contract.base_revision == manifest.inputs["base_model"].fingerprint
    assert contract.tokenizer_sha256 == base.contract.tokenizer_sha256
    assert contract.weights_sha256 != base.contract.weights_sha256


@pytest.mark.parametrize("start", ["cross-encoder", "bert", "embedder"])
def test_a_trained_reranker_loads_plainly_and_is_another_model(root: Path, start: str) -> None:
    """From a cross-encoder, a bare encoder or a tuned embedder of ours: plain CrossEncoder gives the same scores."""
    from sentence_transformers import CrossEncoder

    base = "base"
    if start == "cross-encoder":
        tiny_cross_encoder(root / "base")
    else:
        tiny_embedder(root / "base")
    if start == "embedder":
        train(root, "embedding", {**EMBEDDING, "max_steps": 2})
        base = "models/fine_tuned_embedding"
    manifest = train(root, "reranker", {**RERANKER, "base_model": base})
    store = open_store(str(root))
    tuned = load_reranker(find_model("models/fine_tuned_reranker", store=store))
    pairs = [("가습기의 필터교체는 어떻게 합니까?", text) for text in TEXTS]
    plain = CrossEncoder(str(store.open("models/fine_tuned_reranker").path), device="cpu", local_files_only=True)
    assert np.abs(plain.predict(pairs) - tuned.score(pairs)).max() < 1e-5
    assert tuned.contract.kind == manifest.kind == "reranker"
    assert (tuned.contract.max_pair_tokens, tuned.contract.base_model) == (128, base)
    if start == "cross-encoder" and manifest.metrics["best_step"]:
        before = load_reranker(find_model("base", store=store), max_pair_tokens=128)
        assert np.abs(before.score(pairs) - tuned.score(pairs)).max() > 1e-4
    if start != "cross-encoder":
        assert manifest.metrics["best_step"] > 0  # random weights of a fresh head are never the best ones


def test_the_same_work_again_is_not_done(root: Path) -> None:
    """A second run finds its artifact; execution fields change nothing about that."""
    tiny_embedder(root / "base")
    first = train(root, "embedding", {**EMBEDDING, "max_steps": 2})
    ears = Ears()
    again = train(root, "embedding", {**EMBEDDING, "max_steps": 2, "checkpoint_steps": 3}, ears=ears)
    assert again == first
    assert ears.said[0].startswith("already done")
    assert not any((root / ".nearer" / "work").glob("*/step-*"))


def test_two_runs_give_the_same_bytes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Training is a function of dataset, base model, section and seed: with dropout, freezing and negatives."""
    section = {**EMBEDDING, "max_steps": 6, "negatives_per_query": 2, "dropout": 0.2}
    tiny_embedder(root / "base")
    other = tmp_path_factory.mktemp("other")
    put_dataset(open_store(str(other)), korean_dataset(100, 1))
    tiny_embedder(other / "base")
    one, two = train(root, "embedding", section), train(other, "embedding", section)
    assert one.files == two.files
    assert one.fingerprint == two.fingerprint
    assert one.metrics["history"] == two.metrics["history"]


def test_frozen_weights_do_not_move(root: Path) -> None:
    """Embeddings and the first layer keep every bit; what trains moves; the optimizer holds nothing of the rest."""
    tiny_embedder(root / "base")
    manifest = train(root, "embedding", {**EMBEDDING, "freeze": {"embeddings": True, "layers": 1}})
    assert manifest.metrics["best_step"] > 0
    before = load_file(root / "base" / "model.safetensors")
    after = load_file(root / "models" / "fine_tuned_embedding" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert moved
    assert all(name.startswith("encoder.layer.1.") for name in moved)


def test_freezing_everything_is_refused(root: Path) -> None:
    """The number of layers that a model has is named."""
    tiny_embedder(root / "base")
    with pytest.raises(InputError, match="2 layers would be frozen"):
        train(root, "embedding", {**EMBEDDING, "freeze": {"layers": 2}})


def test_dropout_is_for_training_only(root: Path) -> None:
    """The override changes how a model learns, and not what its config says."""
    tiny_embedder(root / "base")
    train(root, "embedding", {**EMBEDDING, "max_steps": 2, "dropout": 0.0})
    config = json.loads((root / "models" / "fine_tuned_embedding" / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.1, 0.1)


def test_a_base_model_that_training_only_harms_is_kept(root: Path) -> None:
    """When every validation is worse by more than its standard error, the base weights are published, and it is said."""
    tiny_embedder(root / "base")
    good = train(root, "embedding", LEARNING).metrics
    assert good["best_ndcg"] > 0.25  # far from what chance gives a model that was spoilt
    ears = Ears()
    harm = {"base_model": "models/fine_tuned_embedding", "output_dir": "models/harmed", "learning_rate": 1.0}
    plan = {"max_steps": 40, "patience": 2, "evaluations_per_epoch": 4}
    metrics = train(root, "embedding", {**EMBEDDING, **harm, **plan}, ears=ears).metrics
    assert metrics["kept_base"] is True
    assert (metrics["best_step"], metrics["best_ndcg"]) == (0, metrics["base_ndcg"])
    assert len(metrics["history"]) == 3  # the base and as many validations as patience allows
    assert metrics["steps"] < 40
    assert any("base model's weights" in warning for warning in ears.warned)


def test_a_validation_that_cannot_tell_does_not_veto() -> None:
    """A checkpoint within one standard error of the base is published; one below it is not."""
    within = Journal(history={0: 0.92, 5: 0.85, 10: 0.905}, base_error=0.02)
    assert within.best_step == 10
    assert Journal(history={0: 0.92, 5: 0.85, 10: 0.89}, base_error=0.02).best_step == 0
    assert Journal(history={0: 0.92, 5: 0.85}, base_error=0.02, base_may_win=False).best_step == 5
    assert Journal(history={0: 0.92}).best_step == 0


def test_a_validation_like_the_test_is_compared_query_by_query() -> None:
    """Where every query loses a little the base is kept, though its own standard error is larger than the loss."""
    base, worse = [1.0, 0.0, 1.0, 0.0], [0.98, -0.02, 0.98, -0.02]
    for alike, best in ((True, 0), (False, 5)):
        journal = Journal(alike=alike)
        for step, values in ((0, base), (5, worse)):
            journal.note(step, measured(np.array(values)))
        assert journal.best_step == best
    noise = Journal(alike=True)
    noise.note(0, measured(np.array(base)))
    noise.note(5, measured(np.array([0.0, 1.0, 0.9, 0.0])))  # a loss of 0.025, of which the error is larger
    assert noise.best_step == 5


def test_of_validations_that_cannot_be_told_apart_the_last_is_published() -> None:
    """Below the best by more than the error of the difference, query by query, it is not."""
    best = np.array([1.0, 0.0, 1.0, 0.5])
    for later, published in (([0.0, 0.9, 1.0, 0.5], 10), ([0.9, -0.1, 0.9, 0.4], 5)):
        journal = Journal()
        for step, values in ((0, best - 0.3), (5, best), (10, np.array(later))):
            journal.note(step, measured(values))
        assert (journal.best_step, journal.top_step) == (published, 5)


def test_a_plateau_ends_the_training() -> None:
    """Early stopping counts validations without a better one, not those without one to publish."""
    journal = Journal()
    for step, value in ((0, 0.1), (5, 0.4), (10, 0.4), (15, 0.4)):
        journal.note(step, measured(np.full(4, value)))
    assert journal.best_step == 15
    assert journal.is_over(2)
    assert not journal.is_over(3)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.6, 1.0]), min_size=4, max_size=4), min_size=2, max_size=6),
    st.booleans(),
    st.booleans(),
)
@example(
    [[1.0, 0.0, 1.0, 0.5], [0.5, 0.3, 1.0, 0.6], [0.99, -0.01, 0.99, 0.49]], True, True
)  # better, and surely worse
def test_what_is_published_was_saved(validations: list[list[float]], alike: bool, base_may_win: bool) -> None:
    """Weights are saved when their step would be published; whatever comes later, no others are wanted at the end.

    A run that is stopped after each validation, and goes on from its checkpoint's journal, decides no differently.
    """
    journal, saved = Journal(alike=alike, base_may_win=base_may_win), -1
    stopped = Journal(alike=alike, base_may_win=base_may_win)
    for step, values in enumerate(validations):
        journal.note(step, measured(np.array(values)))
        stopped = Journal.from_json(stopped.to_json())
        stopped.note(step, measured(np.array(values)))
        if journal.best_step == step:
            saved = step
    assert journal.best_step == saved
    assert stopped == journal


@pytest.mark.parametrize(("tested", "kept"), [("hypothetical", True), ("real", False)])
def test_a_loss_on_every_query_keeps_the_base_where_validation_is_like_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tested: Origin, kept: bool
) -> None:
    """Each query loses less than the base's own standard error: of made queries that says little of the users' own."""
    dataset = korean_dataset(100, 1)
    asked = {judgment.query_id for judgment in dataset.test}
    queries = {
        name: replace(query, origin=tested) if name in asked else query for name, query in dataset.queries.items()
    }
    put_dataset(open_store(str(tmp_path)), replace(dataset, queries=queries))
    tiny_embedder(tmp_path / "base")
    losses = iter((0.0, 0.02))

    def ndcg(_embedder: object, validation: Validation, *_more: object, **_others: object) -> Measured:
        return measured(np.arange(len(validation.queries)) % 2 - next(losses))

    monkeypatch.setattr(embedding, "retrieval_ndcg", ndcg)
    plan = {"max_steps": 2, "evaluations_per_epoch": 1}
    assert train(tmp_path, "embedding", {**EMBEDDING, **plan}).metrics["kept_base"] is kept


def test_cut_answers_are_said(root: Path) -> None:
    """Answers that training does not see to their end are warned of, with the way out; whole ones are not."""
    tiny_embedder(root / "base")
    for tokens, said in ((6, True), (64, False)):
        ears = Ears()
        output = f"models/cut-{tokens}"
        section = {**EMBEDDING, "max_steps": 1, "max_passage_tokens": tokens, "output_dir": output}
        train(root, "embedding", section, ears=ears)
        assert any("are cut in training, at 6 tokens" in warning for warning in ears.warned) == said


@pytest.mark.parametrize(("scale", "collapsed"), [(0.0, True), (10.0, False)])
def test_a_reranker_that_learnt_nothing_is_said(root: Path, scale: float, collapsed: bool) -> None:
    """Equal scores for every pair end in a warning that names the way out; other scores do not."""
    tiny_cross_encoder(root / "base")
    weights = load_file(root / "base" / "model.safetensors")
    weights["classifier.weight"] *= scale
    save_file(weights, root / "base" / "model.safetensors", metadata={"format": "pt"})
    ears = Ears()
    train(root, "reranker", {**RERANKER, "learning_rate": 1e-12, "max_steps": 1}, ears=ears)
    assert any("all but the same score" in warning for warning in ears.warned) == collapsed


def test_a_reranker_that_stays_on_the_plateau_ends_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the middle on there is no hope: exit 3 with the way out, and no model that somebody might use."""
    assert collapse.STEPS == 500
    monkeypatch.setattr(collapse, "STEPS", 10)
    tiny_cross_encoder(root / "base")
    weights = load_file(root / "base" / "model.safetensors")
    weights["classifier.weight"] *= 0.0
    save_file(weights, root / "base" / "model.safetensors", metadata={"format": "pt"})
    small = {"validation_queries": 4, "batch_size": 4, "epochs": 2, "max_steps": 40, "patience": 99}
    section = {**RERANKER, **small, "learning_rate": 1e-12, "evaluations_per_epoch": 9}
    with pytest.raises(GateRefused, match=r"after [23]\d of 40 steps") as caught:
        train(root, "reranker", section)
    assert "more random_negatives" in str(caught.value)
    assert not (root / "models" / "fine_tuned_reranker").exists()


def test_tensorboard_shows_losses_and_validations(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the steps where they were measured, the base model's among them; the model is that of a silent run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny_embedder(root / "base")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(root / "curves"))
    section = {**EMBEDDING, "max_steps": 20, "epochs": 3, "evaluations_per_epoch": 1}
    silent = train(root, "embedding", {**section, "output_dir": "silent"})
    assert not (root / "curves").exists()
    shutil.rmtree(root / ".nearer" / "work", ignore_errors=True)
    (root / "silent").rename(root / "elsewhere")
    manifest = train(root, "embedding", {**section, "output_dir": "shown", "report_to": ["tensorboard"]})
    assert (manifest.fingerprint, manifest.files) == (silent.fingerprint, silent.files)
    curves = EventAccumulator(str(root / "curves"))
    curves.Reload()
    shown = {event.step: event.value for event in curves.Scalars("eval/ndcg_at_10")}
    history = {one["step"]: one["ndcg"] for one in manifest.metrics["history"]}
    assert shown == pytest.approx(history, abs=1e-6)
    assert 0 in shown
    assert [event.step for event in curves.Scalars("train/loss")][:2] == [1, 10]
    assert {"train/learning_rate", "train/grad_norm"} <= set(curves.Tags()["scalars"])


def test_a_package_that_is_missing_is_told_before_anything_is_loaded(root: Path) -> None:
    """With how to get it."""
    with pytest.raises(InputError, match="wandb, and its package is not installed"):
        train(root, "embedding", {**EMBEDDING, "base_model": "nowhere-yet", "report_to": ["wandb"]})


def test_a_diverged_run_ends_in_words(root: Path) -> None:
    """A learning rate that makes numbers of nothing is an error of the settings, not a traceback."""
    tiny_embedder(root / "base")
    with pytest.raises(InputError, match="training diverged"):
        train(root, "embedding", {**EMBEDDING, "learning_rate": 1e38, "warmup_share": 0.0, "max_grad_norm": 1e30})
    assert not (root / "models" / "fine_tuned_embedding" / "manifest.json").exists()


def test_no_memory_ends_in_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory is exit 4, with what to make smaller."""
    from nearer.train.loss import ContrastiveLoss

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tiny_embedder(root / "base")
    monkeypatch.setattr(ContrastiveLoss, "forward", fail)
    with pytest.raises(DoesNotFit, match="out of memory"):
        train(root, "embedding", {**EMBEDDING, "max_steps": 2})


def test_training_asks_nobody_and_leaves_nothing(root: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is opened, no file appears outside the artifacts root, and the work area is gone at the end."""
    opened: list[object] = []
    before = set(threading.enumerate())  # other tests' servers and clients

    def connect(_self: socket.socket, address: object) -> None:
        if threading.current_thread() not in before:
            opened.append(address)

    tiny_embedder(root / "base")
    monkeypatch.setattr(socket.socket, "connect", connect)
    before.discard(threading.current_thread())
    train(root, "embedding", {**EMBEDDING, "max_steps": 2})
    assert opened == []
    assert list(workdir.iterdir()) == []
    assert sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) == sorted(
        ["base", "datasets", "models", "work"]
    )
    assert not list((root / ".nearer").rglob("*.safetensors"))


def test_the_plan_says_what_is_there(root: Path) -> None:
    """Inputs that are there, that another job makes first, and that are resolved when it runs."""
    store = open_store(str(root))
    base = {"embedding": {"base_model": "org/model"}, "reranker": {"base_model": "models/fine_tuned_embedding"}}
    settings = Settings.model_validate({"artifacts": str(root), "train": base})
    plan = job.plan(settings, store, model="embedding")
    assert {entry.name: entry.state for entry in plan.inputs} == {
        "dataset": "there",
        "base_model": "hub id, resolved when it runs",
    }
    plan = job.plan(settings, store, model="reranker")
    assert {entry.name: entry.state for entry in plan.inputs}["base_model"] == "made by `train embedding` first"
    assert plan.output == f"{root}/models/fine_tuned_reranker"
