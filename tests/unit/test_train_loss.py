"""The losses against their formulas and against sentence-transformers' own."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.models.load import load_embedder, load_reranker
from nearer.models.source import ModelSource
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder
from nearer.train.loss import NEGATIVE, NEITHER, POSITIVE, ContrastiveLoss, ListLoss, PairLoss, contrast
from nearer.train.world import ALONE


def source_of(path: Path) -> ModelSource:
    return ModelSource(name="base", path=path, fingerprint="f", origin="directory", revision="f")


def diagonal(rows: int, columns: int) -> torch.Tensor:
    labels = torch.full((rows, columns), NEGATIVE, dtype=torch.int8)
    labels[range(rows), range(rows)] = POSITIVE
    return labels


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 5), more=st.integers(0, 6), scale=st.floats(0.5, 60), seed=st.integers(0, 999))
def test_the_contrastive_loss_is_its_formula(rows: int, more: int, scale: float, seed: int) -> None:
    """-log of the answer's share among the answer and all negatives; what is neither is in no sum."""
    torch.manual_seed(seed)
    queries = torch.nn.functional.normalize(torch.randn(rows, 7, dtype=torch.double), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(rows + more, 7, dtype=torch.double), dim=1)
    labels = diagonal(rows, rows + more)
    labels[(torch.rand(labels.shape) < 0.3) & (labels != POSITIVE)] = NEITHER
    expected = 0.0
    for row in range(rows):
        weights = [math.exp(scale * float(queries[row] @ text)) for text in texts]
        counted = [weight for weight, label in zip(weights, labels[row], strict=True) if label != NEITHER]
        expected -= math.log(weights[row] / sum(counted)) / rows
    assert float(contrast(queries, texts, labels, scale=scale)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_order_of_the_texts_does_not_matter() -> None:
    """Texts in another order, their relations with them, give the same loss and gradient."""
    torch.manual_seed(0)
    queries, texts = torch.randn(4, 8, dtype=torch.double), torch.randn(9, 8, dtype=torch.double, requires_grad=True)
    labels, order = diagonal(4, 9), torch.randperm(9)
    one = contrast(queries, texts, labels, scale=3.0)
    (gradient,) = torch.autograd.grad(one, texts)
    other = contrast(queries, texts[order], labels[:, order], scale=3.0)
    (gradient_other,) = torch.autograd.grad(other, texts)
    assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-12)
    assert torch.allclose(gradient, gradient_other)


def test_what_is_neither_gets_no_gradient() -> None:
    """A text that is masked for every query is not moved."""
    texts = torch.randn(4, 8, requires_grad=True)
    labels = diagonal(2, 4)
    labels[:, 3] = NEITHER
    contrast(torch.randn(2, 8), texts, labels, scale=5.0).backward()
    assert texts.grad is not None
    assert texts.grad[3].abs().max() == 0
    assert texts.grad[2].abs().max() > 0


def test_without_masks_it_is_multiple_negatives_ranking(tmp_path: Path) -> None:
    """The same loss and the same gradients as sentence-transformers' MultipleNegativesRankingLoss."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = load_embedder(source_of(tiny_embedder(tmp_path))).model.eval()
    documents = korean_documents(4, 0)
    columns = [
        [document["hypothetical_questions"][0] for document in documents],
        [document["content"] for document in documents],
        [document["title"] for document in documents],
    ]
    features = [{**model.preprocess(texts)} for texts in columns]
    loss = MultipleNegativesRankingLoss(model, scale=20.0)([dict(part) for part in features], torch.empty(0))
    loss.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    ours = ContrastiveLoss(model, scale=20.0)([dict(part) for part in features], diagonal(4, 8))
    ours.backward()
    assert float(ours.detach()) == pytest.approx(float(loss.detach()), abs=1e-6)
    assert expected.keys() == {name for name, weight in model.named_parameters() if weight.grad is not None}
    for name, weight in model.named_parameters():
        if name in expected:
            assert torch.allclose(weight.grad, expected[name], atol=1e-6), name


def test_the_pair_loss_is_binary_cross_entropy(tmp_path: Path) -> None:
    """The same as sentence-transformers' BinaryCrossEntropyLoss of the same pairs, whatever groups they come in."""
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    model = load_reranker(source_of(tiny_cross_encoder(tmp_path))).model.eval()
    documents = korean_documents(6, 0)
    queries = [document["hypothetical_questions"][0] for document in documents]
    texts = [document["content"] for document in documents]
    labels = torch.tensor([1.0, 0, 0, 1, 0, 0])
    expected = BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(2.0))([queries, texts], labels)
    groups = [range(2), range(2, 6)]
    features = [model.preprocess([(queries[row], texts[row]) for row in group]) for group in groups]
    ours = PairLoss(model, positive_weight=2.0)(features, labels, prompt=None, task=None)
    assert float(ours.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


class Said(torch.nn.Module):
    """A cross-encoder whose logits are given."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": features["logits"][:, None]}


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6), parts=st.integers(1, 3), data=st.randoms())
def test_the_listwise_loss_is_its_formula_however_it_is_cut(sizes: list[int], parts: int, data: Any) -> None:
    """Lists of any lengths, pairs in any order and in any groups, lists over several processes: loss and gradient."""
    pairs = [(number, place) for number, size in enumerate(sizes) for place in range(size)]  # place 0: the answer
    scores = {pair: data.uniform(-30, 30) for pair in pairs}
    data.shuffle(pairs)
    logits = torch.tensor([scores[pair] for pair in pairs], dtype=torch.double, requires_grad=True)
    each = [
        torch.nn.functional.cross_entropy(
            torch.stack([logits[pairs.index((number, place))] for place in range(size)]), torch.tensor(0)
        )
        for number, size in enumerate(sizes)
    ]
    expected = torch.stack(each).mean()
    (gradient,) = torch.autograd.grad(expected, logits)
    loss = ListLoss(Said())
    said = torch.tensor([[place == 0, 1 / len(sizes), number] for number, place in pairs], dtype=torch.double)
    cut = data.randrange(len(pairs) + 1)
    groups = [{"logits": logits[:cut].detach()}, {"logits": logits[cut:].detach()}]
    assert float(loss(groups, said)) == pytest.approx(float(expected.detach()), abs=1e-4)
    total, found = 0.0, torch.zeros(len(pairs))
    for part in range(parts):  # each process has the lists whose number is its own
        mine = [row for row, (number, _) in enumerate(pairs) if number % parts == part]
        if mine:
            value, slope = loss.slopes([logits[mine].detach()], said[mine], world=ALONE)
            total += float(value)
            found[mine] = slope.float()
    assert total == pytest.approx(float(expected.detach()), abs=1e-4)
    assert torch.allclose(found, gradient.float(), atol=1e-5)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_the_gradient_is_that_of_the_whole_batch_however_it_is_cut(tmp_path: Path, scale: float, cosine: bool) -> None:
    """Chunk by chunk, texts in another order, at a temperature of 1 and at another: every parameter's gradient."""
    model = load_embedder(source_of(tiny_embedder(tmp_path, architecture="gpt_neox")), device="cpu").model
    texts = [f"{document['title']} {document['content']}" for document in korean_documents(7, 3)]
    labels = diagonal(3, 4)
    labels[0, 3], labels[2, 1] = NEITHER, NEITHER
    loss = ContrastiveLoss(model, scale=scale, cosine=cosine)

    def features(rows: list[int]) -> dict[str, torch.Tensor]:
        return dict(model.tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt"))

    value = loss([features([0, 1, 2]), features([3, 4, 5, 6])], labels)
    value.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    groups = [features(rows) for rows in ([0, 1], [2], [6, 3], [5, 4])]  # texts 3, 0, 2, 1 of the labels' columns
    with torch.no_grad():
        outputs = [loss.outputs(group) for group in groups]
    order = torch.argsort(torch.tensor([3, 0, 2, 1]))
    said = {"query_groups": 2, "rows": 3, "order": order, "relations": labels}
    same, slope = loss.slopes(outputs, said, world=ALONE)
    assert float(same) == pytest.approx(float(value.detach()), rel=1e-5)
    for group, part in zip(groups, torch.split(slope, [2, 1, 2, 2]), strict=True):
        (loss.outputs(group) * part).sum().backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-4
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) < 1e-5 * max(1.0, largest), name
