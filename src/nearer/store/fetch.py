"""A copy of an artifact that is the user's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nearer.errors import InputError
from nearer.store.manifest import MANIFEST, Manifest
from nearer.store.protocol import Store
from nearer.store.space import TEMPORARY


def fetch(store: Store, address: str, directory: Path) -> Manifest:
    """Copy an artifact's files, its manifest last, to a directory that appears whole.

    Raises:
        InputError: something else is at the directory.
        ArtifactMissing, ArtifactCorrupt, Interrupted: as in `Store.open`.
    """
    artifact = store.open(address)
    if directory.is_dir() and _is_copy(directory, artifact.manifest):
        return artifact.manifest
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            f"{directory} is there and is something else",
            where=str(directory.absolute()),
            rule="a directory that does not exist, or is empty",
            way_out="choose another directory",
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f"{TEMPORARY}{directory.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name in [*(entry.path for entry in artifact.manifest.files), MANIFEST]:
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / name, target)
        temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return artifact.manifest


def _is_copy(directory: Path, manifest: Manifest) -> bool:
    path = directory / MANIFEST
    if not path.is_file():
        return False
    there = Manifest.from_json(path.read_text(encoding="utf-8"), where=str(path))
    return there.attempt == manifest.attempt
