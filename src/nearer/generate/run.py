"""`nearer generate`: settings and addresses in, a dataset artifact out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nearer.errors import InputError
from nearer.generate.asking import Asking
from nearer.generate.inputs import find_raw, is_beir, raw_entry
from nearer.generate.shards import Shard, find_shard, run_shard
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings.model import Settings
from nearer.settings.resolve import embedding, generate_embedder
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce

if TYPE_CHECKING:
    from nearer.generate.author import Author
    from nearer.generate.language_model import LanguageModel
    from nearer.generate.prepare import Models

FORMAT: int = 3


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Make the dataset, unless the same one is there; as one of several pods, a share of its calls first.

    Raises:
        InputError: documents, queries or a model are wrong, or the language model refuses; says what, where, and the
            way out.
        ArtifactExists: another dataset stands at the address.
        OutOfReach: the language model does not answer. Nothing that it answered is lost.
    """
    own = settings.generate
    files = _files(settings, store)
    paths = {name: store.raw(address) for name, address in files.items()}
    inputs = {name: raw_entry(path, address=store.resolve(files[name])) for name, path in paths.items()}
    models = {name: find_model(address, store=store) for name, address in _models(settings).items()}
    inputs |= {name: InputEntry(address=found.name, fingerprint=found.fingerprint) for name, found in models.items()}
    asking = _asking(settings)
    if asking:
        inputs |= asking.inputs(paths.get("prompts"))
        asking.require_access()
    fingerprint = _fingerprint(settings, inputs)
    shard = find_shard(shard=own.llm.shard, shards=own.llm.shards) if asking else Shard()

    address, section = own.output_dir, own.model_dump(mode="json")

    @contextmanager
    def ready(
        own_share: Shard, seeds: Sequence[Path] = ()
    ) -> Iterator[tuple[Models, dict[str, Any], LanguageModel | None]]:
        _check_files(paths)
        tools = _ready(settings, store, progress, models)
        sources = _sources(settings, paths, tools, progress)
        with ExitStack() as stack:
            asked = None
            if asking:

                def author() -> Author:
                    opened = asking.author(
                        store,
                        address=address,
                        source=models.get("llm"),
                        prompts=paths.get("prompts"),
                        shard=own_share,
                        seeds=seeds,
                        progress=progress,
                    )
                    return stack.enter_context(opened)

                asked = asking.language_model(
                    author, score_pairs=tools.score_pairs, seed=settings.seed, progress=progress
                )
            yield tools, sources, asked

    def make(seeds: Sequence[Path] = ()) -> Manifest:
        def build(directory: Path, _work: WorkArea) -> Built:
            with ready(Shard(), seeds) as (tools, sources, asked):
                return Built(metrics=_dataset(directory, settings, tools, sources, asked))

        return produce(
            store,
            progress,
            kind="dataset",
            name="generate",
            address=address,
            fingerprint=fingerprint,
            inputs=inputs,
            settings=section,
            build=build,
        )

    def ask(directory: Path, _work: WorkArea) -> Built:
        with ready(shard) as (tools, sources, asked):
            return Built(metrics=_replies(directory, settings, tools, sources, asked))

    if shard.count == 1:
        return make()
    return run_shard(
        store,
        progress,
        shard=shard,
        address=address,
        fingerprint=fingerprint,
        inputs=inputs,
        settings=section,
        ask=ask,
        make=make,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would read and make; nothing is read but what the fingerprint needs."""
    inputs: dict[str, InputEntry] = {}
    planned = []
    files = _files(settings, store)
    for name, address in files.items():
        path = find_raw(address, store)
        planned.append(PlannedInput(name=name, address=address, state="there" if path else "missing"))
        if path:
            inputs[name] = raw_entry(path, address=store.resolve(address))
    model = generate_embedder(settings)
    planned.append(PlannedInput(name="embedder", address=model, state=model_state(model, store=store)))
    if found := model_fingerprint(model, store=store):
        inputs["embedder"] = InputEntry(address=model, fingerprint=found)
    for name, model in _models(settings).items():
        if name != "embedder":
            planned.append(PlannedInput(name=name, address=model, state=model_state(model, store=store)))
            if found := model_fingerprint(model, store=store):
                inputs[name] = InputEntry(address=model, fingerprint=found)
    complete = len(inputs) == len(planned)
    notes = [f"queries from: {settings.generate.sources}"]
    if asking := _asking(settings):
        inputs |= asking.inputs(find_raw(files["prompts"], store) if "prompts" in files else None)
        notes += asking.estimate(files, store)
    known = _fingerprint(settings, inputs) if complete else None
    address = settings.generate.output_dir
    return Plan(
        job="generate",
        inputs=tuple(planned),
        output=address,
        state=store.foresee(address, known),
        notes=tuple(notes),
    )


def _files(settings: Settings, store: Store) -> dict[str, str]:
    """The user's files that are read, by name of the input; a BEIR directory brings its queries along."""
    own = settings.generate
    files = {"documents": own.documents}
    if own.queries is not None and _wanted(settings, "queries"):
        files["queries"] = own.queries
    elif own.queries is None and _wanted(settings, "queries") and is_beir(find_raw(own.documents, store)):
        files["queries"] = own.documents
    if own.enhanced is not None and _wanted(settings, "enhanced"):
        files["enhanced"] = own.enhanced
    if own.llm_model and own.llm.prompts is not None:
        files["prompts"] = own.llm.prompts
    return files


def _models(settings: Settings) -> dict[str, str]:
    """The models that run in this process, by name of the input."""
    own = settings.generate
    models = {"embedder": generate_embedder(settings)}
    if own.negatives.teacher == "reranker" or (own.llm_model and own.llm.answerable_by == "reranker"):
        if own.reranker is None:
            raise InputError(
                "a reranker is to judge and generate.reranker names none",
                where="generate.reranker",
                rule="the model that generate.negatives.teacher or generate.llm.answerable_by asks for",
                way_out="set generate.reranker, or let the embedder or the llm judge",
            )
        models["reranker"] = own.reranker
    if own.llm_model and own.llm.backend == "transformers":
        models["llm"] = own.llm_model
    return models


def _asking(settings: Settings) -> Asking | None:
    """How the language model is asked, as plain values; None where none is named."""
    own = settings.generate
    if not own.llm_model:
        return None
    section = own.llm.model_dump()
    return Asking(
        model=own.llm_model,
        sources=own.sources,
        max_queries=own.max_queries,
        passage_tokens=own.chunk.max_tokens,
        concurrent=own.max_concurrent,
        delay_seconds=own.request_delay,
        **{field.name: section[field.name] for field in fields(Asking) if field.name in section},
    )


def _wanted(settings: Settings, source: Literal["queries", "enhanced"]) -> bool:
    return settings.generate.sources == "auto" or source in settings.generate.sources


def _fingerprint(settings: Settings, inputs: dict[str, InputEntry]) -> str:
    fields = settings.generate.result_fields()
    return fingerprint(job="generate", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)


def _check_files(paths: dict[str, Path]) -> None:
    """Before a model is loaded: wrong input should not have to wait for it."""
    from nearer.corpus.read import read_queries
    from nearer.generate.corpus import check_documents

    check_documents(paths["documents"])
    for name in ("queries", "enhanced"):
        if name in paths:
            read_queries(paths[name])


def _ready(settings: Settings, store: Store, progress: Progress, sources: dict[str, ModelSource]) -> Models:
    from nearer.generate.prepare import Models

    own = settings.generate
    return Models(
        embedder=sources["embedder"],
        reranker=sources.get("reranker"),
        trust_remote_code=embedding(settings).trust_remote_code,
        precision=own.precision,
        template=own.chunk.template,
        max_tokens=own.chunk.max_tokens,
        batch_tokens=own.batch_tokens,
        vectors=store.cache("vectors"),
        progress=progress,
    )


def _sources(settings: Settings, paths: dict[str, Path], models: Models, progress: Progress) -> dict[str, Any]:
    """What a dataset and a share of its calls are both made from."""
    own = settings.generate
    return {
        "documents": paths["documents"],
        "queries": paths.get("queries"),
        "enhanced": paths.get("enhanced"),
        "sources": own.sources,
        "near_duplicate": own.near_duplicate,
        "min_query_characters": own.min_query_characters,
        "max_tokens": own.chunk.max_tokens,
        "seed": settings.seed,
        "count_tokens": models.count_tokens,
        "progress": progress,
    }


def _dataset(
    directory: Path,
    settings: Settings,
    models: Models,
    sources: dict[str, Any],
    language_model: LanguageModel | None,
) -> dict[str, Any]:
    """Write the dataset; its counts."""
    from nearer.corpus.chunk import CHUNKER
    from nearer.corpus.dataset import Chunking
    from nearer.generate.build import build_dataset
    from nearer.generate.negatives import Mining

    own = settings.generate
    return build_dataset(
        directory,
        real_queries=own.real_queries,
        test_share=own.test_share,
        max_queries=own.max_queries,
        chunking=Chunking(
            chunker=CHUNKER,
            max_tokens=own.chunk.max_tokens,
            template=own.chunk.template,
            tokenizer_sha256=models.tokenizer_sha256,
        ),
        mining=Mining(
            per_query=own.negatives.per_query,
            depth=own.negatives.depth,
            skip_top=own.negatives.skip_top,
            max_share_of_positive=own.negatives.max_share_of_positive,
            random_pairs=own.negatives.random_pairs,
            near_duplicate=own.near_duplicate,
            seed=settings.seed,
        ),
        encode=models.encode,
        score_pairs=models.score_pairs if own.negatives.teacher == "reranker" else None,
        language_model=language_model,
        **sources,
    )


def _replies(
    directory: Path,
    settings: Settings,
    models: Models,
    sources: dict[str, Any],
    language_model: LanguageModel | None,
) -> dict[str, Any]:
    """Write this pod's share of the calls; their account."""
    from nearer.generate.audit import Audit
    from nearer.generate.build import gather_all
    from nearer.generate.language_model import keep_replies
    from nearer.generate.retrieval import Retrieval

    retrieval = Retrieval(template=settings.generate.chunk.template, encode=models.encode, progress=sources["progress"])
    writer = None if language_model is None else language_model.at(retrieval)
    gather_all(writer=writer, audit=Audit(), may_be_empty=True, **sources)
    return keep_replies(None if language_model is None else language_model.asked, directory)
