"""`nearer train`: a dataset and a base model in, a tuned model out."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nearer.errors import InputError
from nearer.models.source import ModelSource, find_model, known_config, model_state
from nearer.progress import Progress
from nearer.settings import Settings, resolve
from nearer.settings.train import EmbeddingSettings, RerankerSettings, TrainSettings
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce
from nearer.train.demand import Demand, demand_of
from nearer.train.fit import memory_notes
from nearer.train.orders import EmbeddingTraining, Freeze, Lora, RerankerTraining, Task, is_finished

if TYPE_CHECKING:
    from nearer.train.place import Place

FORMATS = {"embedding": 4, "reranker": 7}
Model = Literal["embedding", "reranker"]
_KINDS = {"embedding": "embedder", "reranker": "reranker"}
_OF_LISTS = {"curriculum", "negatives_depth", "negatives_passages"}
"""What only hard negatives from a retriever's lists depend on."""


def run(settings: Settings, store: Store, progress: Progress, *, model: Model) -> Manifest:
    """Train a model and publish it.

    Raises:
        InputError: dataset or base model are missing or cannot be used.
        ArtifactExists: another model stands at the output.
        Interrupted: SIGTERM; the same command goes on from the last checkpoint.
    """
    section = _section(settings, model)
    _require_reporters(section)
    dataset = store.open(resolve.dataset_of(settings, section.dataset), kind="dataset")
    base = find_model(section.base_model, store=store)
    inputs = {
        "dataset": InputEntry(address=dataset.address, fingerprint=dataset.manifest.fingerprint),
        "base_model": _entry(base, store),
    }
    before = resolve.reranker_retriever(settings) if model == "reranker" else None
    retriever = find_model(before, store=store) if before else None
    if retriever is not None:
        inputs["retriever"] = _entry(retriever, store)
    elif isinstance(section, RerankerSettings) and section.negatives_from == "retriever":
        raise InputError(
            "negatives_from: retriever, and no retriever",
            where="train.reranker.negatives_from",
            rule="the lists are those of the embedder that the reranker will come after",
            way_out="train.reranker.retriever: its address, or negatives_from: dataset",
        )
    if isinstance(section, RerankerSettings) and (retriever is None or section.negatives_from == "dataset"):
        idle = sorted(_OF_LISTS & section.model_fields_set)
        if idle:
            progress.warn(f"hard negatives are those that `generate` mined: {', '.join(idle)} can change nothing")
    place = _place(section)
    mark = fingerprint(
        job=f"train {model}",
        format_version=FORMATS[model],
        fields=section.result_fields(),
        inputs=inputs,
        seed=settings.seed,
    )

    task = Task(
        training=training_of(section),
        base=base,
        dataset_path=dataset.path,
        seed=settings.seed,
        retriever=retriever,
    )
    if place is not None and place.node:
        return _assist(task, place, store, progress, address=section.output_dir, mark=mark)

    def build(directory: Path, work: WorkArea) -> Built:
        if place is None:
            return _here(task, directory, work, progress=progress)
        if not is_finished(work):
            from nearer.train.gather import gather
            from nearer.train.launch import launch

            gather(place, fingerprint=mark, done=lambda: False, progress=progress)
            launch(task, place, work=work, chunk=section.chunk_size, progress=progress)
        from nearer.train.publish import publish, take_up

        loaded, trained = take_up(task, work)
        return publish(task, loaded, trained, directory, progress=progress)

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
    inputs = [
        PlannedInput(name="dataset", address=store.resolve(address), state=state),
        PlannedInput(name="base_model", address=section.base_model, state=base_state),
    ]
    if model == "reranker" and (retriever := resolve.reranker_retriever(settings)):
        trained = settings.train.embedding is not None and retriever == settings.train.embedding.output_dir
        there: str = model_state(retriever, store=store)
        there = "made by `train embedding` first" if trained and there != "there" else there
        inputs.append(PlannedInput(name="retriever", address=retriever, state=there))
    demand = demand_of(training_of(section), known_config(section.base_model, store=store))
    return Plan(
        job=f"train {model}",
        inputs=tuple(inputs),
        output=store.resolve(section.output_dir),
        state=store.foresee(section.output_dir, None),
        notes=(
            (
                f"{section.epochs:g} epochs in batches of {section.batch_size}, learning rate at most "
                f"{section.peak_learning_rate:g}"
            ),
            f"{section.val_split:g} of the training queries validate",
            *_negatives(settings, model),
            f"{_processes(demand)}; a checkpoint every {section.checkpoint_steps} steps",
            *memory_notes(demand),
        ),
    )


def _negatives(settings: Settings, model: Model) -> tuple[str, ...]:
    """Where a reranker's come from."""
    if model == "embedding":
        return ()
    retriever, asked = resolve.reranker_retriever(settings), resolve.reranker(settings).negatives_from
    source = f"the lists of {retriever}" if retriever and asked != "dataset" else "what `generate` mined"
    return (f"hard negatives from {source}",)


def _entry(found: ModelSource, store: Store) -> InputEntry:
    address = found.name if found.origin == "hub" else store.resolve(found.name)
    return InputEntry(address=address, fingerprint=found.fingerprint)


def _processes(demand: Demand) -> str:
    each = demand.processes
    here = "a process for each GPU, or one" if each is None else "one process" if each == 1 else f"{each} processes"
    return f"{here} on each of {demand.nodes} nodes" if demand.nodes > 1 else here


def _section(settings: Settings, model: Model) -> EmbeddingSettings | RerankerSettings:
    return resolve.embedding(settings) if model == "embedding" else resolve.reranker(settings)


def training_of(section: EmbeddingSettings | RerankerSettings) -> EmbeddingTraining | RerankerTraining:
    """A section of the settings as plain values, for whoever trains."""
    values = section.model_dump()
    values |= {"freeze": Freeze(**values["freeze"]), "lora": Lora(**values["lora"]) if values["lora"] else None}
    values["learning_rate"] = section.peak_learning_rate
    record = EmbeddingTraining if isinstance(section, EmbeddingSettings) else RerankerTraining
    return record(**{field.name: values[field.name] for field in fields(record)})


def _require_reporters(section: TrainSettings) -> None:
    """Before anything is loaded: the packages of `report_to` are there.

    Raises:
        InputError: one is not.
    """
    for name in section.report_to:
        if find_spec(name) is None:
            raise InputError(
                f"report_to names {name}, and its package is not installed",
                where="report_to",
                rule="each place that training reports to needs its own package",
                way_out=f"pip install {name}, or leave it out",
            )


def _place(section: EmbeddingSettings | RerankerSettings) -> Place | None:
    """Where the processes are that this run starts; None: this one alone does it.

    Raises:
        InputError: the settings ask for something that does not go together.
    """
    import torch

    from nearer.train.place import find_place

    gpus = torch.cuda.device_count() if section.device != "cpu" else 0
    if not gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # accelerate imports DeepSpeed where it is, which then complains
    place = find_place(nodes=section.nodes, processes=section.gpus_per_node, gpus=gpus)
    if section.lora is not None and (section.freeze.layers or section.freeze.embeddings):
        raise InputError(
            "lora and freeze together",
            where="lora",
            rule="with adapters all of the model's own weights are held still",
            way_out="one of the two",
        )
    if section.batch_size < place.total:
        raise InputError(
            f"batch_size {section.batch_size} over {place.total} processes",
            where="batch_size",
            rule="at least one for each: it counts over all processes",
            way_out=f"batch_size: {place.total} or more",
        )
    divides = section.deepspeed not in {"auto", "none"}
    if divides:
        from nearer.train.hardware import choose_precision
        from nearer.train.zero import configure

        device = "cuda" if place.cuda else "cpu"
        precision = choose_precision(section.precision, device=device)
        configure(section.deepspeed, precision=precision, max_grad_norm=1.0, hidden=1, cuda=place.cuda)
    return place if place.total > 1 or place.cuda or divides else None


def _assist(
    task: Task,
    place: Place,
    store: Store,
    progress: Progress,
    *,
    address: str,
    mark: str,
) -> Manifest:
    """Train on another machine than the first, which alone keeps the work and publishes; end when it has."""
    from nearer.train.gather import JOIN_SECONDS, gather
    from nearer.train.launch import launch, wait_for

    def published() -> Manifest | None:
        there = store.manifest(address)
        return there if there and there.fingerprint == mark else None

    if gather(place, fingerprint=mark, done=lambda: published() is not None, progress=progress):
        launch(task, place, work=None, chunk=task.training.chunk_size, progress=progress)
        progress.say("waiting until the first node has published", address=address)
    found: Manifest = wait_for(published, seconds=JOIN_SECONDS)
    progress.say("the model is there", address=address, fingerprint=mark[:12])
    return replace(found, address=store.resolve(address))


def _here(task: Task, directory: Path, work: WorkArea, *, progress: Progress) -> Built:
    from nearer.train.publish import publish
    from nearer.train.recipe import Method
    from nearer.train.task import load, train

    loaded = load(task, device=task.training.device)
    method = Method(chunk=task.training.chunk_size)
    trained = train(task, loaded, method=method, device="cpu", work=work, progress=progress)
    return publish(task, loaded, trained, directory, progress=progress)
