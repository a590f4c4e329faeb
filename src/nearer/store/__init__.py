"""The only place that knows where bytes live: artifacts, their manifests, unfinished work."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from nearer import address as addresses
from nearer.progress import Progress
from nearer.store.cache import FileCache
from nearer.store.fetch import fetch
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
from nearer.store.routed import RoutedStore
from nearer.store.s3.options import S3Buckets, S3Options

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
    "S3Buckets",
    "S3Options",
    "Store",
    "WorkArea",
    "default_cache_directory",
    "fetch",
    "fingerprint",
    "open_store",
    "produce",
    "raw_fingerprint",
    "show",
]


def open_store(
    root: str = ".",
    *,
    overwrite: bool = False,
    buckets: S3Buckets | None = None,
    cache_directory: Path | None = None,
    cache_bytes: int = 100 << 30,
    progress: Progress | None = None,
) -> Store:
    """The store whose root is a directory or an S3 prefix; addresses of the other kind may be literal.

    Args:
        root: the artifacts root; it need not exist yet.
        overwrite: whether artifacts with another fingerprint may be replaced.
        buckets: how S3 is reached.
        cache_directory: for what comes from S3, and for unfinished work that goes there; default: the user's cache.
        cache_bytes: above it, what is not in use is evicted.
        progress: told when something goes wrong in the background.

    Raises:
        InputError: the root is no address.
    """
    directory = cache_directory or default_cache_directory()
    if root.startswith("s3://"):
        root = addresses.resolve(root, root=".")

    def open_s3() -> Store:
        from nearer.store.s3.space import S3Space
        from nearer.store.s3.store import S3Store

        space = S3Space(buckets or S3Buckets())
        home = hashlib.sha256(root.encode()).hexdigest()[:16]
        return S3Store(
            root,
            space=space,
            cache=FileCache(directory, limit_bytes=cache_bytes, workers=space.workers),
            local=LocalStore(str(directory / "roots" / home)),
            overwrite=overwrite,
            progress=progress,
        )

    in_s3 = root.startswith("s3://")
    local = LocalStore(str(directory / "roots" / "none") if in_s3 else root, overwrite=overwrite)
    return RoutedStore(root if in_s3 else local.root, overwrite=overwrite, local=local, s3=open_s3)


def default_cache_directory() -> Path:
    """`$XDG_CACHE_HOME/nearer`, by default `~/.cache/nearer`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearer"
