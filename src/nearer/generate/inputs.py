"""The user's own files and folders as inputs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from nearer.corpus.queries import query_parts
from nearer.errors import ArtifactMissing
from nearer.store import InputEntry, Store
from nearer.store.manifest import raw_fingerprint


def find_raw(address: str, store: Store) -> Path | None:
    """The user's file or folder on this machine; None if there is none."""
    try:
        return store.raw(address)
    except ArtifactMissing:
        return None


def is_beir(path: Path | None) -> bool:
    """Whether a folder holds documents, queries and judgments as BEIR lays them out."""
    return (
        path is not None
        and (path / "corpus.jsonl").is_file()
        and (path / "queries.jsonl").is_file()
        and (path / "qrels").is_dir()
    )


def raw_entry(path: Path, *, address: str) -> InputEntry:
    """An input by content: a file, a folder, or BEIR queries with their judgments."""
    parts = query_parts(path) if path.is_file() else (path,)
    found = [raw_fingerprint(part) for part in parts if part.exists()]
    joined = found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
    return InputEntry(address=address, fingerprint=joined)
