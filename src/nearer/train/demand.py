"""What a training run asks of memory, as the settings have it; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nearer.train.orders import EmbeddingTraining, RerankerTraining


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a run asks of memory.

    Args:
        config: the base model's config.json; None if it is not known yet.
        reranker: whether a head with one label is put on the model.
        passes: (rows, tokens) that pass through the model in one step, over all processes, at their longest.
        chunk: of these rows, so many at once, on each process; None: all of its share.
        nodes: machines.
        processes: on each; None: one for each GPU that can be seen, else one.
        deepspeed: the setting.
        precision: the setting.
        device: the setting.
        checkpointing: only the input of each block is kept.
        dropout: the setting; None: the model's.
        freeze_embeddings: they do not train.
        freeze_layers: so many of the first do not train.
        lora_rank: of adapters; None: the weights train themselves.
        lora_targets: layers that get an adapter; None: the architecture's usual ones.
    """

    config: Mapping[str, Any] | None
    reranker: bool
    passes: Sequence[tuple[int, int]]
    chunk: int | None
    nodes: int
    processes: int | None
    deepspeed: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    device: Literal["auto", "cpu", "cuda"]
    checkpointing: bool
    dropout: float | None
    freeze_embeddings: bool
    freeze_layers: int
    lora_rank: int | None
    lora_targets: Sequence[str] | None


def demand_of(training: EmbeddingTraining | RerankerTraining, config: Mapping[str, Any] | None) -> Demand:
    """The demand of a training.

    Args:
        training: how it is told to be.
        config: the base model's config.json; None if it is not known yet.
    """
    if isinstance(training, RerankerTraining):
        passes = [(training.batch_size, training.max_pair_tokens)]
    else:
        texts = training.batch_size * (1 + training.negatives_per_query)
        passes = [(training.batch_size, training.max_query_tokens), (texts, training.max_passage_tokens)]
    return Demand(
        config=config,
        reranker=isinstance(training, RerankerTraining),
        passes=passes,
        chunk=training.chunk_size,
        nodes=training.nodes or _variable("NNODES") or 1,
        processes=training.gpus_per_node or _variable("NPROC_PER_NODE"),
        deepspeed=training.deepspeed,
        precision=training.precision,
        device=training.device,
        checkpointing=training.activation_checkpointing,
        dropout=training.dropout,
        freeze_embeddings=training.freeze.embeddings,
        freeze_layers=training.freeze.layers,
        lora_rank=training.lora.rank if training.lora else None,
        lora_targets=training.lora.targets if training.lora else None,
    )


def _variable(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and int(text) else None
