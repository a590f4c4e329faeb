"""`nearer reindex`: the documents encoded by the new embedder, as a checked generation behind an alias."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nearer.errors import ArtifactMissing, InputError
from nearer.models.contract import CONTRACT, Contract
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings import Settings, resolve
from nearer.settings.generate import ChunkSettings
from nearer.store import (
    Built,
    InputEntry,
    Manifest,
    Plan,
    PlannedInput,
    Store,
    WorkArea,
    produce,
    raw_fingerprint,
)
from nearer.store import fingerprint as fingerprint_of

if TYPE_CHECKING:
    from nearer.models.encode import Embedder

FORMAT: Final = 1


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Make the generation if it is not there, check it, and point the alias to it.

    Raises:
        InputError: documents or model are missing or cannot be used.
        GateRefused: a check failed; the alias stays where it was.
    """
    from nearer.reindex.aliases import StoreAliases

    section = settings.reindex
    documents = store.raw(resolve.reindex_documents(settings))
    source = find_model(_trained(settings, store), store=store)
    chunk = _chunk(settings, Contract.load(source.path))
    if section.chunk is not None and chunk != section.chunk:
        progress.warn("`reindex.chunk` is not used: the model's contract says how documents are cut")
    where = source.name if source.origin == "hub" else store.resolve(source.name)
    inputs = {
        "documents": InputEntry(
            address=store.resolve(resolve.reindex_documents(settings)), fingerprint=raw_fingerprint(documents)
        ),
        "embedder": InputEntry(address=where, fingerprint=source.fingerprint),
    }
    fingerprint = _fingerprint(settings, inputs, chunk)
    generation = fingerprint[:12]
    aliases = StoreAliases(store, section.output_dir)
    address = aliases.address(generation)
    checked = False

    def build(directory: Path, work: WorkArea) -> Built:
        nonlocal checked
        from nearer.corpus.read import read_documents
        from nearer.reindex.build import build as build_generation
        from nearer.reindex.embedded import EmbeddedSink

        metrics = build_generation(
            EmbeddedSink(directory, index=section.index),
            _load(settings, source, chunk),
            read_documents(documents),
            work,
            max_tokens=chunk.max_tokens,
            shard_passages=section.shard_passages,
            batch_tokens=section.batch_tokens,
            earlier=store.cache("vectors"),
            samples=section.check_samples,
            min_index_recall=section.min_index_recall,
            seed=settings.seed,
            progress=progress,
        )
        checked = True
        return Built(metrics=metrics)

    manifest = produce(
        store,
        progress,
        kind="index",
        name="reindex",
        address=address,
        fingerprint=fingerprint,
        inputs=inputs,
        settings=section.model_dump(mode="json"),
        build=build,
    )
    current = aliases.current(section.alias)
    if current == generation:
        return manifest
    if not checked:
        _check(settings, store, address, _load(settings, source, chunk), progress)
    aliases.switch(section.alias, generation)
    progress.say(f"alias {section.alias!r} switched", generation=generation, before=current)
    return manifest


def rollback(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Point the alias to the generation before.

    Returns:
        The manifest of that generation.

    Raises:
        InputError: there is none.
        ArtifactMissing: it is not there any more; the alias stays.
        ArtifactCorrupt: its bytes are not those of its manifest; the alias stays.
    """
    from nearer.reindex.aliases import StoreAliases

    section = settings.reindex
    aliases = StoreAliases(store, section.output_dir)
    before, target = aliases.current(section.alias), aliases.previous(section.alias)
    manifest = store.open(aliases.address(target), kind="index").manifest if target is not None else None
    generation = aliases.back(section.alias)
    progress.say(f"alias {section.alias!r} rolled back", generation=generation, before=before)
    manifest = manifest or store.open(aliases.address(generation), kind="index").manifest
    return replace(manifest, address=store.resolve(aliases.address(generation)))


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would do; touches nothing and loads nothing heavy."""
    from nearer.reindex.aliases import StoreAliases

    section = settings.reindex
    documents, embedder = resolve.reindex_documents(settings), resolve.reindex_embedder(settings)
    try:
        path: Path | None = store.raw(documents)
    except ArtifactMissing:
        path = None
    state = model_state(embedder, store=store)
    if state != "there" and embedder == resolve.embedding(settings).output_dir:
        embedder_state = "made by `train embedding` first" if settings.train.embedding else "missing"
    else:
        embedder_state = state
    aliases = StoreAliases(store, section.output_dir)
    current = aliases.current(section.alias)
    notes = [
        f"alias {section.alias!r} points to {current}" if current else f"alias {section.alias!r} does not exist yet"
    ]
    generation, known = "<fingerprint>", None
    fingerprint = model_fingerprint(embedder, store=store)
    if path is not None and fingerprint is not None:
        inputs = {
            "documents": InputEntry(address=documents, fingerprint=raw_fingerprint(path)),
            "embedder": InputEntry(address=embedder, fingerprint=fingerprint),
        }
        where = f"{store.resolve(embedder)}/{CONTRACT}"
        text = store.read_text(where)
        contract = Contract.from_json(text, where=where) if text is not None else None
        known = _fingerprint(settings, inputs, _chunk(settings, contract))
        generation = known[:12]
        if current != generation:
            notes.append(f"alias {section.alias!r} would be switched to {generation} after its checks")
    return Plan(
        job="reindex",
        inputs=(
            PlannedInput(name="documents", address=documents, state="there" if path else "missing"),
            PlannedInput(name="embedder", address=embedder, state=embedder_state),
        ),
        output=aliases.address(generation),
        state=store.foresee(aliases.address(generation), known),
        notes=tuple(notes),
    )


def _trained(settings: Settings, store: Store) -> str:
    """The embedder's name; one that `train` makes is not looked for on the hub."""
    name = resolve.reindex_embedder(settings)
    if name == resolve.embedding(settings).output_dir and model_state(name, store=store) != "there":
        raise ArtifactMissing(
            f"the embedder {name!r} is not there",
            where=store.resolve(name),
            rule="`reindex.embedder`, else the output of `train.embedding`",
            way_out="train it first: `nearer train embedding`; or name another in `reindex.embedder`",
        )
    return name


def _chunk(settings: Settings, contract: Contract | None) -> ChunkSettings:
    """How documents are cut: as the contract says, else as this section or `generate` does."""
    from nearer.corpus.chunk import CHUNKER

    fallback = settings.reindex.chunk or settings.generate.chunk
    if contract is None:
        return fallback
    if contract.chunker is None:
        return ChunkSettings(max_tokens=fallback.max_tokens, template=contract.passage_template)
    if contract.chunker != CHUNKER:
        raise InputError(
            f"the model expects documents cut by {contract.chunker!r}, this version of nearer cuts by {CHUNKER!r}",
            rule="an index is cut as the model's training data was",
            way_out="use the version of nearer that made the model, or train it again with this one",
        )
    return ChunkSettings(max_tokens=contract.chunk_tokens or fallback.max_tokens, template=contract.passage_template)


def _load(settings: Settings, source: ModelSource, chunk: ChunkSettings) -> Embedder:
    from nearer.corpus.chunk import CHUNKER
    from nearer.models.load import load_embedder

    return load_embedder(
        source,
        device=settings.reindex.device,
        trust_remote_code=settings.reindex.trust_remote_code,
        precision=settings.reindex.precision,
        passage_template=chunk.template,
        chunker=CHUNKER,
        chunk_tokens=chunk.max_tokens,
    )


def _check(settings: Settings, store: Store, address: str, embedder: Embedder, progress: Progress) -> None:
    """Check a generation that was made before."""
    from nearer.reindex.check import check
    from nearer.reindex.embedded import PASSAGES, EmbeddedSink

    path = store.open(address, kind="index").path
    sink = EmbeddedSink(path)
    check(
        sink,
        embedder,
        passages=path / PASSAGES,
        vectors=sink.shards(),
        samples=settings.reindex.check_samples,
        min_index_recall=settings.reindex.min_index_recall,
        seed=settings.seed,
        batch_tokens=settings.reindex.batch_tokens,
        progress=progress,
    )


def _fingerprint(settings: Settings, inputs: dict[str, InputEntry], chunk: ChunkSettings) -> str:
    fields = {**settings.reindex.result_fields(), "chunk": chunk.model_dump(mode="json")}
    return fingerprint_of(job="reindex", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)
