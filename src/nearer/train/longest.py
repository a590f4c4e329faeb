"""Texts as long as the longest that a run can meet: to see whether they fit, before it meets them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from nearer.models.encode import tokenize

_LOOKED_AT: Final = 256


def longest(tokenizer: Any, texts: Iterable[str], *, prefix: str, most: int) -> int:
    """Tokens of the longest text, cut at `most`, as sought among those with the most characters."""
    known = [prefix + text for text in heapq.nlargest(_LOOKED_AT, texts, key=len)]
    return max(map(len, tokenize(tokenizer, known, max_tokens=most)["input_ids"]))


def stretch(features: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """The same rows (n, t), repeated until they are `length` long, with nothing that is padding."""
    columns = {name: torch.arange(length) % tensor.shape[1] for name, tensor in features.items()}
    found = {name: tensor[:, columns[name]] for name, tensor in features.items()}
    return {**found, "attention_mask": torch.ones_like(found["attention_mask"])}
