"""The store that the settings describe."""

from __future__ import annotations

from pathlib import Path

from nearer.progress import Progress
from nearer.settings import Settings
from nearer.settings.store import S3Settings
from nearer.store import S3Buckets, S3Options, Store, open_store

_MEBIBYTE = 1 << 20
_GIBIBYTE = 1 << 30


def store_of(settings: Settings, *, overwrite: bool = False, progress: Progress | None = None) -> Store:
    """Open the store of a settings document.

    Args:
        settings: the whole document.
        overwrite: whether artifacts with another fingerprint may be replaced.
        progress: told when something goes wrong in the background.
    """
    own = settings.store
    return open_store(
        settings.artifacts,
        overwrite=overwrite,
        buckets=S3Buckets(
            default=_options(own.s3), buckets={name: _options(each) for name, each in own.buckets.items()}
        ),
        cache_directory=Path(own.cache_dir).expanduser().absolute() if own.cache_dir else None,
        cache_bytes=int(own.cache_gibibytes * _GIBIBYTE),
        progress=progress,
    )


def _options(own: S3Settings) -> S3Options:
    fields = own.model_dump(exclude={"part_mebibytes"})
    return S3Options(**fields, part_bytes=own.part_mebibytes * _MEBIBYTE)
