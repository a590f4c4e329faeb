"""The report artifact.

    report.json            everything, for programs
    summary.md             the tables, for people
    report.html            the same, self-contained
    per_query.jsonl        the values of each query by system
    qrels.trec             what was to be found
    runs/<system>.trec     what each system found; `ir_measures qrels.trec runs/tuned.trec nDCG@10` gives our numbers

The scores in the runs are derived from the ranks, so that every tool sees the order that was scored, ties included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nearer.evaluate.heldout import HeldOut
from nearer.evaluate.page import page
from nearer.evaluate.systems import System, comparisons
from nearer.evaluate.table import markdown, table
from nearer.ranking import metrics

__all__ = ["assemble", "table", "write"]


def assemble(
    held: HeldOut,
    systems: Sequence[System],
    *,
    ks: Sequence[int],
    depth: int,
    rerank_depth: int,
    ideal_contexts: Mapping[str, int] | None,
    models: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """What report.json holds; plain JSON values, no NaN.

    Args:
        held: the queries.
        systems: in the order in which they are shown.
        ks: of R@K and P@K.
        depth: of the lists that were scored.
        rerank_depth: how many of them the rerankers saw.
        ideal_contexts: how many the dataset was made from, `linked` and `unlinked`; None if that is not known.
        models: name and fingerprint of each model, by its role.
        seed: of the bootstrap.
    """
    report = {
        "queries": len(held.queries),
        "origins": held.origins(),
        "queries_on_documents": len(held.on_documents),
        "groups": len(set(held.groups.values())),
        "unscored_queries": held.unscored,
        "queries_left_out": held.left_out,
        "ideal_contexts": ideal_contexts,
        "corpus_size": len(held.passages),
        "measures": list(metrics.measures(ks)),
        "attainable": metrics.attainable_precision(held.judgments, ks),
        "depth": depth,
        "rerank_depth": rerank_depth,
        "models": models,
        "systems": {
            system.name: {
                "stage": system.stage,
                "retriever": system.retriever,
                "reranker": system.reranker,
                "metrics": system.scores.mean,
                "queries_without_results": len(system.scores.without_results),
            }
            for system in systems
        },
        "comparisons": comparisons(systems, held.groups, seed=seed),
    }
    plain: dict[str, Any] = _without_nan(report)
    return plain


def write(directory: Path, report: Mapping[str, Any], held: HeldOut, systems: Sequence[System]) -> None:
    """Write all files of the artifact into the directory."""
    text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    (directory / "report.json").write_text(text, encoding="utf-8")
    (directory / "summary.md").write_text(markdown(report), encoding="utf-8")
    (directory / "report.html").write_text(page(report), encoding="utf-8")
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
    qrels = (
        f"{_word(query)} 0 {_word(target)} {relevance}"
        for query, targets in held.judgments.items()
        for target, relevance in targets.items()
    )
    _write_lines(directory / "qrels.trec", qrels)
    (directory / "runs").mkdir()
    for system in systems:
        _write_lines(directory / "runs" / f"{system.name}.trec", _trec(system))


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


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null says "not defined"."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
