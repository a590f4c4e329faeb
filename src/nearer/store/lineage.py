"""What an artifact is and what it was made from, up to the documents, as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator

from nearer.errors import ArtifactMissing, NearerError
from nearer.store.manifest import InputEntry, Manifest
from nearer.store.protocol import Store


def show(store: Store, address: str) -> str:
    """Describe the artifact: its manifest in short, then the tree of what it was made from.

    Raises:
        ArtifactMissing: no artifact is there.
        ArtifactCorrupt: its manifest cannot be read.
    """
    manifest = store.manifest(address)
    if manifest is None:
        raise ArtifactMissing(f"no artifact at {address}", where=store.resolve(address))
    size = sum(entry.size for entry in manifest.files)
    lines = [
        f"address      {store.resolve(address)}",
        f"kind         {manifest.kind}",
        f"fingerprint  {manifest.fingerprint}",
        f"made         {manifest.created_at} by nearer {manifest.nearer_version}",
        f"outcome      {manifest.outcome.code} ({manifest.outcome.reason})",
        f"files        {len(manifest.files)}, {_bytes(size)}",
        *(f"metric       {name} = {_value(value)}" for name, value in manifest.metrics.items()),
        "",
        *lineage(store, address, manifest),
    ]
    return "\n".join(lines)


def lineage(store: Store, address: str, manifest: Manifest) -> Iterator[str]:
    """The tree of inputs, one line each, up to what is no artifact: documents, hub models."""
    yield f"{address}  {manifest.kind} {manifest.fingerprint[:12]}"
    yield from _branches(store, manifest, indent="", above=(manifest.attempt,))


def _branches(store: Store, manifest: Manifest, *, indent: str, above: tuple[str, ...]) -> Iterator[str]:
    entries = list(manifest.inputs.items())
    for number, (name, entry) in enumerate(entries, start=1):
        last = number == len(entries)
        there, note = _input(store, entry)
        kind = f"{there.kind} " if there else ""
        yield f"{indent}{'└── ' if last else '├── '}{name}: {entry.address}  {kind}{entry.fingerprint[:12]}{note}"
        if there and not note and there.attempt not in above:
            deeper = indent + ("    " if last else "│   ")
            yield from _branches(store, there, indent=deeper, above=(*above, there.attempt))


def _input(store: Store, entry: InputEntry) -> tuple[Manifest | None, str]:
    try:
        there = store.manifest(entry.address)
    except NearerError as error:
        return None, f"  ({error.what})"
    if there and there.fingerprint != entry.fingerprint:
        return there, f"  (replaced since: now {there.fingerprint[:12]})"
    return there, ""


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
