"""`nearer generate`: settings and addresses in, a dataset artifact out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nearer.corpus.queries import query_parts
from nearer.errors import ArtifactMissing
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings.model import Settings
from nearer.settings.resolve import embedding, generate_embedder
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce
from nearer.store.manifest import raw_fingerprint

if TYPE_CHECKING:
    import numpy as np

FORMAT: int = 2


def run(settings: Settings, store: Store, progress: Progress) -> Manifest:
    """Make the dataset, unless the same one is there.

    Raises:
        InputError: documents, queries or model are wrong; says what, where, and the way out.
        ArtifactExists: another dataset stands at the address.
    """
    own = settings.generate
    files = _files(settings, store)
    paths = {name: store.raw(address) for name, address in files.items()}
    inputs = {name: _entry(path, address=store.resolve(files[name])) for name, path in paths.items()}
    source = find_model(generate_embedder(settings), store=store)
    inputs["embedder"] = InputEntry(address=source.name, fingerprint=source.fingerprint)

    def build(directory: Path, _work: WorkArea) -> Built:
        return Built(metrics=_build(directory, settings, store, progress, paths=paths, source=source))

    return produce(
        store,
        progress,
        kind="dataset",
        name="generate",
        address=own.output_dir,
        fingerprint=_fingerprint(settings, inputs),
        inputs=inputs,
        settings=own.model_dump(mode="json"),
        build=build,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would read and make; nothing is read but what the fingerprint needs."""
    inputs: dict[str, InputEntry] = {}
    planned = []
    for name, address in _files(settings, store).items():
        path = _there(address, store)
        planned.append(PlannedInput(name=name, address=address, state="there" if path else "missing"))
        if path:
            inputs[name] = _entry(path, address=store.resolve(address))
    model = generate_embedder(settings)
    planned.append(PlannedInput(name="embedder", address=model, state=model_state(model, store=store)))
    if found := model_fingerprint(model, store=store):
        inputs["embedder"] = InputEntry(address=model, fingerprint=found)
    known = _fingerprint(settings, inputs) if len(inputs) == len(planned) else None
    notes = [f"queries from: {settings.generate.sources}"]
    if settings.generate.llm_model:
        notes.append(f"llm_model {settings.generate.llm_model!r} is not used: this release asks no LLM")
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
    elif own.queries is None and _wanted(settings, "queries") and _is_beir(_there(own.documents, store)):
        files["queries"] = own.documents
    if own.enhanced is not None and _wanted(settings, "enhanced"):
        files["enhanced"] = own.enhanced
    return files


def _wanted(settings: Settings, source: Literal["queries", "enhanced"]) -> bool:
    return settings.generate.sources == "auto" or source in settings.generate.sources


def _there(address: str, store: Store) -> Path | None:
    """The user's file or folder on this machine; None if there is none."""
    try:
        return store.raw(address)
    except ArtifactMissing:
        return None


def _is_beir(path: Path | None) -> bool:
    return (
        path is not None
        and (path / "corpus.jsonl").is_file()
        and (path / "queries.jsonl").is_file()
        and (path / "qrels").is_dir()
    )


def _entry(path: Path, *, address: str) -> InputEntry:
    """An input by content: a file, a folder, or BEIR queries with their judgments."""
    parts = query_parts(path) if path.is_file() else (path,)
    found = [raw_fingerprint(part) for part in parts if part.exists()]
    joined = found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
    return InputEntry(address=address, fingerprint=joined)


def _fingerprint(settings: Settings, inputs: dict[str, InputEntry]) -> str:
    fields = settings.generate.result_fields()
    return fingerprint(job="generate", format_version=FORMAT, fields=fields, inputs=inputs, seed=settings.seed)


def _build(
    directory: Path,
    settings: Settings,
    store: Store,
    progress: Progress,
    *,
    paths: dict[str, Path],
    source: ModelSource,
) -> dict[str, Any]:
    from nearer.corpus.chunk import CHUNKER
    from nearer.corpus.dataset import Chunking
    from nearer.corpus.read import read_queries
    from nearer.generate.build import build_dataset
    from nearer.generate.corpus import check_documents
    from nearer.generate.negatives import Mining
    from nearer.models.cache import encode_cached
    from nearer.models.load import load_embedder

    own = settings.generate
    check_documents(paths["documents"])  # before the model is loaded: wrong input should not have to wait for it
    for name in ("queries", "enhanced"):
        if name in paths:
            read_queries(paths[name])
    embedder = load_embedder(
        source,
        trust_remote_code=embedding(settings).trust_remote_code,
        passage_template=own.chunk.template,
        chunker=CHUNKER,
        chunk_tokens=own.chunk.max_tokens,
    )

    def encode(texts: Any, side: Literal["query", "passage"]) -> np.ndarray:
        return encode_cached(
            embedder,
            texts,
            side=side,
            directory=store.cache("vectors"),
            batch_tokens=own.batch_tokens,
            progress=progress,
        )

    return build_dataset(
        directory,
        documents=paths["documents"],
        queries=paths.get("queries"),
        enhanced=paths.get("enhanced"),
        sources=own.sources,
        real_queries=own.real_queries,
        test_share=own.test_share,
        near_duplicate=own.near_duplicate,
        min_query_characters=own.min_query_characters,
        max_queries=own.max_queries,
        llm_model=own.llm_model,
        chunking=Chunking(
            chunker=CHUNKER,
            max_tokens=own.chunk.max_tokens,
            template=own.chunk.template,
            tokenizer_sha256=embedder.contract.tokenizer_sha256,
        ),
        max_tokens=own.chunk.max_tokens,
        mining=Mining(
            per_query=own.negatives.per_query,
            depth=own.negatives.depth,
            skip_top=own.negatives.skip_top,
            max_share_of_positive=own.negatives.max_share_of_positive,
            random_pairs=own.negatives.random_pairs,
            seed=settings.seed,
        ),
        seed=settings.seed,
        count_tokens=embedder.count_tokens,
        encode=encode,
        progress=progress,
    )
