"""One training, from its inputs to the best weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from nearer.corpus.dataset import Dataset
from nearer.models.encode import Embedder, pad, tokenize, use_all_cores
from nearer.models.load import is_cross_encoder, load_embedder, load_reranker
from nearer.models.score import Reranker
from nearer.progress import Progress
from nearer.records import Hit
from nearer.store import WorkArea
from nearer.train.adapters import Adapters, add_adapters
from nearer.train.embedding import train_embedder
from nearer.train.hardware import choose_precision
from nearer.train.lesson import prepare_lesson
from nearer.train.orders import EmbeddingTraining, RerankerTraining, Task, Training
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.reranker import train_reranker
from nearer.train.rows import Material, prepare
from nearer.train.schedule import evaluation_steps, steps_of
from nearer.train.trainable import freeze, freeze_unreached, set_dropout


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model that is ready to be trained: what is to be held still is, adapters are in."""

    tuned: Embedder | Reranker
    dataset: Dataset
    adapters: Adapters | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a training went."""

    result: Result
    facts: Mapping[str, Any]
    device: str
    precision: str
    ranked: Mapping[str, list[Hit]]
    """Of a reranker: validation query id → what its retriever gives; empty where that is not known."""


def material_of(task: Task, dataset: Dataset) -> Material:
    """What trains, and what validates."""
    training = task.training
    return prepare(
        dataset,
        val_split=training.val_split,
        validation_queries_max=training.validation_queries,
        validation_passages_max=training.validation_passages,
        seed=task.seed,
    )


def load(task: Task, *, device: str) -> Loaded:
    """Load base model and dataset, and make the model trainable."""
    use_all_cores()
    training, dataset = task.training, Dataset.load(task.dataset_path)
    tuned: Embedder | Reranker
    if isinstance(training, EmbeddingTraining):
        tuned = load_embedder(
            task.base,
            device=device,  # type: ignore[arg-type]
            trust_remote_code=training.trust_remote_code,
            pooling=training.pooling,
            query_prefix=training.query_prefix,
            passage_prefix=training.passage_prefix,
            passage_template=dataset.chunking.template,
            chunker=dataset.chunking.chunker,
            chunk_tokens=dataset.chunking.max_tokens,
        )
    else:
        torch.manual_seed(task.seed)  # of a fresh head's weights
        tuned = load_reranker(
            task.base,
            device=device,  # type: ignore[arg-type]
            trust_remote_code=training.trust_remote_code,
            max_pair_tokens=training.max_pair_tokens,
            passage_template=dataset.chunking.template,
            new_head=True,
        )
    model: Any = tuned.model
    adapters = None
    if training.lora is not None:
        torch.manual_seed(task.seed)  # of the adapters
        adapters = add_adapters(
            model,
            rank=training.lora.rank,
            alpha=training.lora.alpha,
            targets=training.lora.targets,
            base=task.base.name,
        )
    else:
        freeze(model, embeddings=training.freeze.embeddings, layers=training.freeze.layers)
    model.eval()
    features = pad(model.tokenizer, tokenize(model.tokenizer, ["a"], max_tokens=8), [0])
    output = model({name: tensor.to(model.device) for name, tensor in features.items()})
    freeze_unreached(model, output["sentence_embedding" if isinstance(tuned, Embedder) else "scores"])
    if training.dropout is not None:
        set_dropout(model, training.dropout)
    return Loaded(tuned=tuned, dataset=dataset, adapters=adapters)


def train(task: Task, loaded: Loaded, *, method: Method, device: str, work: WorkArea, progress: Progress) -> Trained:
    """Train what was loaded, in place."""
    dataset, world = loaded.dataset, method.world
    ranked: Mapping[str, list[Hit]] = {}
    material = material_of(task, dataset)
    if task.training.activation_checkpointing:
        method = replace(method, separate=_checkpoint_activations(loaded.tuned.model, method))
    match task.training, loaded.tuned:
        case EmbeddingTraining() as training, Embedder() as embedder:
            _compare_tokenizers(embedder, dataset, progress)
            rows = len(material.rows)
            batch = min(training.batch_size, rows)
            recipe = _recipe(training, rows=rows, per_step=batch, seed=task.seed, device=device)
            result, facts = train_embedder(
                embedder,
                material,
                recipe=recipe,
                method=method,
                batch_size=batch,
                scale=training.scale,
                negatives_per_query=training.negatives_per_query,
                max_query_tokens=training.max_query_tokens,
                max_passage_tokens=training.max_passage_tokens,
                work=work,
                progress=progress,
            )
        case RerankerTraining() as training, Reranker() as reranker:
            material, lesson = prepare_lesson(
                task, training, dataset, material, world=world, device=device, work=work, progress=progress
            )
            ranked = lesson.ranked
            batch = training.batch_size
            if lesson.listwise:
                batch -= batch % lesson.width
            rows, per_step = len(material.rows), batch / lesson.width
            recipe = _recipe(training, rows=rows, per_step=per_step, seed=task.seed, device=device)
            result, facts = train_reranker(
                reranker,
                material,
                recipe=recipe,
                method=method,
                batch_size=batch,
                lesson=lesson,
                has_head=is_cross_encoder(task.base),
                work=work,
                progress=progress,
            )
        case training, tuned:
            raise TypeError(f"{type(training).__name__} cannot train {type(tuned).__name__}")
    named = torch.cuda.get_device_name() if device == "cuda" else device
    if world.size > 1 or method.deepspeed:
        facts |= {"processes": world.size}
    return Trained(result=result, facts=facts, device=named, precision=recipe.precision, ranked=ranked)


def _checkpoint_activations(model: Any, method: Method) -> bool:
    """Keep no activations inside a layer.

    ZeRO-3 takes weights away between forward and backward, which checkpoints that look at shapes do not stand. The
    other kind makes a backward pass inside the backward pass, of which ZeRO-3 stands one a step.

    Returns:
        Whether each forward pass must have a backward pass of its own.
    """
    from nearer.train.zero import stage_of

    reentrant = stage_of(method.deepspeed) == 3
    transformer = model.transformers_model
    transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        transformer.enable_input_require_grads()
    return reentrant


def _compare_tokenizers(embedder: Embedder, dataset: Dataset, progress: Progress) -> None:
    cut_by = dataset.chunking.tokenizer_sha256
    if dataset.chunking.chunker and cut_by and cut_by != embedder.contract.tokenizer_sha256:
        progress.warn(
            "the dataset's passages were measured with another model's tokenizer: an index of this model will hold "
            "passages of other lengths than it was trained on",
            way_out="set generate.embedder to the base model and generate again",
        )


def _recipe(training: Training, *, rows: int, per_step: float, seed: int, device: str) -> Recipe:
    steps = steps_of(rows, epochs=training.epochs, per_step=per_step, max_steps=training.max_steps)
    return Recipe(
        steps=steps,
        evaluate_at=evaluation_steps(steps, rows=rows, per_step=per_step, per_epoch=training.evaluations_per_epoch),
        patience=training.patience,
        learning_rate=training.learning_rate,
        warmup_share=training.warmup_share,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        precision=choose_precision(training.precision, device=device),
        checkpoint_steps=training.checkpoint_steps,
        seed=seed,
        device=device,
        report_to=tuple(training.report_to),
    )
