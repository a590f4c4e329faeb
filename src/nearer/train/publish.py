"""A trained model becomes an artifact: seen to be the one that was trained, weighed, with the facts of its training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from nearer.corpus.dataset import Dataset
from nearer.errors import GateRefused
from nearer.models.encode import Embedder
from nearer.models.load import load_embedder, load_reranker
from nearer.models.save import save_embedder, save_reranker
from nearer.models.score import Reranker
from nearer.models.source import ModelSource
from nearer.progress import Progress
from nearer.records import Hit
from nearer.store import Built, WorkArea
from nearer.train.embedding import probe_embedder
from nearer.train.orders import FINISHED, EmbeddingTraining, RerankerTraining, Task
from nearer.train.recipe import Result
from nearer.train.reranker import probe_reranker
from nearer.train.states import put_weights
from nearer.train.task import Loaded, Trained, load, material_of
from nearer.train.weight import weigh
from nearer.train.world import ALONE

_TOLERANCE: Final = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}
"""How far a score of the saved model may lie from what was measured in memory, relative to the largest one. Summing in
another order costs 1e-6; what is looked for are weights that were not saved, which cost everything. In bf16 (under
DeepSpeed the model itself is) a score has eight bits."""


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
