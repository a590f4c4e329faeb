"""One training from its inputs to a saved model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from nearer.corpus.dataset import Dataset
from nearer.errors import GateRefused
from nearer.models.encode import Embedder, pad, tokenize, use_all_cores
from nearer.models.load import is_cross_encoder, load_embedder, load_reranker
from nearer.models.save import save_embedder, save_reranker
from nearer.models.score import Reranker
from nearer.models.source import ModelSource
from nearer.progress import Progress
from nearer.records import Hit
from nearer.store import Built, WorkArea
from nearer.train.adapters import Adapters, add_adapters
from nearer.train.embedding import probe_embedder, train_embedder
from nearer.train.hardware import choose_precision
from nearer.train.lesson import prepare_lesson
from nearer.train.orders import FINISHED, EmbeddingTraining, RerankerTraining, Task, Training
from nearer.train.recipe import Method, Recipe, Result
from nearer.train.reranker import probe_reranker, train_reranker
from nearer.train.rows import Material, prepare
from nearer.train.schedule import evaluation_steps, steps_of
from nearer.train.states import put_weights
from nearer.train.trainable import freeze, freeze_unreached, set_dropout
from nearer.train.weight import weigh
from nearer.train.world import ALONE

_TOLERANCE: Final = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}
"""How far a score of the saved model may lie from what was measured in memory, relative to the largest one. Summing in
another order costs 1e-6; what is looked for are weights that were not saved, which cost everything. In bf16 (under
DeepSpeed the model itself is) a score has eight bits."""


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


def publish(task: Task, loaded: Loaded, trained: Trained, directory: Path, *, progress: Progress) -> Built:
    """Save the model that has the best weights, and see that what was saved is that model.

    Raises:
        GateRefused: read from the disk, it scores otherwise than it did in memory.
    """
    if loaded.adapters:
        loaded.adapters.merge(directory)
    tuned, dataset = loaded.tuned, loaded.dataset
    contract = replace(tuned.contract, base_model=task.base.name, base_revision=task.base.revision)
    if isinstance(tuned, Embedder):
        save_embedder(Embedder(contract=contract, model=tuned.model), directory)
    else:
        contract = replace(contract, chunker=dataset.chunking.chunker, chunk_tokens=dataset.chunking.max_tokens)
        save_reranker(Reranker(contract=contract, model=tuned.model), directory)
    _compare_scores(task, trained, dataset, directory)
    if trained.ranked and isinstance(task.training, RerankerTraining):
        weighed = _weigh(task, task.training, trained.ranked, dataset, directory, progress=progress)
        trained = replace(trained, facts={**trained.facts, **weighed})
    return _built(trained, progress=progress)


def leave(trained: Trained, work: WorkArea) -> None:
    """Put all that `publish` needs into the work area, so that one process can do it alone, at any later time."""
    temporary = work.path / f"{FINISHED}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    (temporary / "trained.json").write_text(json.dumps(asdict(trained)), encoding="utf-8")
    shutil.copyfile(work.path / "best.safetensors", temporary / "best.safetensors")
    shutil.rmtree(work.path / FINISHED, ignore_errors=True)
    temporary.rename(work.path / FINISHED)
    work.share(FINISHED)


def take_up(task: Task, work: WorkArea) -> tuple[Loaded, Trained]:
    """What `leave` left: the base model with the best weights, on the CPU."""
    from safetensors.torch import load_file

    place = work.bring(FINISHED)
    raw = json.loads((place / "trained.json").read_text(encoding="utf-8"))
    history = {int(step): value for step, value in raw["result"].pop("history").items()}
    ranked = {query: [Hit(*pair) for pair in hits] for query, hits in raw["ranked"].items()}
    trained = Trained(**{**raw, "result": Result(history=history, **raw["result"]), "ranked": ranked})
    loaded = load(task, device="cpu")
    if trained.result.best_step:
        put_weights(loaded.tuned.model, load_file(place / "best.safetensors"), world=ALONE)
    return loaded, trained


def _compare_scores(task: Task, trained: Trained, dataset: Dataset, directory: Path) -> None:
    result = trained.result
    source = ModelSource(name=str(directory), path=directory, fingerprint="", origin="directory", revision="")
    material = material_of(task, dataset)
    if isinstance(task.training, EmbeddingTraining):
        found = probe_embedder(load_embedder(source, device="cpu"), material, world=ALONE)
    else:
        found = probe_reranker(load_reranker(source, device="cpu"), material, world=ALONE)
    expected = result.scores if result.best_step else result.base_scores
    largest = max(map(abs, expected))
    apart = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    precision = "fp32" if trained.facts.get("processes") is None else trained.precision
    if apart > _TOLERANCE[precision] * max(largest, 1.0):
        raise GateRefused(
            f"the model that was saved is not the one that was trained: a score is off by {apart:.3g}",
            where=str(directory),
            rule=f"read from the disk, its scores differ from those in memory by at most {_TOLERANCE[precision]:g}",
            way_out="this is a fault of nearer or of a library: report it with the settings",
        )


def _weigh(
    task: Task,
    training: RerankerTraining,
    ranked: Mapping[str, list[Hit]],
    dataset: Dataset,
    directory: Path,
    *,
    progress: Progress,
) -> dict[str, Any]:
    """Choose the weight of the reranker in a directory, and write it into its contract; facts for the manifest."""
    material = material_of(task, dataset)
    source = ModelSource(name=str(directory), path=directory, fingerprint="", origin="directory", revision="")
    reranker = load_reranker(source, device=training.device)
    found = weigh(
        reranker,
        ranked,
        material.validation,
        material.texts,
        depth=training.rerank_depth,
        batch_tokens=2048,  # small batches stay in a CPU's cache; a GPU's memory holds more than these anyway
        progress=progress,
    )
    replace(reranker.contract, rerank_weight=found.weight).save(directory)
    progress.say("weight of the reranker beside its retriever", **found.facts())
    if found.weight == 0:
        progress.warn(
            "the reranker brings nothing on the validation queries beside the retriever's own scores, so its weight is "
            "0",
            without_reranker=round(found.without, 4),
            reranker_alone=round(found.alone, 4),
        )
    return found.facts()


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


def _built(trained: Trained, *, progress: Progress) -> Built:
    result = trained.result
    base, best = result.history[0], result.history[result.best_step]
    if result.best_step == 0:
        progress.warn(
            "training did harm: every validation is worse than the base model's by more than a standard error, so "
            "the model that is published has the base model's weights",
            base_ndcg=round(base, 4),
        )
    metrics = {
        "base_ndcg": base,
        "best_ndcg": best,
        "best_step": result.best_step,
        "steps": result.steps,
        "kept_base": result.best_step == 0,
        "cpu_seconds": round(result.cpu_seconds, 3),
        "history": [{"step": step, "ndcg": value} for step, value in sorted(result.history.items())],
        **trained.facts,
    }
    return Built(metrics=metrics, environment={"device": trained.device, "precision": trained.precision})
