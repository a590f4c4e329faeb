"""The only place that knows where bytes live: artifacts, their manifests, unfinished work."""

from __future__ import annotations

from nearer.errors import InputError
from nearer.store.lineage import show
from nearer.store.local import LocalStore
from nearer.store.manifest import (
    FileEntry,
    InputEntry,
    Manifest,
    Outcome,
    fingerprint,
    raw_fingerprint,
)
from nearer.store.plan import Plan, PlannedInput
from nearer.store.produce import Built, produce
from nearer.store.protocol import Artifact, Leftover, Store, WorkArea

__all__ = [
    "Artifact",
    "Built",
    "FileEntry",
    "InputEntry",
    "Leftover",
    "Manifest",
    "Outcome",
    "Plan",
    "PlannedInput",
    "Store",
    "WorkArea",
    "fingerprint",
    "open_store",
    "produce",
    "raw_fingerprint",
    "show",
]


def open_store(root: str = ".", *, overwrite: bool = False) -> Store:
    """The store whose root is this directory.

    Args:
        root: the artifacts root; it need not exist yet.
        overwrite: whether artifacts with another fingerprint may be replaced.

    Raises:
        InputError: a root of a kind that this version does not know.
    """
    if root.startswith("s3://"):
        raise InputError(
            f"artifacts root {root} is in S3, which this version of nearer does not read or write",
            rule="a local directory",
            way_out="set `artifacts` to a directory",
        )
    return LocalStore(root, overwrite=overwrite)
