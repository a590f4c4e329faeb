"""Steps to tensors: the right texts with prefixes, cut, in groups, and relations that follow them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from nearer.models.encode import Embedder
from nearer.models.load import load_embedder, load_reranker
from nearer.models.source import ModelSource
from nearer.testing import korean_dataset, tiny_cross_encoder, tiny_embedder
from nearer.train import collate
from nearer.train.collate import EmbedderCollator, RerankerCollator, truncated_share
from nearer.train.loss import POSITIVE, ContrastiveLoss, PairLoss
from nearer.train.rows import Material, prepare
from nearer.train.schedule import Schedule
from nearer.train.world import World


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


@pytest.fixture(scope="module")
def material() -> Material:
    return prepare(korean_dataset(30, 1), val_split=0.2, validation_queries_max=50, validation_passages_max=50, seed=1)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    path = tiny_embedder(tmp_path_factory.mktemp("bert"))
    return load_embedder(source_of(path), query_prefix="query: ", passage_prefix="passage: ")


def collator_of(material: Material, embedder: Embedder, *, groups: bool, longest: int = 256) -> EmbedderCollator:
    return EmbedderCollator(
        material=material,
        schedule=Schedule(material=material, hard=2, random=0, seed=3),
        tokenizer=embedder.model.tokenizer,
        rows=8,
        query_prefix="query: ",
        passage_prefix="passage: ",
        max_query_tokens=longest,
        max_passage_tokens=longest,
        groups=groups,
    )


def features_of(batch: dict) -> list[dict]:
    """What SentenceTransformerTrainer makes of a batch."""
    found: dict[str, dict] = {}
    for name, tensor in batch.items():
        if name != "label":
            prefix, _, part = name.partition("_")
            found.setdefault(prefix, {})[part] = tensor
    return list(found.values())


def test_relations_follow_their_texts(material: Material, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and texts in any groups: the text in a query's POSITIVE column is its answer, prefix and all."""
    monkeypatch.setattr(collate, "_MAX_PADDING", 0.0)
    monkeypatch.setattr(collate, "length_groups", partial(collate.length_groups, min_rows=1))
    collator = collator_of(material, embedder, groups=True)
    batch = collator([{"step": 2}])
    groups = [group["input_ids"] for group in features_of(batch)]
    assert len(groups[0]) < 8
    tokenizer = embedder.model.tokenizer
    rows = [tokenizer.decode(row, skip_special_tokens=True) for group in groups for row in group]
    queries, texts = rows[:8], rows[8:]

    def said(text: str) -> str:
        found: str = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
        return found

    examples = {said("query: " + material.queries[one.row.query_id]): one for one in collator.schedule.batch(2, rows=8)}
    assert set(queries) == set(examples)
    assert queries != list(examples)
    for query, relations in zip(queries, batch["label"].tolist(), strict=True):
        assert relations.count(POSITIVE) == 1
        assert texts[relations.index(POSITIVE)] == said("passage: " + material.texts[examples[query].row.positive])


@pytest.mark.parametrize("chunk", [None, 3])
def test_a_trial_s_texts_are_as_long_as_the_longest(
    material: Material, embedder: Embedder, tmp_path: Path, chunk: int | None
) -> None:
    """Of the whole material, cut where training cuts, padding none: no step of the run is larger."""
    encode = embedder.model.tokenizer
    collator = replace(collator_of(material, embedder, groups=True), longest=True, chunk=chunk, plain=chunk is None)
    collator.max_passage_tokens = 30
    of_queries = max(len(encode("query: " + text)["input_ids"]) for text in material.queries.values())
    for number, group in enumerate(features_of(collator([{"step": 0}]))):
        ids, mask = group["input_ids"], group["attention_mask"]
        assert ids.shape[1] == (of_queries if number < -(-8 // (chunk or 8)) else 30)
        assert mask.shape == ids.shape
        assert mask.all()
    reranker = load_reranker(source_of(tiny_cross_encoder(tmp_path)))
    pairs = RerankerCollator(
        material=material, schedule=Schedule(material=material, hard=1, random=2, seed=3),
        tokenizer=reranker.model.tokenizer, pairs=16, query_prefix="", passage_prefix="", max_pair_tokens=40,
        groups=True, chunk=chunk, plain=chunk is None, longest=True,
    )([{"step": 0}])  # fmt: skip
    del pairs["label"]
    assert {tensor.shape[1] for group in pairs.values() for tensor in group.values()} == {40}


def test_groups_change_neither_loss_nor_gradient(material: Material, embedder: Embedder) -> None:
    """A step in several forward passes learns what it would learn in one."""
    results = []
    model = embedder.model.eval()
    for groups in (True, False):
        model.zero_grad()
        batch = collator_of(material, embedder, groups=groups)([{"step": 1}])
        loss = ContrastiveLoss(model, scale=20.0)(features_of(batch), batch["label"])
        loss.backward()
        results.append((float(loss.detach()), next(model.parameters()).grad.clone()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_groups_of_pairs_change_no_loss(material: Material, tmp_path: Path) -> None:
    """The same for pairs: every label stays with its pair."""
    reranker = load_reranker(source_of(tiny_cross_encoder(tmp_path)))
    losses, labels = [], []
    for groups in (True, False):
        collator = RerankerCollator(
            material=material,
            schedule=Schedule(material=material, hard=1, random=2, seed=3),
            tokenizer=reranker.model.tokenizer,
            pairs=16,
            query_prefix="",
            passage_prefix="",
            max_pair_tokens=256,
            groups=groups,
        )
        batch = collator([{"step": 1}])
        labels.append(batch.pop("label"))
        loss = PairLoss(reranker.model.eval(), positive_weight=3.0)(list(batch.values()), labels[-1])
        losses.append(float(loss.detach()))
        assert (len(batch) > 1) == groups
        assert all("token_type_ids" in group for group in batch.values())
    assert labels[0].sum() == labels[1].sum() == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(("size", "chunk"), [(1, None), (2, None), (3, 2), (5, 3)])
def test_lists_stay_whole_in_every_process(material: Material, tmp_path: Path, size: int, chunk: int | None) -> None:
    """All processes together have the step's pairs once, each list in one process, and all lists count 1 together."""
    reranker = load_reranker(source_of(tiny_cross_encoder(tmp_path)))
    schedule = Schedule(material=material, hard=1, random=2, seed=3)
    expected = {(pair.query_id, pair.key) for pair in schedule.pairs(1, count=16)}
    texts: list[tuple[int, ...]] = []
    counted = 0.0
    for rank in range(size):
        collator = RerankerCollator(
            material=material, schedule=schedule, tokenizer=reranker.model.tokenizer, pairs=16, query_prefix="",
            passage_prefix="", max_pair_tokens=256, groups=size == 1, lists=True, world=World(rank=rank, size=size),
            chunk=chunk, plain=size == 1,
        )  # fmt: skip
        batch = collator([{"step": 1}])
        labels = batch.pop("label")
        rows = [tuple(row) for group in batch.values() for row in group["input_ids"].tolist()]
        assert len(rows) == len(labels)
        for number in labels[:, 2].unique():
            of_list = labels[:, 2] == number
            assert (int(of_list.sum()), float(labels[of_list, 0].sum())) == (4, 1.0)
        counted += float(labels[labels[:, 0] > 0, 1].sum())
        if float(labels[:, 1].sum()):  # else it only goes along
            texts += rows
    assert counted == pytest.approx(1.0)
    assert len(texts) == len(expected) == 16


def test_long_texts_are_cut_and_counted(material: Material, embedder: Embedder) -> None:
    """No tensor is longer than its maximum, and the share of cut texts is told."""
    batch = collator_of(material, embedder, groups=True, longest=12)([{"step": 0}])
    assert max(group["input_ids"].shape[1] for group in features_of(batch)) == 12
    texts = ["가습기", "가습기 " * 40]
    assert truncated_share(embedder.model.tokenizer, texts, max_tokens=12) == 0.5
    assert truncated_share(embedder.model.tokenizer, texts, max_tokens=42) == 0.0
