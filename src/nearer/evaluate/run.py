"""`nearer eval`: the test part of a dataset and the models before and after in, a report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.errors import ArtifactMissing
from nearer.models.contract import Contract
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings import resolve
from nearer.settings.model import Settings
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce

if TYPE_CHECKING:
    from nearer.corpus.dataset import Dataset
    from nearer.models.encode import Embedder
    from nearer.models.score import Reranker

FORMAT: int = 1
_RERANKERS = ("base_reranker", "reranker")


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Compare the systems and publish the report.

    Raises:
        InputError: dataset or models are missing or cannot be used; says which command makes them.
        ArtifactExists: another report stands at the output.
        Interrupted: SIGTERM; the same command goes on with the vectors and scores that are there.
    """
    section = settings.eval
    names = _names(settings)
    dataset = store.open(resolve.dataset_of(settings, section.dataset), kind="dataset")
    sources = {role: _find(settings, store, role, name) for role, name in names.items()}
    sources = _without_idle(sources, progress)
    inputs = {
        "dataset": InputEntry(address=dataset.address, fingerprint=dataset.manifest.fingerprint),
        **{role: _entry(source, store) for role, source in sources.items()},
    }

    def build(directory: Path, _work: WorkArea) -> Built:
        from nearer.corpus.dataset import Dataset
        from nearer.evaluate.build import build as build_report

        loaded = Dataset.load(dataset.path)
        _warn(sources, loaded, dataset.manifest.fingerprint, progress)
        metrics = build_report(
            directory,
            dataset=loaded,
            embedders={
                role: _embedder(settings, source, loaded) for role, source in sources.items() if role not in _RERANKERS
            },
            rerankers={
                role: _reranker(settings, source, loaded) for role, source in sources.items() if role in _RERANKERS
            },
            bm25=section.bm25,
            ks=section.ks,
            rerank_depth=section.rerank_depth,
            max_queries=section.max_queries,
            ideal_contexts=_ideal_contexts(dataset.path),
            models={role: {"name": source.name, "fingerprint": source.fingerprint} for role, source in sources.items()},
            vectors=store.cache("vectors"),
            pair_scores=store.cache("pair-scores"),
            batch_tokens=section.batch_tokens,
            seed=settings.seed,
            progress=progress,
        )
        return Built(metrics=metrics)

    return produce(
        store,
        progress,
        kind="report",
        name="eval",
        address=section.output_dir,
        fingerprint=_fingerprint(settings, inputs),
        inputs=inputs,
        settings=section.model_dump(mode="json"),
        build=build,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would do; touches nothing and loads nothing heavy."""
    section = settings.eval
    address = resolve.dataset_of(settings, section.dataset)
    dataset = store.manifest(address)
    made = address == settings.generate.output_dir
    state = "there" if dataset else "made by `generate` first" if made else "missing"
    planned = [PlannedInput(name="dataset", address=address, state=state)]
    for role, name in _names(settings).items():
        planned.append(PlannedInput(name=role, address=name, state=_state(settings, store, role, name)))
    notes = [
        "systems: " + ", ".join(_systems(settings)),
        f"rerankers order the first {section.rerank_depth} passages; K = {', '.join(map(str, section.ks))}",
    ]
    if "base_reranker" in _names(settings):
        notes.append("base_reranker takes part only if it already is a cross-encoder")
    return Plan(
        job="eval",
        inputs=tuple(planned),
        output=section.output_dir,
        state=store.foresee(section.output_dir, _known(settings, store, dataset)),
        notes=tuple(notes),
    )


def _names(settings: Settings) -> dict[str, str]:
    """The models that take part, by role, in the order in which they are shown; at least one of them retrieves."""
    section = settings.eval
    found: dict[str, str | None] = {
        "base": resolve.eval_base_embedder(settings) if _wants_base(settings) else None,
        "incumbent": section.incumbent,
        "tuned": resolve.eval_embedder(settings),
        "base_reranker": resolve.eval_base_reranker(settings),
        "reranker": resolve.eval_reranker(settings),
    }
    return {role: name for role, name in found.items() if name is not None}


def _wants_base(settings: Settings) -> bool:
    """A base embedder is there to be compared with; who only trains a reranker and names an incumbent needs none."""
    named = settings.eval.base_embedder is not None or settings.train.embedding is not None
    return named or (settings.eval.incumbent is None and settings.eval.embedder is None)


def _systems(settings: Settings) -> Iterator[str]:
    roles = _names(settings)
    retrievers = [*(["bm25"] if settings.eval.bm25 else []), *(role for role in roles if role not in _RERANKERS)]
    for retriever in retrievers:
        yield retriever
        yield from (f"{retriever}+{role}" for role in roles if role in _RERANKERS)


def _find(settings: Settings, store: Store, role: str, name: str) -> ModelSource:
    """A model; one that `train` makes is not looked for on the hub."""
    command = _made_by(settings, role, name)
    if command and model_state(name, store=store) != "there":
        raise ArtifactMissing(
            f"the {role} model {name!r} is not there",
            where=store.resolve(name),
            rule=f"`eval.{'embedder' if role == 'tuned' else role}`, else the output of `{command}`",
            way_out=f"run `nearer {command}` first, or name another model",
        )
    return find_model(name, store=store)


def _made_by(settings: Settings, role: str, name: str) -> str | None:
    """The command whose output this is; None for a model that is given."""
    if role == "tuned" and name == resolve.embedding(settings).output_dir:
        return "train embedding"
    if role == "reranker" and name == resolve.reranker(settings).output_dir:
        return "train reranker"
    return None


def _state(settings: Settings, store: Store, role: str, name: str) -> str:
    state = model_state(name, store=store)
    command = _made_by(settings, role, name)
    if command is None or state == "there":
        return state
    trained = settings.train.embedding if role == "tuned" else settings.train.reranker
    return f"made by `{command}` first" if trained else "missing"


def _without_idle(sources: Mapping[str, ModelSource], progress: Progress) -> dict[str, ModelSource]:
    """Leave out a base reranker that scores no pairs yet, and an incumbent that is one of the others."""
    from nearer.models.load import is_cross_encoder

    kept = dict(sources)
    base = kept.get("base_reranker")
    if base is not None and not is_cross_encoder(base):
        progress.say(f"{base.name} is no cross-encoder yet: no base reranker is compared")
        del kept["base_reranker"]
    incumbent = kept.get("incumbent")
    others = {kept[role].fingerprint: role for role in ("base", "tuned") if role in kept}
    if incumbent is not None and incumbent.fingerprint in others:
        progress.say(f"the incumbent {incumbent.name} is the {others[incumbent.fingerprint]} model: shown once")
        del kept["incumbent"]
    return kept


def _entry(source: ModelSource, store: Store) -> InputEntry:
    address = source.name if source.origin == "hub" else store.resolve(source.name)
    return InputEntry(address=address, fingerprint=source.fingerprint)


def _fingerprint(settings: Settings, inputs: Mapping[str, InputEntry]) -> str:
    fields = {**settings.eval.result_fields(), "base": _as_trained(settings, resolve.eval_base_embedder(settings))}
    return fingerprint(job="eval", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)


def _known(settings: Settings, store: Store, dataset: Manifest | None) -> str | None:
    """The fingerprint, as far as it is known without loading or fetching anything."""
    names = _names(settings)
    marks = {role: model_fingerprint(name, store=store) for role, name in names.items()}
    if dataset is None or None in marks.values() or "base_reranker" in names or "incumbent" in names:
        return None  # whether these two take part is only known when they are looked into
    inputs = {"dataset": InputEntry(address="", fingerprint=dataset.fingerprint)}
    inputs |= {role: InputEntry(address="", fingerprint=str(mark)) for role, mark in marks.items()}
    return _fingerprint(settings, inputs)


def _as_trained(settings: Settings, name: str) -> dict[str, Any]:
    """How training was told to use its base model: the comparison must use it the same way."""
    section = resolve.embedding(settings)
    if name != section.base_model:
        return {}
    return section.model_dump(mode="json", include={"pooling", "query_prefix", "passage_prefix"})


def _embedder(settings: Settings, source: ModelSource, dataset: Dataset) -> Callable[[], Embedder]:
    def load() -> Embedder:
        from nearer.models.load import load_embedder

        section = settings.eval
        usage: dict[str, Any] = {}
        if Contract.load(source.path) is None:  # it does not say how it is used: as training would use it
            chunking = dataset.chunking
            usage = {**_as_trained(settings, source.name), "passage_template": chunking.template}
            usage |= {"chunker": chunking.chunker, "chunk_tokens": chunking.max_tokens}
        return load_embedder(source, device=section.device, trust_remote_code=section.trust_remote_code, **usage)

    return load


def _reranker(settings: Settings, source: ModelSource, dataset: Dataset) -> Callable[[], Reranker]:
    def load() -> Reranker:
        from nearer.models.load import load_reranker

        section = settings.eval
        template = dataset.chunking.template if Contract.load(source.path) is None else None
        return load_reranker(
            source,
            device=section.device,
            trust_remote_code=section.trust_remote_code,
            passage_template=template,
        )

    return load


def _warn(sources: Mapping[str, ModelSource], dataset: Dataset, mark: str, progress: Progress) -> None:
    """Say what makes a comparison less than it seems: other passages, other training data."""
    from nearer.evaluate.build import disagreements

    for role, source in sources.items():
        contract = Contract.load(source.path)
        for difference in disagreements(dataset, contract) if contract else ():
            progress.warn(
                f"{role} is judged on other passages than it will see in use: {difference}",
                way_out="make the dataset with the model's own chunking and template",
            )
        trained_on = source.manifest.inputs.get("dataset") if source.manifest else None
        if trained_on is not None and trained_on.fingerprint != mark:
            progress.warn(
                f"{role} was trained on another dataset: test queries may be among its training queries",
                trained_on=trained_on.address,
            )


def _ideal_contexts(dataset: Path) -> dict[str, int] | None:
    """How many of the ideal contexts that the user's files name were found in a document; None if they name none."""
    path = dataset / "audit.json"
    if not path.exists():
        return None
    forms = json.loads(path.read_text(encoding="utf-8")).get("ideal_contexts")
    if not forms:
        return None
    unlinked = sum(links["unlinked"] for links in forms.values())
    return {"linked": sum(sum(links.values()) for links in forms.values()) - unlinked, "unlinked": unlinked}
