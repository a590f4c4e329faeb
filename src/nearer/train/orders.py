"""What is to be trained, in a form that can be sent to another process; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from nearer.models.source import ModelSource
from nearer.store import WorkArea

FINISHED: Final = "finished"
"""The piece of a work area that holds a training that is over, and whose model is not published yet."""


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Parts of the encoder that do not train: token embeddings, the first layers."""

    embeddings: bool
    layers: int


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters that train in the weights' place; `targets`: the layers' names, None: the usual ones."""

    rank: int
    alpha: float
    targets: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained: the settings `train.embedding` or `train.reranker`, each field as it is told there."""

    batch_size: int
    epochs: float
    max_steps: int | None
    val_split: float
    learning_rate: float
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    dropout: float | None
    freeze: Freeze
    lora: Lora | None
    evaluations_per_epoch: int
    patience: int
    validation_passages: int
    validation_queries: int
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    device: Literal["auto", "cpu", "cuda"]
    checkpoint_steps: int
    trust_remote_code: bool
    nodes: int | None
    gpus_per_node: int | None
    deepspeed: str
    activation_checkpointing: bool
    chunk_size: int | None
    report_to: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EmbeddingTraining(Training):
    """How an embedder is trained."""

    scale: float
    negatives_per_query: int
    max_query_tokens: int
    max_passage_tokens: int
    pooling: Literal["auto", "mean", "cls", "lasttoken"]
    query_prefix: str | None
    passage_prefix: str | None


@dataclass(frozen=True, kw_only=True)
class RerankerTraining(Training):
    """How a reranker is trained."""

    loss: Literal["binary", "listwise"]
    hard_negatives: int
    random_negatives: int
    negatives_from: Literal["auto", "dataset", "retriever"]
    negatives_depth: int
    negatives_passages: int
    curriculum: float
    max_pair_tokens: int
    rerank_depth: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to train on what.

    Args:
        training: how, and which of the two models.
        base: the base model, on this machine.
        dataset_path: the dataset, likewise.
        seed: of every draw.
        retriever: the embedder that the reranker comes after; None: nobody knows.
    """

    training: EmbeddingTraining | RerankerTraining
    base: ModelSource
    dataset_path: Path
    seed: int
    retriever: ModelSource | None = None


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What each worker of a machine is told.

    Args:
        task: what to train.
        cuda: on GPUs.
        chunk: texts that pass through the model at once.
        area: the work area, on the machine that keeps it.
        far: whether it is shared with a store.
        scratch: a directory for this run of this machine.
        rehearse: see whether the longest texts fit, and end.
    """

    task: Task
    cuda: bool
    chunk: int | None
    area: Path | None
    far: bool
    scratch: Path
    rehearse: bool = False


def is_finished(work: WorkArea) -> bool:
    """Whether the training is over, so that its model can be published by this process alone."""
    return FINISHED in work.shared() or (work.path / FINISHED).is_dir()
