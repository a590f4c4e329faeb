"""Artifacts in directories of a local (or mounted) file system."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nearer import address as addresses
from nearer.errors import ArtifactMissing, InputError, Interrupted
from nearer.store.admit import admit, foresee, require_place
from nearer.store.disk import LocalSpace
from nearer.store.gc import collect
from nearer.store.manifest import FileEntry, Manifest, file_sha256
from nearer.store.place import Place, look
from nearer.store.protocol import Artifact, Leftover, WorkArea
from nearer.store.publish import new_attempt, publish
from nearer.store.space import AREA, Space
from nearer.store.standing import corrupt, standing, strays, was_replaced


class LocalStore:
    """Artifacts under a local root directory.

    Args:
        root: the artifacts root; made when something is first written.
        overwrite: whether artifacts with another fingerprint may be replaced.
        space: the primitives; tests put something between.
    """

    def __init__(self, root: str, *, overwrite: bool = False, space: Space | None = None) -> None:
        self.root = addresses.resolve(root if addresses.is_literal(root) else f"./{root}", root=".")
        self.overwrite = overwrite
        self.space = space or LocalSpace()
        self._hashes: dict[tuple[str, int, int, int, int], str] = {}

    def resolve(self, address: str) -> str:
        """The full address."""
        full = addresses.resolve(address, root=self.root)
        if addresses.is_s3(full):
            raise InputError(
                f"{full} is in S3",
                rule="a local path",
                way_out="open the store by `open_store`: it knows both",
            )
        return full

    def place(self, address: str) -> Place:
        """The address with symbolic links resolved, so that two names of one directory share their claims."""
        return Place(address=os.path.realpath(self.resolve(address)), root=os.path.realpath(self.root))

    def manifest(self, address: str) -> Manifest | None:
        """The manifest of what stands, or is decided to stand, at the address."""
        state = look(self.space, self.place(address))
        if state.broken:
            raise state.broken
        return state.decided

    def open(self, address: str, *, kind: str | None = None) -> Artifact:
        """The artifact at its address, verified. Files that did not change since are hashed once per store."""
        place = self.place(address)
        while True:
            manifest = standing(self.space, place, address, kind=kind)
            problems = self._problems(place, manifest, fresh=False)
            if was_replaced(self.space, place, manifest):
                continue
            if problems:
                raise corrupt(place, address, problems)
            return Artifact(address=self.resolve(address), manifest=manifest, path=Path(self.resolve(address)))

    def raw(self, address: str) -> Path:
        """A user's own file or folder."""
        path = Path(self.resolve(address))
        if not path.exists():
            raise ArtifactMissing(
                f"{address} does not exist",
                where=str(path),
                rule="an existing file or folder",
                way_out="correct the path; ./… is relative to the current directory, a plain name to `artifacts`",
            )
        return path

    def admit(self, address: str, manifest: Manifest) -> Manifest | None:
        """Whether the result of work may stand at the address."""
        return admit(self.space, self.place(address), manifest, overwrite=self.overwrite)[1]

    def foresee(self, address: str, fingerprint: str | None) -> str:
        """What `admit` would say."""
        return foresee(self.space, self.place(address), fingerprint, overwrite=self.overwrite)

    def publish(self, address: str, directory: Path, manifest: Manifest) -> Manifest:
        """Make the directory's files the artifact at the address."""
        return publish(self.space, self.place(address), directory, manifest, overwrite=self.overwrite)

    def verify(self, address: str) -> tuple[str, ...]:
        """Hash every file again and say what is wrong."""
        place = self.place(address)
        manifest = standing(self.space, place, address)
        return (*self._problems(place, manifest, fresh=True), *strays(self.space, place, manifest))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh directory in the root's area."""
        name = new_attempt()
        with self.space.alone(f"{self.root}/{AREA}/locks/{name}"):
            path = Path(self.root, AREA, "scratch", name)
            path.mkdir(parents=True)
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def work(self, fingerprint: str) -> Iterator[WorkArea]:
        """The work area `<root>/.nearer/work/<fingerprint>/`."""
        path = Path(self.root, AREA, "work", _single_name(fingerprint))
        lock = path.with_name(f"{path.name}.lock")
        with self.space.alone(str(lock)) as mine:
            if not mine:
                raise Interrupted(
                    f"another process is doing this work ({_text(lock) or 'unknown'})",
                    where=str(path),
                    rule="one process at a time works on a fingerprint",
                    way_out="wait for it, or end it, then run the same command again: it goes on from here",
                )
            path.mkdir(parents=True, exist_ok=True)
            try:
                yield WorkArea(path=path)
            finally:
                with suppress(OSError):
                    path.rmdir()  # nothing in it: nothing to come back to

    def cache(self, name: str) -> Path:
        """The directory `<root>/.nearer/cache/<name>/`."""
        path = Path(self.root, AREA, "cache", _single_name(name))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def read_text(self, address: str) -> str | None:
        """A small pointer file."""
        data = self.space.read(self.place(address).address)
        return None if data is None else data.decode(errors="replace")

    def write_text(self, address: str, text: str) -> None:
        """Replace a small pointer file atomically."""
        place = self.place(address)
        require_place(self.space, place)
        self.space.put(place.address, text.encode())

    def gc(self, *, remove: bool) -> tuple[Leftover, ...]:
        """What no artifact needs any more."""
        return collect(self.space, os.path.realpath(self.root), remove=remove)

    def _problems(self, place: Place, manifest: Manifest, *, fresh: bool) -> list[str]:
        top = Path(place.address)
        return [
            f"{entry.path}: {problem}"
            for entry in manifest.files
            if (problem := self._problem(top, entry, fresh=fresh))
        ]

    def _problem(self, top: Path, entry: FileEntry, *, fresh: bool) -> str | None:
        path = top / entry.path
        try:
            if not Path(os.path.realpath(path)).is_relative_to(top):
                return "leaves the directory by a symbolic link"
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        if found.st_size != entry.size:
            return f"{found.st_size} bytes instead of {entry.size}"
        key = (str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        try:
            if fresh or key not in self._hashes:
                self._hashes[key] = file_sha256(path)
        except FileNotFoundError:
            return "missing"
        except IsADirectoryError:
            return "a directory instead of a file"
        return None if self._hashes[key] == entry.sha256 else f"sha256 is {self._hashes[key]}, not {entry.sha256}"


def _single_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise InputError(f"{name!r} is no name for a work area or cache", rule="letters, digits, `.`, `_`, `-`")
    return name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
