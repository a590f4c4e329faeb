"""What every store does, wherever its bytes live: on a disk or, later, under an S3 prefix."""

from __future__ import annotations

import shutil
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


@dataclass(frozen=True, kw_only=True)
class WorkArea:
    """Unfinished work that the same command finds again: checkpoints, shards, ledgers. This process alone has it."""

    path: Path

    def remove(self) -> None:
        """Remove all of it; the work is finished."""
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
            InputError: nothing is there.
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
