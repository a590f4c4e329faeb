"""`nearer train`: a dataset and a base model in, a tuned model out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nearer.models.source import ModelSource, find_model, known_config, model_state
from nearer.progress import Progress
from nearer.settings import Settings, resolve
from nearer.settings.train import EmbeddingSettings, RerankerSettings
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce

if TYPE_CHECKING:
    from nearer.corpus.dataset import Dataset
    from nearer.train.loop import Recipe, Result
    from nearer.train.rows import Material

FORMAT = 2
Model = Literal["embedding", "reranker"]
_KINDS = {"embedding": "embedder", "reranker": "reranker"}


def run(settings: Settings, store: Store, progress: Progress, *, model: Model) -> Manifest:
    """Train a model and publish it.

    Raises:
        InputError: dataset or base model are missing or cannot be used.
        ArtifactExists: another model stands at the output.
        Interrupted: SIGTERM; the same command goes on from the last checkpoint.
    """
    section = _section(settings, model)
    dataset = store.open(resolve.dataset_of(settings, section.dataset), kind="dataset")
    base = find_model(section.base_model, store=store)
    where = base.name if base.origin == "hub" else store.resolve(base.name)
    inputs = {
        "dataset": InputEntry(address=dataset.address, fingerprint=dataset.manifest.fingerprint),
        "base_model": InputEntry(address=where, fingerprint=base.fingerprint),
    }
    fields = section.result_fields()
    mark = fingerprint(job=f"train {model}", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)

    def build(directory: Path, work: WorkArea) -> Built:
        train = _train_embedding if model == "embedding" else _train_reranker
        return train(section, base, dataset.path, directory, work, seed=settings.seed, progress=progress)

    return produce(
        store,
        progress,
        kind=_KINDS[model],
        name=f"train {model}",
        address=section.output_dir,
        fingerprint=mark,
        inputs=inputs,
        settings=section.model_dump(mode="json"),
        build=build,
    )


def plan(settings: Settings, store: Store, *, model: Model) -> Plan:
    """What `run` would do; touches nothing, loads nothing."""
    section = _section(settings, model)
    address = resolve.dataset_of(settings, section.dataset)
    dataset = store.manifest(store.resolve(address))
    made = address == settings.generate.output_dir
    state = "there" if dataset else "made by `generate` first" if made else "missing"
    base_state: str = model_state(section.base_model, store=store)
    if model == "reranker" and settings.train.embedding and section.base_model == settings.train.embedding.output_dir:
        base_state = base_state if base_state == "there" else "made by `train embedding` first"
    return Plan(
        job=f"train {model}",
        inputs=(
            PlannedInput(name="dataset", address=store.resolve(address), state=state),
            PlannedInput(name="base_model", address=section.base_model, state=base_state),
        ),
        output=store.resolve(section.output_dir),
        state=store.foresee(section.output_dir, None),
        notes=(
            f"{section.epochs:g} epochs in batches of {section.batch_size}",
            f"{section.val_split:g} of the training queries validate",
            f"one process; a checkpoint every {section.checkpoint_steps} steps",
            *_memory(section, known_config(section.base_model, store=store)),
        ),
    )


def _memory(section: Any, config: dict[str, Any] | None) -> tuple[str, ...]:
    from nearer.train.fit import memory_notes

    reranker = isinstance(section, RerankerSettings)
    if reranker:
        passes = [(section.batch_size, section.max_pair_tokens)]
    else:
        texts = section.batch_size * (1 + section.negatives_per_query)
        passes = [(section.batch_size, section.max_query_tokens), (texts, section.max_passage_tokens)]
    return memory_notes(
        config=config,
        reranker=reranker,
        passes=passes,
        chunk=None,
        nodes=1,
        processes=1,
        deepspeed="none",
        precision=section.precision,
        device=section.device,
        checkpointing=False,
        dropout=section.dropout,
        freeze_embeddings=section.freeze.embeddings,
        freeze_layers=section.freeze.layers,
        lora_rank=None,
        lora_targets=None,
    )


def _section(settings: Settings, model: Model) -> Any:
    return resolve.embedding(settings) if model == "embedding" else resolve.reranker(settings)


def _train_embedding(
    section: EmbeddingSettings,
    base: ModelSource,
    dataset_path: Path,
    directory: Path,
    work: WorkArea,
    *,
    seed: int,
    progress: Progress,
) -> Built:
    from nearer.models.encode import Embedder
    from nearer.models.load import load_embedder
    from nearer.models.save import save_embedder
    from nearer.train.embedding import train_embedder

    dataset, material = _material(section, dataset_path, seed=seed)
    embedder = load_embedder(
        base,
        device=section.device,
        trust_remote_code=section.trust_remote_code,
        pooling=section.pooling,
        query_prefix=section.query_prefix,
        passage_prefix=section.passage_prefix,
        passage_template=dataset.chunking.template,
        chunker=dataset.chunking.chunker,
        chunk_tokens=dataset.chunking.max_tokens,
    )
    cut_by = dataset.chunking.tokenizer_sha256
    if dataset.chunking.chunker and cut_by and cut_by != embedder.contract.tokenizer_sha256:
        progress.warn(
            "the dataset's passages were measured with another model's tokenizer: an index of this model will hold "
            "passages of other lengths than it was trained on",
            way_out="set generate.embedder to the base model and generate again",
        )
    _shape(embedder.model, section)
    batch = min(section.batch_size, len(material.rows))
    recipe = _recipe(section, rows=len(material.rows), per_step=batch, seed=seed, device=embedder.model.device.type)
    result, facts = train_embedder(
        embedder,
        material,
        recipe=recipe,
        batch_size=batch,
        scale=section.scale,
        negatives_per_query=section.negatives_per_query,
        max_query_tokens=section.max_query_tokens,
        max_passage_tokens=section.max_passage_tokens,
        work=work,
        progress=progress,
    )
    contract = replace(embedder.contract, base_model=base.name, base_revision=base.revision)
    save_embedder(Embedder(contract=contract, model=embedder.model), directory)
    return _built(result, facts, recipe=recipe, device=str(embedder.model.device), progress=progress)


def _train_reranker(
    section: RerankerSettings,
    base: ModelSource,
    dataset_path: Path,
    directory: Path,
    work: WorkArea,
    *,
    seed: int,
    progress: Progress,
) -> Built:
    import torch

    from nearer.models.load import is_cross_encoder, load_reranker
    from nearer.models.save import save_reranker
    from nearer.models.score import Reranker
    from nearer.train.reranker import train_reranker

    dataset, material = _material(section, dataset_path, seed=seed)
    torch.manual_seed(seed)  # of a fresh head's weights
    reranker = load_reranker(
        base,
        device=section.device,
        trust_remote_code=section.trust_remote_code,
        max_pair_tokens=section.max_pair_tokens,
        passage_template=dataset.chunking.template,
        new_head=True,
    )
    _shape(reranker.model, section)
    width = 1 + section.hard_negatives + section.random_negatives
    recipe = _recipe(
        section,
        rows=len(material.rows),
        per_step=section.batch_size / width,
        seed=seed,
        device=reranker.model.device.type,
    )
    result, facts = train_reranker(
        reranker,
        material,
        recipe=recipe,
        batch_size=section.batch_size,
        hard_negatives=section.hard_negatives,
        random_negatives=section.random_negatives,
        has_head=is_cross_encoder(base),
        work=work,
        progress=progress,
    )
    contract = replace(
        reranker.contract,
        base_model=base.name,
        base_revision=base.revision,
        chunker=dataset.chunking.chunker,
        chunk_tokens=dataset.chunking.max_tokens,
    )
    save_reranker(Reranker(contract=contract, model=reranker.model), directory)
    return _built(result, facts, recipe=recipe, device=str(reranker.model.device), progress=progress)


def _material(section: Any, dataset_path: Path, *, seed: int) -> tuple[Dataset, Material]:
    from nearer.corpus.dataset import Dataset
    from nearer.train.rows import prepare

    dataset = Dataset.load(dataset_path)
    material = prepare(
        dataset,
        val_split=section.val_split,
        validation_queries_max=section.validation_queries,
        validation_passages_max=section.validation_passages,
        seed=seed,
    )
    return dataset, material


def _shape(model: Any, section: Any) -> None:
    from nearer.train.trainable import freeze, set_dropout

    freeze(model, embeddings=section.freeze.embeddings, layers=section.freeze.layers)
    if section.dropout is not None:
        set_dropout(model, section.dropout)


def _recipe(section: Any, *, rows: int, per_step: float, seed: int, device: str) -> Recipe:
    from nearer.train.hardware import choose_precision
    from nearer.train.loop import Recipe
    from nearer.train.schedule import evaluation_steps, steps_of

    steps = steps_of(rows, epochs=section.epochs, per_step=per_step, max_steps=section.max_steps)
    return Recipe(
        steps=steps,
        evaluate_at=evaluation_steps(steps, rows=rows, per_step=per_step, per_epoch=section.evaluations_per_epoch),
        patience=section.patience,
        learning_rate=section.learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        precision=choose_precision(section.precision, device=device),
        checkpoint_steps=section.checkpoint_steps,
        seed=seed,
    )


def _built(result: Result, facts: dict[str, Any], *, recipe: Recipe, device: str, progress: Progress) -> Built:
    base, best = result.history[0], result.history[result.best_step]
    if result.best_step == 0:
        progress.warn(
            "training did harm: every validation is worse than the base model's by more than its standard error, so "
            "the model that is published has the base model's weights",
            base_ndcg=round(base, 4),
        )
    metrics = {
        "base_ndcg": base,
        "best_ndcg": best,
        "best_step": result.best_step,
        "steps": result.steps,
        "kept_base": result.best_step == 0,
        "cpu_seconds": round(result.cpu_seconds, 1),
        "history": [{"step": step, "ndcg": value} for step, value in sorted(result.history.items())],
        **facts,
    }
    return Built(metrics=metrics, environment={"device": device, "precision": recipe.precision})
