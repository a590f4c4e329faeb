"""Ranked lists kept from one evaluation to the next: adding a system computes only that system."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nearer.evaluate.heldout import HeldOut
from nearer.records import Hit, Run

FORMAT: Final = 1
"""Bumped by hand when retrieval changes its results."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A run, and the seconds that some of its queries took one at a time when it was made."""

    run: Run
    seconds: tuple[float, ...] = ()


def digest(held: HeldOut) -> str:
    """Of what every retriever is given: passages and queries."""
    found = hashlib.sha256()
    rows: list[list[Any]] = [[one.id, one.title, list(one.path), one.text] for one in held.passages.values()]
    rows += [[query.id, query.text, query.id in held.on_documents] for query in held.queries]
    for row in rows:
        found.update(json.dumps(row).encode() + b"\n")
    return found.hexdigest()


def cached(directory: Path, *, identity: Mapping[str, Any], compute: Callable[[], Kept]) -> Kept:
    """What is kept under this identity, or what is computed now.

    Args:
        directory: of the cache; may be lost at any time. A damaged file is computed again.
        identity: everything that the lists depend on, as plain values.
        compute: makes them.
    """
    key = hashlib.sha256(json.dumps({"format": FORMAT, **identity}, sort_keys=True).encode()).hexdigest()
    path = directory / f"{key}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        run = {query: [Hit(target, score) for target, score in hits] for query, hits in kept["run"].items()}
        return Kept(run=run, seconds=tuple(kept["seconds"]))
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        pass
    made = compute()
    directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    rows = {query: [[hit.target, hit.score] for hit in hits] for query, hits in made.run.items()}
    temporary.write_text(json.dumps({"run": rows, "seconds": made.seconds}, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)
    return made
