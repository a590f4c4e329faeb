"""What a training run asks of memory, as the settings have it; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nearer.settings.train import EmbeddingSettings, RerankerSettings


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
        deepspeed: the setting; a file's own settings are not looked at.
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


def demand_of(section: EmbeddingSettings | RerankerSettings, config: Mapping[str, Any] | None) -> Demand:
    """The demand of a section of the settings, `train.embedding` or `train.reranker`.

    Args:
        section: of the settings.
        config: the base model's config.json; None if it is not known yet.
    """
    if isinstance(section, RerankerSettings):
        passes = [(section.batch_size, section.max_pair_tokens)]
    else:
        texts = section.batch_size * (1 + section.negatives_per_query)
        passes = [(section.batch_size, section.max_query_tokens), (texts, section.max_passage_tokens)]
    return Demand(
        config=config,
        reranker=isinstance(section, RerankerSettings),
        passes=passes,
        chunk=section.chunk_size,
        nodes=section.nodes or _variable("NNODES") or 1,
        processes=section.gpus_per_node or _variable("NPROC_PER_NODE"),
        deepspeed=section.deepspeed,
        precision=section.precision,
        device=section.device,
        checkpointing=section.activation_checkpointing,
        dropout=section.dropout,
        freeze_embeddings=section.freeze.embeddings,
        freeze_layers=section.freeze.layers,
        lora_rank=section.lora.rank if section.lora else None,
        lora_targets=section.lora.targets if section.lora else None,
    )


def _variable(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and int(text) else None
