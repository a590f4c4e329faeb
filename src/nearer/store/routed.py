"""Several roots in one run: each address is the business of the store that it lies in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from nearer import address as addresses
from nearer.store.manifest import Manifest
from nearer.store.protocol import Artifact, Leftover, Store, WorkArea


class RoutedStore:
    """Local and S3 addresses side by side; what is unfinished lives with the root.

    Args:
        root: the artifacts root.
        overwrite: whether artifacts with another fingerprint may be replaced.
        local: for paths.
        s3: opens the store for s3://…, when the first such address comes.
    """

    def __init__(self, root: str, *, overwrite: bool, local: Store, s3: Callable[[], Store]) -> None:
        self.root = addresses.resolve(root, root=".")
        self.overwrite = overwrite
        self._local = local
        self._open_s3 = s3

    @functools.cached_property
    def _s3(self) -> Store:
        return self._open_s3()

    def _of(self, address: str) -> Store:
        return self._s3 if addresses.is_s3(self.resolve(address)) else self._local

    @property
    def _home(self) -> Store:
        return self._s3 if addresses.is_s3(self.root) else self._local

    def resolve(self, address: str) -> str:
        """The full address."""
        return addresses.resolve(address, root=self.root)

    def manifest(self, address: str) -> Manifest | None:
        """The manifest of what stands, or is decided to stand, at the address."""
        return self._of(address).manifest(address)

    def open(self, address: str, *, kind: str | None = None) -> Artifact:
        """The artifact at its address, verified."""
        return self._of(address).open(address, kind=kind)

    def raw(self, address: str) -> Path:
        """A user's own file or folder."""
        return self._of(address).raw(address)

    def admit(self, address: str, manifest: Manifest) -> Manifest | None:
        """Whether the result of work may stand at the address."""
        return self._of(address).admit(address, manifest)

    def foresee(self, address: str, fingerprint: str | None) -> str:
        """What `admit` would say."""
        return self._of(address).foresee(address, fingerprint)

    def publish(self, address: str, directory: Path, manifest: Manifest) -> Manifest:
        """Make the directory's files the artifact at the address."""
        return self._of(address).publish(address, directory, manifest)

    def verify(self, address: str) -> tuple[str, ...]:
        """Hash every file again and say what is wrong."""
        return self._of(address).verify(address)

    def scratch(self) -> AbstractContextManager[Path]:
        """A fresh private directory."""
        return self._home.scratch()

    def work(self, fingerprint: str) -> AbstractContextManager[WorkArea]:
        """The work area of this fingerprint."""
        return self._home.work(fingerprint)

    def cache(self, name: str) -> Path:
        """A local directory that may be lost at any time."""
        return self._home.cache(name)

    def read_text(self, address: str) -> str | None:
        """A small pointer file."""
        return self._of(address).read_text(address)

    def write_text(self, address: str, text: str) -> None:
        """Replace a small pointer file atomically."""
        self._of(address).write_text(address, text)

    def gc(self, *, remove: bool) -> tuple[Leftover, ...]:
        """What no artifact under the root needs any more."""
        return self._home.gc(remove=remove)
