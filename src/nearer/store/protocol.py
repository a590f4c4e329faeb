"""What every store does, wherever its bytes live: on a disk or under an S3 prefix."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nearer.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact whose bytes were verified, in a local directory that must not be written to."""

    address: str
    manifest: Manifest
    path: Path


class Segments(Protocol):
    """Finished pieces of unfinished work, where another machine finds them: complete or invisible."""

    def names(self) -> frozenset[str]:
        """The pieces that are complete in the store."""

    def fetch(self, name: str, target: Path) -> None:
        """Bring a piece, verified, to a path where nothing is.

        Raises:
            ArtifactMissing: it is not there any more.
            ArtifactCorrupt: its bytes are not those that were shared.
        """

    def share(self, name: str, path: Path, *, instead_of: Iterable[str]) -> None:
        """Send a file or folder in the background; see `WorkArea.share`."""

    def flush(self) -> tuple[str, ...]:
        """Wait until everything that was shared is in the store; the names of what could not be sent."""

    def remove(self) -> None:
        """Remove all pieces."""


@dataclass(frozen=True, kw_only=True)
class WorkArea:
    """Unfinished work that the same command finds again: checkpoints, shards, ledgers. This process alone has it.

    Args:
        path: a local directory.
        segments: where finished pieces go as well, when the artifacts are not on this machine.
    """

    path: Path
    segments: Segments | None = None

    def shared(self) -> frozenset[str]:
        """The names that `bring` knows and that are not here yet."""
        names = self.segments.names() if self.segments else frozenset()
        return frozenset(name for name in names if not (self.path / name).exists())

    def bring(self, name: str) -> Path:
        """Bring a piece that was shared, maybe by another machine, to where it was shared from.

        Raises:
            ArtifactMissing: it is not there any more.
            ArtifactCorrupt: its bytes are not those that were shared.
        """
        target = self.path / name
        if self.segments and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.segments.fetch(name, target)
        return target

    def share(self, name: str, *, instead_of: Iterable[str] = ()) -> None:
        """A file or folder of the area is finished and will never change: it may leave this machine, in the background.

        It may be removed here as soon as this returns.

        Args:
            name: relative to the area.
            instead_of: pieces that are of no use any more once this one is in the store.

        Raises:
            Interrupted: another process has taken the work over.
        """
        if self.segments:
            self.segments.share(name, self.path / name, instead_of=instead_of)

    def remove(self) -> None:
        """Remove all of it; the work is finished."""
        if self.segments:
            self.segments.remove()
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something in the store that no artifact needs any more: its place, its bytes, and why it may go."""

    key: str
    size: int
    reason: str


class Store(Protocol):
    """Artifacts by address. Full disks, missing permissions and the like surface as `OSError`."""

    @property
    def root(self) -> str:
        """The artifacts root as a full address."""

    @property
    def overwrite(self) -> bool:
        """Whether an artifact with another fingerprint may be replaced."""

    def resolve(self, address: str) -> str:
        """The full address.

        Raises:
            InputError: it is empty, has an unknown scheme, or leaves the root.
        """

    def manifest(self, address: str) -> Manifest | None:
        """The manifest of what stands, or is decided to stand, at the address; None: no artifact. Touches nothing.

        Raises:
            ArtifactCorrupt: a manifest is there and cannot be read.
        """

    def open(self, address: str, *, kind: str | None = None) -> Artifact:
        """The artifact, every file verified against size and sha256.

        Raises:
            ArtifactMissing: no artifact is there.
            ArtifactCorrupt: a file is missing or has other bytes.
            InputError: it is of another kind.
            Interrupted: it is just being replaced by another process.
        """

    def raw(self, address: str) -> Path:
        """A user's own file or folder as a local path.

        Raises:
            ArtifactMissing: nothing is there.
        """

    def admit(self, address: str, manifest: Manifest) -> Manifest | None:
        """Ask, before work starts, whether its result may stand at the address.

        Returns:
            The manifest of the artifact that is there with the same fingerprint; None when the place is free, or may
            be overwritten.

        Raises:
            ArtifactExists: another artifact is there, and this store does not overwrite.
            ArtifactCorrupt: an artifact with an unreadable manifest is there, and this store does not overwrite.
            InputError: nothing may ever stand there: files that are not ours, the root, the inside of an artifact.
        """

    def foresee(self, address: str, fingerprint: str | None) -> str:
        """What `admit` would say, in a few words for `--dry-run`; touches nothing.

        Args:
            address: where the output would stand.
            fingerprint: of the work, or None where an input has still to be made.
        """

    def publish(self, address: str, directory: Path, manifest: Manifest) -> Manifest:
        """Make the directory's files the artifact at the address, all or nothing.

        Files and time are filled into the manifest. The directory's files must not be changed in place afterwards: a
        store on the same file system keeps hard links to them.

        Returns:
            The manifest that stands there now: ours, or that of the same work done by somebody faster.

        Raises:
            ArtifactExists: another artifact is there, and this store does not overwrite.
            InputError: as in `admit`, or the directory holds something that cannot be published.
            Interrupted: another process is copying to the address and does not come to an end.
        """

    def verify(self, address: str) -> tuple[str, ...]:
        """Hash every file again and say what is wrong with the artifact; nothing said: it is whole.

        Raises:
            ArtifactMissing: no artifact is there.
            ArtifactCorrupt: its manifest cannot be read.
        """

    def scratch(self) -> AbstractContextManager[Path]:
        """A fresh private directory on the artifacts' file system, removed at the end."""

    def work(self, fingerprint: str) -> AbstractContextManager[WorkArea]:
        """The work area of this fingerprint, locked against other processes.

        Raises:
            Interrupted: another live process has it.
        """

    def cache(self, name: str) -> Path:
        """A local directory that may be lost at any time."""

    def read_text(self, address: str) -> str | None:
        """A small pointer file; None: not there."""

    def write_text(self, address: str, text: str) -> None:
        """Replace a small pointer file atomically.

        Raises:
            InputError: the address is inside an artifact or is the root.
        """

    def gc(self, *, remove: bool) -> tuple[Leftover, ...]:
        """What no artifact needs any more, largest first; removed as well if asked to. Artifacts are never touched."""
