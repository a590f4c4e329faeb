"""The gradient of a vocabulary, made once a step.

Where a step passes through the model in groups of texts, PyTorch makes a dense gradient of the whole vocabulary for
each of them, nearly all zeros, and adds these up: with 250,037 rows of 384 numbers 384 MB a group, which was 30 % of a
training step on a CPU. Here each group gives the rows that it has read, and they become dense once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def gathered_gradient(model: Any) -> Iterator[None]:
    """Let the model's input embeddings make their gradient once a backward pass; the same but for rounding.

    Embeddings of a class of their own, which may do more than look up rows, are left alone, and so are those that do
    not train.

    Args:
        model: a SentenceTransformer or CrossEncoder on a CPU, whose every optimizer step is one backward pass.
    """
    embeddings = model.transformers_model.get_input_embeddings()
    if type(embeddings) is not nn.Embedding or not embeddings.weight.requires_grad:
        yield
        return
    embeddings.__class__ = _Gathered
    try:
        yield
    finally:
        embeddings.__class__ = nn.Embedding
        embeddings.__dict__.pop("shared", None)


class _Gathered(nn.Embedding):
    shared: Tensor | None = None
    """The weight, as all groups of this step have read it so far: what makes them meet again on the way back."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of what it overrides
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        if self.shared is None:
            self.shared = _Densify.apply(self.weight, self)  # type: ignore[no-untyped-call]
        return functional.embedding(input, self.shared, padding_idx=self.padding_idx, sparse=True)


class _Densify(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor, embeddings: _Gathered) -> Tensor:
        context.embeddings = embeddings
        return weight.view_as(weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        context.embeddings.shared = None
        return gradient.to_dense(), None
