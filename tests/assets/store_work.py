"""What a job does with a store, in a line: files written, published, made by a command, read back."""

from __future__ import annotations

from pathlib import Path

from nearer.progress import Silent
from nearer.store import Built, Manifest, produce


def write(directory, files):
    for name, data in files.items():
        path = Path(directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files_below(top):
    """The bytes of all files by path, but for an artifact's manifest."""
    found = {path.relative_to(top).as_posix(): path.read_bytes() for path in Path(top).rglob("*") if path.is_file()}
    found.pop("manifest.json", None)
    return found


def content(store, address="models/m"):
    """The files of a verified artifact."""
    return files_below(store.open(address).path)


def publish(store, address, files, fingerprint="f1", **fields):
    with store.scratch() as directory:
        write(directory, files)
        return store.publish(address, directory, Manifest(kind="embedder", name="m", fingerprint=fingerprint, **fields))


def job(store, fingerprint, files, *, address="models/m", builds=None, inputs=None, **built):
    """As a command does it: nothing if it is done, a work area, a publication."""

    def build(directory, work):
        if builds is not None:
            builds.append(fingerprint)
        write(directory, files)
        return Built(**built)

    return produce(
        store,
        Silent(),
        kind="embedder",
        name="train embedding",
        address=address,
        fingerprint=fingerprint,
        inputs=inputs or {},
        settings={"epochs": len(fingerprint)},
        build=build,
    )
