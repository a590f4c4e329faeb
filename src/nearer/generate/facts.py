"""The figures of a dataset: for its manifest, its audit and the last lines of the log."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nearer.generate.audit import Audit
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.generate.negatives import TrainingPart
from nearer.generate.sides import Sides
from nearer.progress import Progress
from nearer.records import ORIGINS


def summarise(corpus: Corpus, sides: Sides, part: TrainingPart, audit: Audit, sizes: Counter[str]) -> dict[str, Any]:
    """The counts that the manifest and the last lines of the log carry."""
    return {
        "documents": len(corpus.of_document),
        "passages": len(corpus.passages),
        "groups": len(sizes),
        "largest_group": max(sizes.values()),
        "train_queries": len(sides.train),
        "test_queries": len(sides.test),
        "train_by_origin": by_origin(sides.train),
        "test_by_origin": by_origin(sides.test),
        "negatives": sum(len(found) for found in part.negatives.values()),
        "dropped": dict(sorted(audit.counts.items())),
    }


def say(summary: dict[str, Any], progress: Progress) -> None:
    """Say the counts."""
    for name in ("train", "test"):
        progress.say(f"{name} queries", total=summary[f"{name}_queries"], **summary[f"{name}_by_origin"])
    progress.say("hard negatives", total=summary["negatives"])
    if summary["dropped"]:
        progress.say("queries left out", **summary["dropped"])


def by_origin(candidates: Sequence[Candidate]) -> dict[str, int]:
    """How many queries there are of each origin."""
    counts = Counter(candidate.query.origin for candidate in candidates)
    return {origin: counts[origin] for origin in ORIGINS if counts[origin]}


def facts_of(
    corpus: Corpus,
    sides: Sides,
    part: TrainingPart,
    sizes: Counter[str],
    gathered: Sequence[Candidate],
    *,
    tokens: Sequence[int],
) -> dict[str, Any]:
    """What audit.json says beside the drops."""
    largest = min(sizes, key=lambda group: (-sizes[group], group))
    members = [document for document, group in corpus.groups.items() if group == largest]
    queries = len(sides.train) + len(sides.test)
    return {
        "gathered_by_origin": by_origin(gathered),
        "test_share": round(len(sides.test) / queries, 4),
        "group_sizes": {str(size): count for size, count in sorted(Counter(sizes.values()).items())},
        "largest_group": {"size": len(members), "documents": members[:10]},
        "test_groups": len(sides.test_groups),
        "length": {
            "passage_tokens": _spread(tokens),
            "passages_per_document": _spread([len(passages) for passages in corpus.of_document.values()]),
            "train_query_characters": _spread([len(candidate.query.text) for candidate in sides.train]),
            "test_query_characters": _spread([len(candidate.query.text) for candidate in sides.test]),
        },
        "mining": part.audit,
    }


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "mean": round(statistics.fmean(ordered), 2),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }
