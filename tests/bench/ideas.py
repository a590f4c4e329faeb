"""Ways to train an embedder that nearer does not have: what they are worth can be measured again (`recipes.py`).

Each is a context in which `nearer train` does otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from nearer.train import loop, loss


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
def decayed(factor: float) -> Iterator[None]:
    """Each layer learns at `factor` times the rate of the one above it (Howard & Ruder 2018, ULMFiT, sec. 3.2)."""
    plain = loop.make_trainer

    def make_trainer(model: Any, *parts: Any, **more: Any) -> Any:
        trainer = plain(model, *parts, **more)
        rate, decay = trainer.args.learning_rate, trainer.args.weight_decay
        layers = 1 + max(_layer(name) for name, _ in model.named_parameters())
        decaying = set(trainer.get_decay_parameter_names(model))
        groups = [
            {
                "params": [weight],
                "lr": rate * factor ** (layers - 1 - _layer(name)),
                "weight_decay": decay if name in decaying else 0.0,
            }
            for name, weight in model.named_parameters()
            if weight.requires_grad
        ]
        trainer.optimizer = torch.optim.AdamW(groups, fused=True)
        return trainer

    with patch.object(loop, "make_trainer", make_trainer):
        yield


def _layer(name: str) -> int:
    """-1 for the embeddings."""
    parts = name.split(".")
    return int(parts[parts.index("layer") + 1]) if "layer" in parts else -1


IDEAS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "mask": lambda: masked(0.0),
    "mask-above-0.02": lambda: masked(0.02),
    "layer-decay": lambda: decayed(0.8),
}
