"""The gradient of a vocabulary, of which a step touches a few rows.

Where a step passes through the model in groups of texts, PyTorch makes a dense gradient of the whole vocabulary for
each of them, nearly all zeros, and adds these up: with 250,037 rows of 384 numbers 384 MB a group, which was 30 % of a
training step on a CPU. Here each group gives the rows that it has read, and they are added, once a step, to a dense
gradient that is kept, in which no more is zeroed than what was touched.
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
    not train, and those whose weight another layer shares.

    Args:
        model: a SentenceTransformer or CrossEncoder on a CPU, whose gradients are taken away between optimizer steps.
    """
    embeddings = model.transformers_model.get_input_embeddings()
    weight = getattr(embeddings, "weight", None)
    users = sum(own is weight for module in model.modules() for own in module._parameters.values())  # noqa: SLF001 - the public way leaves shared ones out
    if type(embeddings) is not nn.Embedding or not embeddings.weight.requires_grad or users != 1:
        yield
        return
    embeddings.__class__ = _Gathered
    try:
        yield
    finally:
        embeddings.__class__ = nn.Embedding
        for name in ("shared", "dense", "touched"):
            embeddings.__dict__.pop(name, None)


class _Gathered(nn.Embedding):
    shared: Tensor | None = None
    """The weight, as all groups of this step have read it so far: what makes them meet again on the way back."""
    dense: Tensor | None = None
    """The gradient that is kept: zeros but for the rows that were touched since its last use."""
    touched: tuple[Tensor, ...] = ()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of what it overrides
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        if self.shared is None:
            self.shared = _Gather.apply(self.weight, self)  # type: ignore[no-untyped-call]
        return functional.embedding(input, self.shared, padding_idx=self.padding_idx, sparse=True)

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Add to rows of the weight's gradient: to what is there, or to zeros."""
        if self.weight.grad is None:
            if self.dense is None:
                self.dense = torch.zeros_like(self.weight)
            for known in self.touched:
                self.dense.index_fill_(0, known, 0)
            self.touched = ()
            self.weight.grad = self.dense
        self.weight.grad.index_add_(0, rows, values)
        self.touched = (*self.touched, rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor, embeddings: _Gathered) -> Tensor:
        context.embeddings = embeddings
        return weight.view_as(weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, None]:
        embeddings = context.embeddings
        embeddings.shared = None
        embeddings.add(gradient._indices()[0], gradient._values())  # noqa: SLF001 - the public names ask for sorted rows
        # PyTorch would copy a gradient that somebody else holds too, so it is given to the weight directly.
        return None, None
