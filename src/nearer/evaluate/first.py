"""First stage: the run of each retriever, from the cache or computed, and how long single queries take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer import process
from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.lineup import Lineup, Retriever
from nearer.evaluate.retrieve import Search, retrieve
from nearer.evaluate.runs import Kept, cached, digest
from nearer.evaluate.speed import timed
from nearer.models.contract import render_passage
from nearer.progress import Progress
from nearer.ranking import fuse
from nearer.records import Hit, Run

if TYPE_CHECKING:
    from nearer.models.encode import Embedder
    from nearer.models.score import Reranker


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that takes part. `identity` names its bytes and how it is used; `size` is in bytes of weights."""

    name: str
    fingerprint: str
    identity: str
    precision: str
    size: int
    load: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Caches:
    """Directories that may be lost at any time."""

    vectors: Path
    pair_scores: Path
    runs: Path


def first_stage(
    held: HeldOut,
    line_up: Lineup,
    *,
    embedders: Mapping[str, Model],
    template: str,
    depth: int,
    documents: int,
    alpha: float,
    caches: Caches,
    batch_tokens: int,
    timed_queries: Sequence[int],
    progress: Progress,
) -> tuple[dict[str, Run], dict[str, tuple[float, ...]]]:
    """The run of every retriever.

    Args:
        held: the queries.
        line_up: says which retrievers there are.
        embedders: by role; loaded one after the other, and only where the cache does not have the run.
        template: by which BM25 sees passages.
        depth: passages a query.
        documents: see `retrieve`.
        alpha: weight of the embedder in a weighted hybrid.
        caches: of runs and vectors.
        batch_tokens: padded tokens a forward pass.
        timed_queries: positions of the queries that are timed alone.
        progress: told what happens.

    Returns:
        Runs by retriever, and seconds by part (see `speed.parts_of`).
    """
    runs: dict[str, Run] = {}
    seconds: dict[str, tuple[float, ...]] = {}
    corpus = digest(held)
    deep = {"depth": depth, "documents": documents}

    def keep(name: str, identity: Mapping[str, Any], searcher: Callable[[], tuple[Search, Search]]) -> None:
        def compute() -> Kept:
            process.STOP.check()
            search, single = searcher()
            run = retrieve(held, search, **deep)
            calls = [partial(single, [position], depth) for position in timed_queries]
            return Kept(run=run, seconds=timed(calls))

        whole = {**identity, **deep, "corpus": corpus, "timed": list(timed_queries)}
        found = cached(caches.runs, identity=whole, compute=compute)
        runs[name], seconds[name] = found.run, found.seconds

    for one in line_up.retrievers:
        if one.kind == "bm25":
            keep(one.name, {"kind": "bm25", "template": template}, partial(_bm25, held, template, progress))
    for role, model in embedders.items():
        options: dict[str, Any] = {"vectors": caches.vectors, "batch_tokens": batch_tokens, "progress": progress}
        identity = {"kind": "dense", "model": model.identity}
        keep(role, identity, partial(_load_dense, held, model, **options))
    for one in line_up.retrievers:
        if one.kind in ("weighted", "rrf"):
            parts = [runs[one.embedder or ""], runs["bm25"]]
            runs[one.name] = _fused(one, parts, alpha)
            asked = [held.queries[position].id for position in timed_queries]
            single = [[{query: run.get(query, [])} for run in parts] for query in asked]
            seconds[one.name] = timed([partial(_fused, one, few, alpha) for few in single])
    wanted = {one.name for one in line_up.retrievers}
    return {name: run for name, run in runs.items() if name in wanted}, seconds


def rendered(held: HeldOut, template: str) -> dict[str, str]:
    """Passage id → what a model is given for it, without prefix, in the order of the corpus."""
    return {
        passage.id: render_passage(template, title=passage.title, path=passage.path, text=passage.text)
        for passage in held.passages.values()
    }


def _fused(one: Retriever, runs: Sequence[Run], alpha: float) -> dict[str, list[Hit]]:
    return fuse.weighted(runs, (alpha, 1 - alpha)) if one.kind == "weighted" else fuse.reciprocal_rank_fusion(runs)


def _bm25(held: HeldOut, template: str, progress: Progress) -> tuple[Search, Search]:
    from nearer.ranking.bm25 import Bm25

    texts = rendered(held, template)
    index = Bm25(list(texts), list(texts.values()), progress=progress)

    def search(positions: Sequence[int], k: int) -> list[list[Hit]]:
        return index.search([held.queries[position].text for position in positions], k)

    return search, search


def _load_dense(held: HeldOut, model: Model, **options: Any) -> tuple[Search, Search]:
    return _dense(held, model.load(), **options)


def _dense(
    held: HeldOut, embedder: Embedder, *, vectors: Path, batch_tokens: int, progress: Progress
) -> tuple[Search, Search]:
    from nearer.models.cache import encode_cached
    from nearer.ranking import dense

    texts = rendered(held, embedder.contract.passage_template)
    asked = [query.text for query in held.queries]
    options: dict[str, Any] = {"directory": vectors, "batch_tokens": batch_tokens, "progress": progress}
    passages = encode_cached(embedder, list(texts.values()), side="passage", **options)  # (passages, dimension)
    queries = encode_cached(embedder, asked, side="query", **options)  # (queries, dimension)
    index = dense.Index(passages, list(texts))

    def search(positions: Sequence[int], k: int) -> list[list[Hit]]:
        return index.search(queries[list(positions)], k, progress=progress)

    def single(positions: Sequence[int], k: int) -> list[list[Hit]]:
        return index.search(embedder.encode_queries([asked[position] for position in positions]), k)

    return search, single


def reranker_seconds(
    reranker: Reranker, lists: Sequence[Sequence[tuple[str, str]]], *, batch_tokens: int
) -> tuple[float, ...]:
    """Seconds of putting each of some lists of pairs in order."""
    return timed([partial(reranker.score, pairs, batch_tokens=batch_tokens) for pairs in lists])
