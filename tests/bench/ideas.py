"""Ways to train that nearer does not have: what they are worth can be measured again (`recipes.py`).

Each is a context in which `nearer train` does otherwise, for models of BERT's architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers.models.bert import modeling_bert as bert
from weights import source

from nearer.models.load import load_reranker
from nearer.train import collate, loss
from nearer.train.checkpoint import Journal
from nearer.train.trainer import make_trainer as plain_trainer


@contextmanager
def masked(margin: float) -> Iterator[None]:
    """Leave out of a step's negatives what scores above the answer's cosine plus a margin: it may answer as well.

    Zhang et al. 2025, Qwen3 Embedding, sec. 3 (there with a margin of 0.1). The model that trains is its own judge.
    """
    plain = loss.contrast

    def contrast(queries: Tensor, texts: Tensor, labels: Tensor, *, scale: float) -> Tensor:
        with torch.no_grad():
            scores = queries.float() @ texts.float().T
            own = scores[labels == loss.POSITIVE].unsqueeze(1)
            labels = labels.masked_fill((labels == loss.NEGATIVE) & (scores > own + margin), loss.NEITHER)
        return plain(queries, texts, labels, scale=scale)

    with patch.object(loss, "contrast", contrast):
        yield


@contextmanager
def paced(pace: Callable[[str, int], float]) -> Iterator[None]:
    """Each weight learns at a rate of its own: the run's, times what `pace` says of its name and the number of layers."""

    def make_trainer(model: Any, *parts: Any, **more: Any) -> Any:
        trainer = plain_trainer(model, *parts, **more)
        layers = 1 + max(layer(name) for name, _ in model.named_parameters())
        decaying = set(trainer.get_decay_parameter_names(model))
        groups = [
            {
                "params": [weight],
                "lr": trainer.args.learning_rate * pace(name, layers),
                "weight_decay": trainer.args.weight_decay if name in decaying else 0.0,
            }
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]
        trainer.optimizer = torch.optim.AdamW(groups, fused=True)
        return trainer

    with patch("nearer.train.loop.make_trainer", make_trainer):
        yield


def layer(name: str) -> int:
    """-1 for what belongs to none."""
    parts = name.split(".")
    return int(parts[parts.index("layer") + 1]) if "layer" in parts else -1


def decay(factor: float) -> Callable[[str, int], float]:
    """Each layer slower than the one above it (Howard & Ruder 2018, ULMFiT, sec. 3.2)."""
    return lambda name, layers: factor ** (layers - 1 - layer(name))


def fast_head(factor: float) -> Callable[[str, int], float]:
    """What is new in a reranker faster than what is not."""
    return lambda name, _layers: factor if "pooler" in name or "classifier" in name else 1.0


@contextmanager
def mean_pooled() -> Iterator[None]:
    """A reranker's head on the mean of all tokens instead of the first one."""
    forward, masks = bert.BertModel.forward, []

    def heard(self: Any, *arguments: Any, **named: Any) -> Any:
        masks.append(named["attention_mask"])
        try:
            return forward(self, *arguments, **named)
        finally:
            masks.pop()

    def pool(self: Any, hidden: Tensor) -> Tensor:
        mask = masks[-1].unsqueeze(-1).to(hidden.dtype)
        mean: Tensor = self.activation(self.dense((hidden * mask).sum(1) / mask.sum(1)))
        return mean

    with patch.object(bert.BertModel, "forward", heard), patch.object(bert.BertPooler, "forward", pool):
        yield


@contextmanager
def distilled(teacher: Path) -> Iterator[None]:
    """A query's answer and its own negatives shall lie apart as a reranker has them, beside the loss that there is.

    Ren et al. 2021, RocketQAv2, eq. 4: the divergence of the retriever's distribution over a list from the reranker's.
    """
    reranker = load_reranker(source(teacher), device="cpu", precision="bf16")
    plain_matrix, plain_loss = collate.relation_matrix, loss.contrast
    positive, negative = 2000.0, 1000.0  # a score is added to what says of the pair that it has one

    def relation_matrix(material: Any, examples: Any, keys: Any, **more: Any) -> Any:
        matrix = plain_matrix(material, examples, keys, **more).astype(np.float32)
        places, column = [], len(examples)
        for line, example in enumerate(examples):
            places += [(line, line), *((line, column + place) for place in range(len(example.negatives)))]
            column += len(example.negatives)
        scores = reranker.score(
            [(material.queries[examples[line].row.query_id], material.texts[keys[column]]) for line, column in places]
        )
        for (line, column), score in zip(places, scores.tolist(), strict=True):
            if matrix[line, column] != loss.NEITHER:
                matrix[line, column] = score + (positive if line == column else negative)
        return matrix

    def contrast(queries: Tensor, texts: Tensor, labels: Tensor, *, scale: float) -> Tensor:
        answers, listed = labels > (positive + negative) / 2, labels > negative / 2
        plain = torch.where(answers, loss.POSITIVE, torch.where(labels == loss.NEITHER, loss.NEITHER, loss.NEGATIVE))
        wanted = torch.where(answers, labels - positive, labels - negative).masked_fill(~listed, -torch.inf).softmax(1)
        scores = (scale * queries.float() @ texts.float().T).masked_fill(~listed, -torch.inf)
        apart = -(wanted * scores.log_softmax(1))[listed].sum() / len(labels)
        return plain_loss(queries, texts, plain, scale=scale) + apart

    with (
        patch.object(collate, "relation_matrix", relation_matrix),
        patch.object(loss, "contrast", contrast),
    ):
        yield


@contextmanager
def last() -> Iterator[None]:
    """The last step is published, whatever validation says."""
    with patch.object(Journal, "best_step", property(lambda journal: max(journal.history, default=0))):
        yield


IDEAS: Mapping[str, Callable[[Path], AbstractContextManager[None]]] = {
    "mask": lambda _: masked(0.0),
    "mask-above-0.02": lambda _: masked(0.02),
    "layer-decay": lambda _: paced(decay(0.8)),
    "distilled": distilled,
    "three-epochs-last": lambda _: last(),
    "fast-head": lambda _: paced(fast_head(16)),
    "mean-head": lambda _: mean_pooled(),
}
"""By the recipe's name; each is told where the reranker of the first recipes lies, or would."""
