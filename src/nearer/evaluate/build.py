"""The whole evaluation, below the settings: retrieve, rerank, score, compare, write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nearer import process
from nearer.corpus.dataset import Dataset
from nearer.evaluate.heldout import HeldOut, held_out
from nearer.evaluate.report import assemble, write
from nearer.evaluate.rerank import pairs_of, rerank, score_pairs
from nearer.evaluate.retrieve import retrieve
from nearer.evaluate.systems import RERANKERS, system
from nearer.models.contract import Contract, render_passage
from nearer.progress import Progress
from nearer.ranking.metrics import NDCG
from nearer.records import Hit, Run

if TYPE_CHECKING:
    from nearer.models.encode import Embedder
    from nearer.models.score import Reranker

DEPTH: Final = 100
"""Results a query that are kept and scored, unless reranking or a K asks for more: what MAP looks at."""
_SEEN_BY_MEASURES: Final = 10
"""nDCG@10 and RR@10 look so far, whatever the Ks are."""


def build(
    directory: Path,
    *,
    dataset: Dataset,
    embedders: Mapping[str, Callable[[], Embedder]],
    rerankers: Mapping[str, Callable[[], Reranker]],
    bm25: bool,
    ks: Sequence[int],
    rerank_depth: int,
    max_queries: int | None,
    ideal_contexts: Mapping[str, int] | None,
    models: Mapping[str, Mapping[str, str]],
    vectors: Path,
    pair_scores: Path,
    batch_tokens: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate every retriever, alone and with every reranker, and write the report.

    Args:
        directory: where the report's files go.
        dataset: its test part is asked, over its whole corpus.
        embedders: by role (`base`, `incumbent`, `tuned`); loaded one after the other.
        rerankers: by role (`base_reranker`, `reranker`); likewise.
        bm25: whether BM25 is one of the retrievers.
        ks: of R@K and P@K.
        rerank_depth: how many passages of each list a reranker orders anew.
        max_queries: at most so many queries, drawn with the seed.
        ideal_contexts: see `report.assemble`.
        models: see `report.assemble`.
        vectors: directory of the cache of vectors.
        pair_scores: directory of the cache of reranker scores.
        batch_tokens: padded tokens a forward pass.
        seed: of the draw and of the bootstrap.
        progress: told what happens.

    Returns:
        The main numbers, for the manifest.

    Raises:
        InputError: the dataset has nothing to test, or a model gives scores that are not numbers.
    """
    held = held_out(dataset, max_queries=max_queries, seed=seed)
    depth = max(DEPTH, rerank_depth, *ks)
    progress.say("evaluating", queries=len(held.queries), passages=len(held.passages))

    runs: dict[str, Run] = {}
    deep = {"depth": depth, "documents": max(_SEEN_BY_MEASURES, *ks)}
    if bm25:
        texts = rendered(held, dataset.chunking.template)
        runs["bm25"] = retrieve(held, _bm25(held, texts, progress), **deep)
    for role, load in embedders.items():
        process.STOP.check()
        search = _dense(held, load(), vectors=vectors, batch_tokens=batch_tokens, progress=progress)
        runs[role] = retrieve(held, search, **deep)

    found = {}
    for role, run in runs.items():
        found[role] = system(held, run, retriever=role, reranker=None, depth=depth, ks=ks)
    pairs = pairs_of(list(runs.values()), depth=rerank_depth)
    for name, load_reranker in rerankers.items():
        process.STOP.check()
        reranker = load_reranker()
        scores = score_pairs(
            reranker,
            pairs,
            queries={query.id: query.text for query in held.queries},
            passages=rendered(held, reranker.contract.passage_template),
            directory=pair_scores,
            batch_tokens=batch_tokens,
            progress=progress,
            name=name,
        )
        for role, run in runs.items():
            reordered = rerank(run, scores, depth=rerank_depth)
            one = system(held, reordered, retriever=role, reranker=name, depth=depth, ks=ks)
            found[one.name] = one

    order = [role if name is None else f"{role}+{name}" for role in runs for name in (None, *RERANKERS)]
    systems = [found[name] for name in order if name in found]
    report = assemble(
        held,
        systems,
        ks=ks,
        depth=depth,
        rerank_depth=rerank_depth,
        ideal_contexts=ideal_contexts,
        models=models,
        seed=seed,
    )
    write(directory, report, held, systems)
    return {
        "queries": len(held.queries),
        "corpus_size": len(held.passages),
        **{f"{one.name} {NDCG}": round(one.scores.mean[NDCG], 4) for one in systems},
    }


def rendered(held: HeldOut, template: str) -> dict[str, str]:
    """Passage id → what a model is given for it, without prefix, in the order of the corpus."""
    return {
        passage.id: render_passage(template, title=passage.title, path=passage.path, text=passage.text)
        for passage in held.passages.values()
    }


def disagreements(dataset: Dataset, contract: Contract) -> list[str]:
    """Where a model's own contract asks for other passages than the dataset holds; both sides shown."""
    chunking = dataset.chunking
    pairs = [("passage template", contract.passage_template, chunking.template)]
    if chunking.chunker is not None and contract.chunker is not None:
        pairs += [("chunker", contract.chunker, chunking.chunker)]
        pairs += [("tokens a chunk", str(contract.chunk_tokens), str(chunking.max_tokens))]
    return [f"{what}: model {ours!r}, dataset {theirs!r}" for what, ours, theirs in pairs if ours != theirs]


def _bm25(held: HeldOut, texts: Mapping[str, str], progress: Progress) -> Callable[[Sequence[int], int], Any]:
    from nearer.ranking.bm25 import Bm25

    index = Bm25(list(texts), list(texts.values()), progress=progress)

    def search(positions: Sequence[int], k: int) -> list[list[Hit]]:
        return index.search([held.queries[position].text for position in positions], k)

    return search


def _dense(
    held: HeldOut, embedder: Embedder, *, vectors: Path, batch_tokens: int, progress: Progress
) -> Callable[[Sequence[int], int], Any]:
    from nearer.models.cache import encode_cached
    from nearer.ranking import dense

    texts = rendered(held, embedder.contract.passage_template)
    asked = [query.text for query in held.queries]
    options: dict[str, Any] = {"directory": vectors, "batch_tokens": batch_tokens, "progress": progress}
    passages = encode_cached(embedder, list(texts.values()), side="passage", **options)  # (passages, dimension)
    queries = encode_cached(embedder, asked, side="query", **options)  # (queries, dimension)
    ids = list(texts)

    def search(positions: Sequence[int], k: int) -> list[list[Hit]]:
        return dense.search(queries[list(positions)], passages, ids, k, progress=progress)

    return search
