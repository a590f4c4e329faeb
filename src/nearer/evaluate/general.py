"""A second dataset, from another domain: what a model forgets while it learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nearer.corpus.dataset import Dataset
from nearer.corpus.read import read_documents, read_queries
from nearer.errors import InputError
from nearer.evaluate.first import Caches, Model, first_stage
from nearer.evaluate.heldout import held_out
from nearer.evaluate.lineup import OWN_EMBEDDER, line_up
from nearer.evaluate.protocol import Protocol
from nearer.evaluate.systems import system
from nearer.progress import Progress
from nearer.ranking.compare import Comparison, compare
from nearer.records import Judgment, Passage


def read_general(path: Path) -> Dataset:
    """A BEIR directory as a dataset that is only for testing: each of its documents is one passage.

    All judgments of `qrels/*.tsv` count, or those of `qrels/test.tsv` alone where there is one.

    Raises:
        InputError: the directory is none, or its judgments name documents that are not there.
    """
    passages = {
        document.id: Passage(
            id=document.id, document_id=document.id, text=document.text, title=document.title, source=document.source
        )
        for document in read_documents(path)
    }
    file = read_queries(path)
    tested = _tested(path / "qrels" / "test.tsv")
    judged = [one for one in file.judgments if tested is None or (one.query_id, one.target) in tested]
    unknown = [one for one in judged if one.target not in passages]
    if unknown:
        raise InputError(
            f"query {unknown[0].query_id!r} is judged on {unknown[0].target!r}, which is not in the corpus",
            where=str(path),
            rule="judgments name documents of corpus.jsonl",
            way_out="give the corpus that belongs to these judgments",
        )
    return Dataset(
        passages=passages,
        queries={query.id: query for query in file.queries},
        train=(),
        test=tuple(Judgment(query_id=one.query_id, target=one.target) for one in judged),
    )


def forgetting(
    general: Dataset,
    *,
    embedders: Mapping[str, Model],
    measure: str,
    confidence: float,
    plan: Protocol,
    caches: Caches,
    progress: Progress,
) -> Comparison | None:
    """The tuned embedder against the one before it, alone, on another domain."""
    before = next((role for role in ("base", OWN_EMBEDDER) if role in embedders), None)
    if before is None or "tuned" not in embedders:
        progress.warn("nothing can be forgotten: there are no two embedders, before and after")
        return None
    pair = {role: embedders[role] for role in (before, "tuned")}
    line = line_up([*pair], [], bm25=False, incumbent=None, baseline=before, candidate="tuned")
    held = held_out(general, max_queries=plan.max_queries, seed=plan.seed)
    deep = plan.depth
    runs, _ = first_stage(
        held,
        line,
        embedders=pair,
        template=general.chunking.template,
        depth=deep,
        documents=plan.documents,
        alpha=plan.alpha,
        caches=caches,
        batch_tokens=plan.batch_tokens,
        timed_queries=(),
        progress=progress,
    )
    values = []
    for entry in line.entries:
        scores = system(held, runs[entry.retriever], entry=entry, depth=deep, ks=plan.ks).scores
        values.append({query: found[measure] for query, found in scores.per_query.items()})
    old, new = values
    return compare(old, new, held.groups, plan.seed, confidence=confidence)


def _tested(path: Path) -> set[tuple[str, str]] | None:
    if not path.is_file():
        return None
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {(row[0], row[1]) for row in rows if len(row) == 3}
