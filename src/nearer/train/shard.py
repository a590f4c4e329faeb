"""A model's outputs for many texts, computed by all processes together.

Each takes every n-th batch, and all take equally many: under ZeRO-3 a forward pass is a collective, and one process
that does one more waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from nearer.models.encode import Embedder, batches, pad, tokenize
from nearer.models.score import Reranker
from nearer.train.states import divided
from nearer.train.world import World

_BATCH_TOKENS: Final = 8192


def is_whole(model: Any, *, world: World) -> bool:
    """Whether a process can do without this: it is alone, and has all of the model."""
    return world.size == 1 and not any(divided(weight) for weight in model.parameters())


def vectors(
    embedder: Embedder, texts: Sequence[str], *, prefix: str, max_tokens: int | None, world: World
) -> np.ndarray:
    """What `Embedder.encode_queries` or `encode_passages` gives, (n, dimension) float32, on every rank."""

    def read(outputs: dict[str, Tensor]) -> Tensor:
        found = outputs["sentence_embedding"].float()
        return torch.nn.functional.normalize(found, dim=-1) if embedder.contract.normalize else found

    encoded = tokenize(embedder.model.tokenizer, [prefix + text for text in texts], max_tokens=max_tokens)
    return _outputs(embedder.model, encoded, read=read, world=world)


def logits(reranker: Reranker, pairs: Sequence[tuple[str, str]], *, world: World) -> np.ndarray:
    """What `Reranker.score` gives, (n,) float32, on every rank."""
    contract = reranker.contract
    encoded = tokenize(
        reranker.model.tokenizer,
        [contract.query_prefix + query for query, _ in pairs],
        [contract.passage_prefix + text for _, text in pairs],
        max_tokens=contract.max_pair_tokens,
    )
    return _outputs(reranker.model, encoded, read=lambda found: found["scores"].float().reshape(-1), world=world)


def _outputs(model: Any, encoded: Any, *, read: Callable[[dict[str, Tensor]], Tensor], world: World) -> np.ndarray:
    model.eval()
    every = list(batches([len(ids) for ids in encoded["input_ids"]], batch_tokens=_BATCH_TOKENS))
    own: list[tuple[list[int], np.ndarray]] = []
    with torch.no_grad():  # inference mode would leave its mark on the weights that ZeRO-3 gathers
        for first in range(0, len(every), world.size):
            world.check_stop()
            number = first + world.rank
            rows = every[number if number < len(every) else 0]
            moved = {name: tensor.to(model.device) for name, tensor in pad(model.tokenizer, encoded, rows).items()}
            found = read(model(moved)).cpu().numpy()
            if number < len(every):
                own.append((rows, found))
    places = [part for parts in world.gather(own) for part in parts]
    result = np.zeros((len(encoded["input_ids"]), *places[0][1].shape[1:]), dtype=np.float32)
    for rows, found in places:
        result[rows] = found
    return result
