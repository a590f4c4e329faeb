"""Files out of S3 whose bytes are those that somebody wrote down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from nearer.store.manifest import FileEntry
from nearer.store.s3.space import S3Space
from nearer.store.space import Stat

TRIES: Final = 3


def bring(space: S3Space, key: str, entry: FileEntry, stat: Stat | None, target: Path) -> str | None:
    """Bring a file to a path, and say what is wrong with it. Wrong bytes may be the wire's fault: tried again.

    Args:
        space: the primitives.
        key: of the object.
        entry: size and sha256 that it must have.
        stat: what a listing says of it; None: it is not there.
        target: replaced, if it is there.

    Raises:
        Changed: it is not what was listed any more.
    """
    if stat is None:
        return "missing"
    if stat.size != entry.size:
        return f"{stat.size} bytes instead of {entry.size}"
    found = ""
    for _ in range(TRIES):
        target.unlink(missing_ok=True)
        found = space.download(key, target, stat)
        if found == entry.sha256:
            return None
    return f"sha256 is {found}, not {entry.sha256}"


def bring_small(space: S3Space, wanted: Mapping[str, tuple[FileEntry, Stat, Path]]) -> Iterator[tuple[FileEntry, Path]]:
    """Bring what is right at the first try, of small files by key; the rest is left for `bring`.

    Args:
        space: the primitives.
        wanted: size and sha256 that each must have, what a listing says of it, and a path where nothing is.
    """
    sized = {key: (path, stat) for key, (entry, stat, path) in wanted.items() if stat.size == entry.size}
    for key, sha256 in space.download_small(sized):
        entry, _, path = wanted[key]
        if sha256 == entry.sha256:
            yield entry, path
        else:
            path.unlink()
