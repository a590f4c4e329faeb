"""The report artifact.

    report.json            everything, for programs
    summary.md             the verdict and the tables, for $GITHUB_STEP_SUMMARY and for people
    report.html            the same and more, self-contained
    per_query.jsonl        the values of each query by system
    qrels.trec             what was to be found; qrels.real.trec and qrels.synthetic.trec, the same by kind of query
    runs/<system>.trec     what each system found; `ir_measures qrels.trec runs/tuned.trec nDCG@10` gives our numbers
    speed.json             latency and throughput on the machine that made it; the only file, with report.html, that
                           differs from run to run

The scores in the runs are derived from the ranks, so that every tool sees the order that was scored, ties included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nearer.evaluate.evidence import Change, means, populations
from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.lineup import Lineup
from nearer.evaluate.slices import Slice
from nearer.evaluate.snippets import by_snippet, counts
from nearer.evaluate.systems import System
from nearer.evaluate.table import markdown, table
from nearer.evaluate.verdict import Verdict
from nearer.ranking import metrics

__all__ = ["assemble", "table", "write"]


def assemble(
    held: HeldOut,
    systems: Sequence[System],
    *,
    line_up: Lineup,
    population: str,
    queries: Sequence[str],
    changes: Mapping[str, Sequence[Change]],
    slices: Sequence[Slice],
    verdict: Verdict,
    rules: Mapping[str, Any],
    detectable: int | None,
    ks: Sequence[int],
    depth: int,
    rerank_depth: int,
    rerank_weights: Mapping[str, float],
    alpha: float,
    ideal_contexts: Mapping[str, int] | None,
    models: Mapping[str, Any],
) -> dict[str, Any]:
    """What report.json holds; plain JSON values, no NaN.

    Args:
        held: the queries.
        systems: in the order in which they are shown.
        line_up: what they are made of.
        population: kind of the queries that the verdict is about.
        queries: their ids; `metrics` of a system are means over these.
        changes: comparisons by kind of queries.
        slices: of these queries.
        verdict: what was decided.
        rules: by which it was decided.
        detectable: queries that it takes to find an effect of `rules.detect_effect`; None: not known.
        ks: of R@K, P@K and Success@K.
        depth: of the lists that were scored.
        rerank_depth: how many of them the rerankers saw.
        rerank_weights: by role, what a reranker counted beside the list that it was given.
        alpha: weight of the embedder in weighted hybrids.
        ideal_contexts: how many the dataset was made from, `linked` and `unlinked`; None if that is not known.
        models: name and fingerprint of each model, by its role.
    """
    kinds = populations(held)
    incumbent = line_up.entry("incumbent")
    judged = {query: held.judgments[query] for query in queries}
    report = {
        "verdict": verdict.as_json(),
        "rules": dict(rules),
        "baseline": line_up.baseline,
        "candidate": line_up.candidate,
        "incumbent": None if incumbent is None else {"retriever": incumbent.retriever, "reranker": incumbent.reranker},
        "population": population,
        "queries": len(held.queries),
        "queries_by_population": {kind: len(ids) for kind, ids in kinds.items()},
        "origins": held.origins(),
        "queries_on_documents": len(held.on_documents),
        "groups": len(set(held.groups.values())),
        "unscored_queries": held.unscored,
        "queries_left_out": held.left_out,
        "queries_to_detect": detectable,
        "ideal_contexts": ideal_contexts,
        "corpus_size": len(held.passages),
        "measures": list(metrics.measures(ks)),
        "attainable": metrics.attainable(judged, ks),
        "depth": depth,
        "rerank_depth": rerank_depth,
        "rerank_weights": rerank_weights,
        "alpha": alpha,
        "models": models,
        "systems": {
            system.name: {
                "stage": system.stage,
                "retriever": system.retriever,
                "reranker": system.reranker,
                "metrics": means(system, queries),
                "by_population": {kind: means(system, ids) for kind, ids in kinds.items()},
                "queries_without_results": len(system.scores.without_results),
            }
            for system in systems
        },
        "comparisons": [change.as_json() for change in changes.get(population, ())],
        "comparisons_by_population": {
            kind: [change.as_json() for change in found] for kind, found in changes.items() if kind != population
        },
        "slices": [one.as_json() for one in slices],
        "snippets": _snippets(held, systems, ks),
    }
    plain: dict[str, Any] = without_nan(report)
    return plain


def write(directory: Path, report: Mapping[str, Any], held: HeldOut, systems: Sequence[System]) -> None:
    """Write all files of the artifact into the directory but the page and the speed."""
    text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (directory / "report.json").write_text(text, encoding="utf-8")
    (directory / "summary.md").write_text(markdown(report), encoding="utf-8")
    rows = (
        {
            "query_id": query.id,
            "text": query.text,
            "origin": query.origin,
            "group": held.groups[query.id],
            "relevant": sum(relevance > 0 for relevance in held.judgments[query.id].values()),
            "level": "document" if query.id in held.on_documents else "passage",
            "systems": {system.name: system.scores.per_query[query.id] for system in systems},
        }
        for query in held.queries
    )
    _write_lines(directory / "per_query.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))
    _write_lines(directory / "qrels.trec", _qrels(held, held.judgments))
    for kind, ids in populations(held).items():
        _write_lines(directory / f"qrels.{kind}.trec", _qrels(held, ids))
    (directory / "runs").mkdir()
    for system in systems:
        _write_lines(directory / "runs" / f"{system.name}.trec", _trec(system))


def without_nan(value: Any) -> Any:
    """JSON has no NaN: null says "not defined"."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _snippets(held: HeldOut, systems: Sequence[System], ks: Sequence[int]) -> dict[str, Any] | None:
    if not held.ideal_contexts:
        return None
    values = {system.name: by_snippet(system.passages, held.ideal_contexts, ks) for system in systems}
    return {**counts(held.ideal_contexts), "systems": values}


def _qrels(held: HeldOut, queries: Iterable[str]) -> Iterable[str]:
    for query in queries:
        for target, relevance in held.judgments[query].items():
            yield f"{_word(query)} 0 {_word(target)} {relevance}"


def _trec(system: System) -> Iterable[str]:
    for query, hits in system.run.items():
        for rank, hit in enumerate(hits, start=1):
            yield f"{_word(query)} Q0 {_word(hit.target)} {rank} {len(hits) - rank + 1} {system.name}"


def _word(name: str) -> str:
    """TREC's columns stand between spaces: those within an id are percent-encoded."""
    return "".join(quote(letter) if letter.isspace() else letter for letter in name)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(line + "\n" for line in lines)
