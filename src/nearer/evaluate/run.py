"""`nearer eval`: the test part of a dataset and the models before and after in, a report and a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.address import is_s3
from nearer.errors import ArtifactMissing
from nearer.evaluate import lineup
from nearer.models.contract import CONTRACT, Contract
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.ranking import metrics
from nearer.settings import resolve
from nearer.settings.model import Settings
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce
from nearer.store.lineage import lineage
from nearer.store.manifest import Outcome, raw_fingerprint

if TYPE_CHECKING:
    from nearer.corpus.dataset import Dataset
    from nearer.evaluate.first import Model

FORMAT: int = 4
REFUSED: int = 3


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Compare the systems, decide, and publish the report.

    Raises:
        InputError: dataset or models are missing or cannot be used; says which command makes them.
        ArtifactExists: another report stands at the output.
        Interrupted: SIGTERM; the same command goes on with the vectors, runs and scores that are there.
    """
    from nearer.evaluate.inputs import without_idle

    section = settings.eval
    metrics.require(section.verdict.measure, section.ks)
    dataset = store.open(resolve.dataset_of(settings, section.dataset), kind="dataset")
    sources = {role: _find(settings, store, role, name) for role, name in _names(settings).items()}
    sources = without_idle(sources, progress)
    inputs = {
        "dataset": InputEntry(address=dataset.address, fingerprint=dataset.manifest.fingerprint),
        **{role: _entry(source, store) for role, source in sources.items()},
    }
    general = _general(section.general, store)
    if general:
        inputs["general"] = general[0]
    mark = _fingerprint(settings, inputs)

    def build(directory: Path, _work: WorkArea) -> Built:
        from dataclasses import fields

        from nearer.corpus.dataset import Dataset
        from nearer.evaluate import inputs as known
        from nearer.evaluate.build import build as build_report
        from nearer.evaluate.first import Caches
        from nearer.evaluate.gates import Rules
        from nearer.evaluate.general import read_general
        from nearer.evaluate.leakage import leakage
        from nearer.evaluate.page import Background
        from nearer.evaluate.protocol import Protocol

        loaded = Dataset.load(dataset.path)
        known.warn(sources, loaded, dataset.manifest.fingerprint, progress)
        models = {role: _model(settings, role, source, loaded) for role, source in sources.items()}
        rerankers, today = _rerankers(sources), known.incumbent_role(sources)
        if today != lineup.OWN_EMBEDDER:  # shown once
            models.pop(lineup.OWN_EMBEDDER, None)
        others = known.trained_on(sources, dataset.manifest.fingerprint, store)
        same = dataset.manifest.settings.get("near_duplicate", settings.generate.near_duplicate)
        here = store.resolve("x").removesuffix("x")  # the page must not depend on where the artifacts lie
        ours = Manifest(kind="report", name="eval", fingerprint=mark, inputs=inputs)
        protocol = {one.name: getattr(section, one.name) for one in fields(Protocol) if one.name != "seed"}
        verdict, numbers = build_report(
            directory,
            dataset=loaded,
            general=None if general is None else Dataset.load(general[1]) if general[2] else read_general(general[1]),
            leakage=leakage(loaded, others, near_duplicate=same, seed=settings.seed)
            if section.verdict.leakage
            else None,
            embedders={role: model for role, model in models.items() if role not in rerankers},
            rerankers={role: model for role, model in models.items() if role in rerankers},
            incumbent=today,
            muted=[role for role in rerankers if _weight(settings, Contract.load(sources[role].path)) == 0],
            plan=Protocol(**protocol, seed=settings.seed),
            rules=Rules(**section.verdict.model_dump()),
            background=Background(
                lineage=tuple(line.replace(here, "") for line in lineage(store, section.output_dir, ours)),
                audit=known.audit(dataset.path),
                settings=section.model_dump(mode="json"),
            ),
            ideal_contexts=known.ideal_contexts(dataset.path),
            caches=Caches(
                vectors=store.cache("vectors"), pair_scores=store.cache("pair-scores"), runs=store.cache("runs")
            ),
            progress=progress,
        )
        refused = section.gate and verdict.decision != "ship"
        reason = f"{verdict.decision}: {verdict.reasons[0]}"
        return Built(metrics=numbers, outcome=Outcome(code=REFUSED if refused else 0, reason=reason))

    return produce(
        store,
        progress,
        kind="report",
        name="eval",
        address=section.output_dir,
        fingerprint=mark,
        inputs=inputs,
        settings=section.model_dump(mode="json"),
        build=build,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would do; touches nothing and loads nothing heavy."""
    section, names = settings.eval, _names(settings)
    metrics.require(section.verdict.measure, section.ks)
    address = resolve.dataset_of(settings, section.dataset)
    dataset = store.manifest(address)
    made = address == settings.generate.output_dir
    state = "there" if dataset else "made by `generate` first" if made else "missing"
    planned = [PlannedInput(name="dataset", address=address, state=state)]
    for role, name in names.items():
        planned.append(PlannedInput(name=role, address=name, state=_state(settings, store, role, name)))
    if section.general is not None:
        planned.append(
            PlannedInput(name="general", address=section.general, state=_general_state(section.general, store))
        )
    rerankers = [role for role in names if role in _RERANKERS]
    own = names.get(lineup.OWN_EMBEDDER)
    today = next((role for role in ("base", "tuned") if own is not None and names.get(role) == own), None)
    contracts = {role: _contract(store, names[role]) for role in rerankers}
    line = lineup.line_up(
        [role for role in names if role not in rerankers and not (today and role == lineup.OWN_EMBEDDER)],
        rerankers,
        bm25=section.bm25,
        incumbent=today or (lineup.OWN_EMBEDDER if own else "base" if "base" in names else None),
        baseline=section.verdict.baseline,
        candidate=section.verdict.candidate,
        reranked=section.reranked,
        muted=[role for role, contract in contracts.items() if _weight(settings, contract) == 0],
    )
    notes = [
        "systems: " + ", ".join(entry.name for entry in line.entries),
        f"verdict: {line.candidate or 'nothing'} against {line.baseline or 'nothing'}, by {section.verdict.measure}",
        f"rerankers order the first {section.rerank_depth} passages; K = {', '.join(map(str, section.ks))}",
    ]
    if section.models:
        notes.append("a model of eval.models that is a cross-encoder takes part as a reranker")
    if lineup.BASE_RERANKER in names:
        notes.append("base_reranker takes part only if it already is a cross-encoder")
    return Plan(
        job="eval",
        inputs=tuple(planned),
        output=section.output_dir,
        state=store.foresee(section.output_dir, _known(settings, store, dataset)),
        notes=tuple(notes),
    )


def _weight(settings: Settings, contract: Contract | None) -> float | None:
    """What a reranker counts beside the list that it is given; None: nobody said, or nobody knows yet."""
    asked = settings.eval.rerank_weight
    return asked if asked is not None or contract is None else contract.rerank_weight


def _contract(store: Store, name: str) -> Contract | None:
    """A model's, where it is at hand already."""
    where = f"{store.resolve(name)}/{CONTRACT}"
    text = store.read_text(where)
    return None if text is None else Contract.from_json(text, where=where)


_RERANKERS = (lineup.OWN_RERANKER, lineup.BASE_RERANKER, lineup.RERANKER)


def _names(settings: Settings) -> dict[str, str]:
    """The models that take part, by role, in the order in which they are shown; at least one of them retrieves."""
    section = settings.eval
    found: dict[str, str | None] = {
        "base": resolve.eval_base_embedder(settings) if _wants_base(settings) else None,
        lineup.OWN_EMBEDDER: section.incumbent,
        "tuned": resolve.eval_embedder(settings),
        **lineup.roles(section.models),
        lineup.OWN_RERANKER: section.incumbent_reranker,
        lineup.BASE_RERANKER: resolve.eval_base_reranker(settings),
        lineup.RERANKER: resolve.eval_reranker(settings),
    }
    return {role: name for role, name in found.items() if name is not None}


def _wants_base(settings: Settings) -> bool:
    """A base embedder is there to be compared with; who only trains a reranker and names an incumbent needs none."""
    named = settings.eval.base_embedder is not None or settings.train.embedding is not None
    return named or (settings.eval.incumbent is None and settings.eval.embedder is None)


def _rerankers(sources: Mapping[str, ModelSource]) -> set[str]:
    """Roles that score pairs; a further model does if it is a cross-encoder."""
    from nearer.models.load import is_cross_encoder

    further = {role for role in sources if role not in lineup.ROLES and is_cross_encoder(sources[role])}
    return further | (sources.keys() & set(_RERANKERS))


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
    if role in ("tuned", lineup.BASE_RERANKER) and name == resolve.embedding(settings).output_dir:
        return "train embedding"
    if role == lineup.RERANKER and name == resolve.reranker(settings).output_dir:
        return "train reranker"
    return None


def _state(settings: Settings, store: Store, role: str, name: str) -> str:
    state = model_state(name, store=store)
    command = _made_by(settings, role, name)
    if command is None or state == "there":
        return state
    trained = settings.train.embedding if command == "train embedding" else settings.train.reranker
    return f"made by `{command}` first" if trained else "missing"


def _entry(source: ModelSource, store: Store) -> InputEntry:
    address = source.name if source.origin == "hub" else store.resolve(source.name)
    return InputEntry(address=address, fingerprint=source.fingerprint)


def _general(name: str | None, store: Store) -> tuple[InputEntry, Path, bool] | None:
    """The second dataset: what it is as an input, where it lies, and whether it is an artifact (else BEIR)."""
    if name is None:
        return None
    if store.manifest(name) is not None:
        there = store.open(name, kind="dataset")
        return InputEntry(address=there.address, fingerprint=there.manifest.fingerprint), there.path, True
    path = store.raw(name)
    return InputEntry(address=store.resolve(name), fingerprint=raw_fingerprint(path)), path, False


def _general_state(name: str, store: Store) -> str:
    full = store.resolve(name)
    if store.manifest(name) is not None or (not is_s3(full) and Path(full).exists()):
        return "there"
    return "looked for when it runs" if is_s3(full) else "missing"


def _fingerprint(settings: Settings, inputs: Mapping[str, InputEntry]) -> str:
    fields = {**settings.eval.result_fields(), "base": _as_trained(settings, resolve.eval_base_embedder(settings))}
    return fingerprint(job="eval", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)


def _known(settings: Settings, store: Store, dataset: Manifest | None) -> str | None:
    """The fingerprint, as far as it is known without loading or fetching anything."""
    names = _names(settings)
    marks = {role: model_fingerprint(name, store=store) for role, name in names.items()}
    if dataset is None or None in marks.values() or lineup.BASE_RERANKER in names or settings.eval.general is not None:
        return None  # whether a base reranker takes part is only known when it is looked into
    inputs = {"dataset": InputEntry(address="", fingerprint=dataset.fingerprint)}
    inputs |= {role: InputEntry(address="", fingerprint=str(mark)) for role, mark in marks.items()}
    return _fingerprint(settings, inputs)


def _as_trained(settings: Settings, name: str) -> dict[str, Any]:
    """How training was told to use its base model: the comparison must use it the same way."""
    section = resolve.embedding(settings)
    if name != section.base_model:
        return {}
    return section.model_dump(mode="json", include={"pooling", "query_prefix", "passage_prefix"})


def _model(settings: Settings, role: str, source: ModelSource, dataset: Dataset) -> Model:
    """A model with how it is used; one that does not say so itself is used as training would use it."""
    import json

    from nearer.evaluate.first import Model
    from nearer.evaluate.speed import weights
    from nearer.models.load import device_name
    from nearer.models.precision import choose

    section = settings.eval
    precision = choose(section.precision, device=device_name(section.device))
    usage: dict[str, Any] = {}
    reranks = role in _rerankers({role: source})
    if Contract.load(source.path) is None:
        chunking = dataset.chunking
        usage = {"passage_template": chunking.template}
        if not reranks:
            usage |= _as_trained(settings, source.name)
            usage |= {"chunker": chunking.chunker, "chunk_tokens": chunking.max_tokens}

    def load() -> Any:
        from nearer.models.load import load_embedder, load_reranker

        loader: Callable[..., Any] = load_reranker if reranks else load_embedder
        place = {"device": section.device, "precision": precision}
        return loader(source, **place, trust_remote_code=section.trust_remote_code, **usage)

    return Model(
        name=source.name,
        fingerprint=source.fingerprint,
        identity=f"{source.fingerprint} {json.dumps(usage, sort_keys=True)} {precision}",
        precision=precision,
        size=weights(source.path),
        load=load,
    )
