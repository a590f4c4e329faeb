"""How long each system takes to answer one query on this machine, and how large its models are.

Recorded beside the report and never part of its fingerprint: another machine gives other numbers. Queries are
answered one at a time. A system's time is the sum of its parts': encoding the query, exact search over all vectors,
BM25, fusion and the reranker over its part of the list. Real indexes search approximately and faster; the parts that
a model costs stay.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearer.evaluate.lineup import Lineup
from nearer.process import cpu_count


def timed(calls: Sequence[Callable[[], object]]) -> tuple[float, ...]:
    """Seconds of each call; the first one is made once before, because it warms up."""
    if calls:
        calls[0]()
    found = []
    for call in calls:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return tuple(found)


def parts_of(line_up: Lineup, retriever: str) -> tuple[str, ...]:
    """The parts whose times add up to a retriever's."""
    one = line_up.retriever(retriever)
    if one.kind == "bm25":
        return ("bm25",)
    embedder = one.embedder or ""
    return (embedder,) if one.kind == "dense" else ("bm25", embedder, one.name)


def speed(
    seconds: Mapping[str, Sequence[float]], line_up: Lineup, *, sizes: Mapping[str, int], passages: int
) -> dict[str, Any]:
    """What speed.json holds.

    Args:
        seconds: of each measured query, by part; the same queries in each.
        line_up: the systems.
        sizes: bytes of the weights of each model, by its role.
        passages: in the corpus.
    """
    systems = {}
    for entry in line_up.entries:
        parts = [*parts_of(line_up, entry.retriever)]
        reranker = entry.reranker if entry.reranker not in line_up.muted else None
        parts += [reranker] if reranker else []
        known = [seconds[part] for part in parts if seconds.get(part)]
        if len(known) != len(parts) or len({len(part) for part in known}) != 1:
            continue
        total = np.sum(known, axis=0)  # (queries,)
        models = [line_up.retriever(entry.retriever).embedder or "", reranker or ""]
        systems[entry.name] = {
            "p50_milliseconds": 1000 * float(np.percentile(total, 50)),
            "p95_milliseconds": 1000 * float(np.percentile(total, 95)),
            "queries_per_second": float(len(total) / total.sum()),
            "model_bytes": sum(sizes[role] for role in models if role in sizes),
        }
    measured = max((len(found) for found in seconds.values()), default=0)
    return {"machine": machine(), "queries": measured, "passages": passages, "systems": systems}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
    }


def weights(directory: Path) -> int:
    """Bytes of a model's weight files."""
    files = (
        path for path in directory.rglob("*") if path.suffix in (".safetensors", ".bin", ".onnx") and path.is_file()
    )
    return sum(path.stat().st_size for path in files)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
