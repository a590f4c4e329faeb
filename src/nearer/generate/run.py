"""`nearer generate`: settings and addresses in, a dataset artifact out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nearer.corpus.queries import query_parts
from nearer.errors import ArtifactMissing, InputError
from nearer.generate.prompts import load_prompts
from nearer.generate.shards import Shard, earlier_replies, find_shard, ledger_area, run_shard
from nearer.llm.access import Access, find_access
from nearer.llm.prices import Prices
from nearer.llm.request import Backend
from nearer.models.source import ModelSource, find_model, model_fingerprint, model_state
from nearer.progress import Progress
from nearer.settings.model import Settings
from nearer.settings.resolve import embedding, generate_embedder
from nearer.store import Built, InputEntry, Manifest, Plan, PlannedInput, Store, WorkArea, fingerprint, produce
from nearer.store.manifest import raw_fingerprint

if TYPE_CHECKING:
    import numpy as np

    from nearer.generate.author import Author
    from nearer.generate.language_model import LanguageModel
    from nearer.models.score import Reranker

FORMAT: int = 2


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
    inputs = {name: _entry(path, address=store.resolve(files[name])) for name, path in paths.items()}
    models = {name: find_model(address, store=store) for name, address in _models(settings).items()}
    inputs |= {name: InputEntry(address=found.name, fingerprint=found.fingerprint) for name, found in models.items()}
    inputs |= _llm_inputs(settings, paths.get("prompts"))
    if own.llm_model and own.sources != "auto" and "llm" in own.sources and own.llm.backend == "endpoint":
        _access(settings)  # before anything is read or loaded: without an endpoint nothing can come of it
    fingerprint = _fingerprint(settings, inputs)
    shard = find_shard(shard=own.llm.shard, shards=own.llm.shards) if own.llm_model else Shard()

    def make(seeds: Sequence[Path] = ()) -> Manifest:
        def build(directory: Path, _work: WorkArea) -> Built:
            made = _Made(settings, store, progress, paths=paths, models=models, seeds=seeds)
            return Built(metrics=made.dataset(directory))

        return produce(
            store,
            progress,
            kind="dataset",
            name="generate",
            address=own.output_dir,
            fingerprint=fingerprint,
            inputs=inputs,
            settings=own.model_dump(mode="json"),
            build=build,
        )

    if shard.count == 1:
        return make()

    def ask(directory: Path, _work: WorkArea) -> Built:
        made = _Made(settings, store, progress, paths=paths, models=models, shard=shard)
        return Built(metrics=made.replies(directory))

    return run_shard(
        store,
        progress,
        shard=shard,
        address=own.output_dir,
        fingerprint=fingerprint,
        inputs=inputs,
        settings=own.model_dump(mode="json"),
        ask=ask,
        make=make,
    )


def plan(settings: Settings, store: Store) -> Plan:
    """What `run` would read and make; nothing is read but what the fingerprint needs."""
    inputs: dict[str, InputEntry] = {}
    planned = []
    files = _files(settings, store)
    for name, address in files.items():
        path = _there(address, store)
        planned.append(PlannedInput(name=name, address=address, state="there" if path else "missing"))
        if path:
            inputs[name] = _entry(path, address=store.resolve(address))
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
    inputs |= _llm_inputs(settings, _there(files["prompts"], store) if "prompts" in files else None)
    known = _fingerprint(settings, inputs) if complete else None
    notes = [f"queries from: {settings.generate.sources}", *_estimate(settings, files, store)]
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


def _llm_inputs(settings: Settings, prompts: Path | None) -> dict[str, InputEntry]:
    """What the language model's replies depend on: its name at an endpoint, and the prompts by content."""
    own = settings.generate
    if not own.llm_model:
        return {}
    texts = InputEntry(address=own.llm.prompts or "shipped", fingerprint=load_prompts(prompts).sha256)
    if own.llm.backend == "transformers":
        return {"prompts": texts}
    name = hashlib.sha256(f"endpoint {own.llm_model}".encode()).hexdigest()
    return {"prompts": texts, "llm": InputEntry(address=own.llm_model, fingerprint=name)}


def _access(settings: Settings) -> Access:
    own = settings.generate
    return find_access(model=own.llm_model or "", base_url=own.llm.base_url, key_variable=own.llm.api_key_variable)


def _estimate(settings: Settings, files: dict[str, str], store: Store) -> list[str]:
    """What the language model would be asked, as far as it can be told from the files alone."""
    own = settings.generate
    path = _there(files["documents"], store)
    if not own.llm_model or path is None:
        return []
    from nearer.generate.estimate import estimate_calls

    return estimate_calls(
        path,
        queries=_there(files["queries"], store) if "queries" in files else None,
        enhanced="enhanced" in files,
        sources=own.sources,
        prompts=load_prompts(_there(files["prompts"], store) if "prompts" in files else None),
        model=own.llm_model,
        shares=own.llm.shares.model_dump(),
        queries_per_passage=own.llm.queries_per_passage,
        max_queries=own.max_queries,
        passage_tokens=own.chunk.max_tokens,
        answerable=own.llm.answerable_by == "llm",
        mark_depth=own.llm.mark_depth,
        negatives_per_query=own.llm.negatives_per_query,
        prices=Prices(prompt=own.llm.prompt_price, completion=own.llm.completion_price),
        token_budget=own.llm.token_budget,
    )


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


class _Made:
    """The steps that need models: settings objects end here."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        progress: Progress,
        *,
        paths: dict[str, Path],
        models: dict[str, ModelSource],
        seeds: Sequence[Path] = (),
        shard: Shard | None = None,
    ) -> None:
        from nearer.corpus.chunk import CHUNKER
        from nearer.corpus.read import read_queries
        from nearer.generate.corpus import check_documents
        from nearer.models.load import load_embedder

        own = settings.generate
        self.settings, self.store, self.progress = settings, store, progress
        self.paths, self.models, self.seeds, self.shard = paths, models, seeds, shard or Shard()
        check_documents(paths["documents"])  # before the model is loaded: wrong input should not have to wait for it
        for name in ("queries", "enhanced"):
            if name in paths:
                read_queries(paths[name])
        self.embedder = load_embedder(
            models["embedder"],
            trust_remote_code=embedding(settings).trust_remote_code,
            passage_template=own.chunk.template,
            chunker=CHUNKER,
            chunk_tokens=own.chunk.max_tokens,
        )

    def dataset(self, directory: Path) -> dict[str, Any]:
        """The dataset; its counts."""
        from nearer.corpus.chunk import CHUNKER
        from nearer.corpus.dataset import Chunking
        from nearer.generate.build import build_dataset
        from nearer.generate.negatives import Mining

        own = self.settings.generate
        with ExitStack() as stack:
            return build_dataset(
                directory,
                real_queries=own.real_queries,
                test_share=own.test_share,
                max_queries=own.max_queries,
                chunking=Chunking(
                    chunker=CHUNKER,
                    max_tokens=own.chunk.max_tokens,
                    template=own.chunk.template,
                    tokenizer_sha256=self.embedder.contract.tokenizer_sha256,
                ),
                mining=Mining(
                    per_query=own.negatives.per_query,
                    depth=own.negatives.depth,
                    skip_top=own.negatives.skip_top,
                    max_share_of_positive=own.negatives.max_share_of_positive,
                    random_pairs=own.negatives.random_pairs,
                    seed=self.settings.seed,
                ),
                encode=self._encode,
                score_pairs=self._score_pairs if own.negatives.teacher == "reranker" else None,
                language_model=self._language_model(stack),
                **self._sources(),
            )

    def replies(self, directory: Path) -> dict[str, Any]:
        """This pod's share of the calls; their account."""
        from nearer.generate.audit import Audit
        from nearer.generate.build import gather_all
        from nearer.generate.language_model import keep_replies
        from nearer.generate.retrieval import Retrieval

        with ExitStack() as stack:
            model = self._language_model(stack)
            template = self.settings.generate.chunk.template
            retrieval = Retrieval(template=template, encode=self._encode, progress=self.progress)
            writer = None if model is None else model.at(retrieval)
            gather_all(writer=writer, audit=Audit(), may_be_empty=True, **self._sources())
            return keep_replies(None if model is None else model.asked, directory)

    def _sources(self) -> dict[str, Any]:
        """What both read."""
        own = self.settings.generate
        return {
            "documents": self.paths["documents"],
            "queries": self.paths.get("queries"),
            "enhanced": self.paths.get("enhanced"),
            "sources": own.sources,
            "near_duplicate": own.near_duplicate,
            "min_query_characters": own.min_query_characters,
            "max_tokens": own.chunk.max_tokens,
            "seed": self.settings.seed,
            "count_tokens": self.embedder.count_tokens,
            "progress": self.progress,
        }

    def _encode(self, texts: Any, side: Literal["query", "passage"]) -> np.ndarray:
        from nearer.models.cache import encode_cached

        return encode_cached(
            self.embedder,
            texts,
            side=side,
            directory=self.store.cache("vectors"),
            batch_tokens=self.settings.generate.batch_tokens,
            progress=self.progress,
        )

    @functools.cached_property
    def _reranker(self) -> Reranker:
        from nearer.models.load import load_reranker

        return load_reranker(self.models["reranker"], passage_template=self.settings.generate.chunk.template)

    def _score_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        scores: list[float] = self._reranker.score(pairs, batch_tokens=self.settings.generate.batch_tokens).tolist()
        return scores

    def _language_model(self, stack: ExitStack) -> LanguageModel | None:
        """The language model, made ready when it is asked first; None where none is named."""
        from nearer.generate.language_model import LanguageModel
        from nearer.generate.written import Writing

        own = self.settings.generate
        if not own.llm_model:
            return None
        writing = Writing(
            shares=own.llm.shares.model_dump(),
            queries_per_passage=own.llm.queries_per_passage,
            # Filters take some: a third more are asked for than may be kept.
            at_most=None if own.max_queries is None else own.max_queries + own.max_queries // 3,
            max_query_characters=own.llm.max_query_characters,
            max_copied_share=own.llm.max_copied_share,
            near_duplicate_query=own.llm.near_duplicate_query,
            round_trip_depth=own.llm.round_trip_depth,
            answerable_by=own.llm.answerable_by,
            mark_depth=own.llm.mark_depth,
            negatives_per_query=own.llm.negatives_per_query,
        )
        return LanguageModel(
            lambda: self._author(stack),
            writing=writing,
            score_pairs=self._score_pairs if own.llm.answerable_by == "reranker" else None,
            seed=self.settings.seed,
            progress=self.progress,
        )

    def _author(self, stack: ExitStack) -> Author:
        from nearer.generate.author import Author
        from nearer.generate.kinds import shard_of
        from nearer.llm.ask import Asker
        from nearer.llm.ledger import Ledger

        own = self.settings.generate
        backend = self._backend()
        area = stack.enter_context(self.store.work(ledger_area(self.store.resolve(own.output_dir), self.shard)))
        seeds = (*self.seeds, *earlier_replies(self.store, own.output_dir, self.shard))
        ledger = Ledger(area, seeds=seeds, progress=self.progress)
        stack.callback(ledger.close)
        count, index = self.shard.count, self.shard.index
        return Author(
            asker=Asker(
                backend=backend,
                ledger=ledger,
                token_budget=own.llm.token_budget,
                prices=Prices(prompt=own.llm.prompt_price, completion=own.llm.completion_price),
                progress=self.progress,
            ),
            prompts=load_prompts(self.paths.get("prompts")),
            temperature=own.llm.temperature,
            max_tokens=own.llm.max_tokens,
            repairs=own.llm.repairs,
            mine=lambda id_: shard_of(id_, shards=count) == index,
        )

    def _backend(self) -> Backend:
        own = self.settings.generate
        if own.llm.backend == "transformers":
            from nearer.models.causal_lm import load_causal_lm

            return load_causal_lm(
                self.models["llm"],
                trust_remote_code=own.llm.trust_remote_code,
                batch_tokens=own.llm.batch_tokens,
            )
        from nearer.llm.endpoint import Endpoint

        return Endpoint(
            model=own.llm_model or "",
            access=_access(self.settings),
            concurrent=own.max_concurrent,
            delay_seconds=own.request_delay,
            timeout_seconds=own.llm.timeout_seconds,
            attempts=own.llm.attempts,
            warn=self.progress.warn,
        )
