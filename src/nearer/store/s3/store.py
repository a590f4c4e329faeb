"""Artifacts under an S3 prefix."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from nearer import address as addresses
from nearer.errors import InputError
from nearer.progress import Progress, Silent
from nearer.store.admit import admit, foresee, require_place
from nearer.store.cache import FileCache, name_of
from nearer.store.gc import collect
from nearer.store.local import LocalStore
from nearer.store.manifest import FileEntry, Manifest
from nearer.store.place import Place, look
from nearer.store.protocol import Artifact, Leftover, WorkArea
from nearer.store.publish import new_attempt, publish
from nearer.store.s3.foreign import ForeignObjects
from nearer.store.s3.lease import Lease
from nearer.store.s3.segments import S3Segments
from nearer.store.s3.space import S3Space
from nearer.store.s3.verified import bring, bring_small
from nearer.store.settle import for_each
from nearer.store.space import AREA, LEASE, Changed, Stat
from nearer.store.standing import corrupt, standing, strays, was_replaced


class S3Store:
    """Artifacts in S3, read through a cache on this machine.

    Args:
        root: the artifacts root, `s3://bucket/prefix`; or anything else when only literal S3 addresses are used.
        space: the primitives.
        cache: of files.
        local: a local store for what never leaves this machine: scratch, work in progress, caches.
        overwrite: whether artifacts with another fingerprint may be replaced.
        progress: told when a push of unfinished work fails.
    """

    def __init__(
        self,
        root: str,
        *,
        space: S3Space,
        cache: FileCache,
        local: LocalStore,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.root = addresses.resolve(root, root=".") if root.startswith("s3://") else root
        self.overwrite = overwrite
        self.space = space
        self.files = cache
        self.foreign = ForeignObjects(space, cache)
        self.local = local
        self.progress = progress or Silent()

    def resolve(self, address: str) -> str:
        """The full address."""
        full = addresses.resolve(address, root=self.root)
        if not addresses.is_s3(full):
            raise InputError(f"{full} is not in S3", rule="s3://bucket/prefix")
        return full

    def place(self, address: str) -> Place:
        """The address and its area."""
        full = self.resolve(address)
        if "/" not in full.removeprefix("s3://"):
            raise InputError(
                f"{full} is, or holds, the artifacts root: it is a whole bucket",
                rule="an artifact has a prefix of its own",
                way_out="give it a name, as in s3://bucket/models/my-model",
            )
        return Place(address=full, root=self.root)

    def manifest(self, address: str) -> Manifest | None:
        """The manifest of what stands, or is decided to stand, at the address."""
        full = self.resolve(address)
        if "/" not in full.removeprefix("s3://"):
            return None
        state = look(self.space, self.place(address))
        if state.broken:
            raise state.broken
        return state.decided

    def open(self, address: str, *, kind: str | None = None) -> Artifact:
        """The artifact, in a local directory whose every file has the sha256 of the manifest."""
        place = self.place(address)
        while True:
            manifest = standing(self.space, place, address, kind=kind)
            problems: list[str] = []
            try:
                path = self._fetched(place, manifest, problems)
            except Changed:
                path = None
            if was_replaced(self.space, place, manifest):
                continue
            if path is None or problems:
                raise corrupt(place, address, problems or ["files change while they are read"])
            return Artifact(address=place.address, manifest=manifest, path=path)

    def _fetched(self, place: Place, manifest: Manifest, problems: list[str]) -> Path | None:
        listing: dict[str, Stat] = {}
        first = threading.Lock()

        def fetch(entry: FileEntry, target: Path) -> None:
            with first:  # else every worker lists
                if not listing:
                    listing.update(self.space.list(place.address))
            if problem := bring(self.space, f"{place.address}/{entry.path}", entry, listing.get(entry.path), target):
                problems.append(f"{entry.path}: {problem}")
                raise Changed(f"{place.address}/{entry.path}")

        def ahead(entries: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, Path]]:
            listing.update(self.space.list(place.address))
            keys = {f"{place.address}/{entry.path}": entry for entry in entries if entry.path in listing}
            paths = {key: (entry, listing[entry.path], self.files.temporary()) for key, entry in keys.items()}
            return bring_small(self.space, paths)

        text = manifest.to_json()
        return self.files.artifact(name_of(text), manifest.files, text, fetch, ahead=ahead)

    def raw(self, address: str) -> Path:
        """A user's own object or prefix as a local path."""
        return self.foreign.path(self.resolve(address), address)

    def admit(self, address: str, manifest: Manifest) -> Manifest | None:
        """Whether the result of work may stand at the address."""
        return admit(self.space, self.place(address), manifest, overwrite=self.overwrite)[1]

    def foresee(self, address: str, fingerprint: str | None) -> str:
        """What `admit` would say."""
        return foresee(self.space, self.place(address), fingerprint, overwrite=self.overwrite)

    def publish(self, address: str, directory: Path, manifest: Manifest) -> Manifest:
        """Make the directory's files the artifact at the address; they stay in the cache of this machine."""
        attempt = new_attempt()
        published = publish(
            self.space, self.place(address), directory, manifest, overwrite=self.overwrite, attempt=attempt
        )
        if published.attempt == attempt:  # the same work, done by somebody faster, may have other bytes
            text = published.to_json()
            self.files.keep(name_of(text), published.files, text, directory)
        return published

    def verify(self, address: str) -> tuple[str, ...]:
        """Read every file again and say what is wrong."""
        place = self.place(address)
        manifest = standing(self.space, place, address)
        listing = self.space.list(place.address)
        wanted = {entry.path: entry for entry in manifest.files}

        def one(name: str) -> str | None:
            temporary = self.files.temporary()
            try:
                problem = bring(self.space, f"{place.address}/{name}", wanted[name], listing.get(name), temporary)
            except Changed:
                problem = "missing"
            finally:
                temporary.unlink(missing_ok=True)
            return f"{name}: {problem}" if problem else None

        problems = for_each(self.space, one, sorted(wanted))
        return (*(problem for problem in problems if problem), *strays(self.space, place, manifest))

    def scratch(self) -> AbstractContextManager[Path]:
        """A fresh directory on this machine."""
        return self.local.scratch()

    @contextmanager
    def work(self, fingerprint: str) -> Iterator[WorkArea]:
        """The work area, here and at `<root>/.nearer/work/<fingerprint>/`."""
        prefix = f"{self.root}/{AREA}/work/{fingerprint}"
        with self.local.work(fingerprint) as area:
            lease = Lease(self.space, f"{prefix}/{LEASE}", holder=self._holder())
            with lease.held():
                outbox = area.path.with_name(f"{area.path.name}.outbox")
                segments = S3Segments(self.space, prefix, outbox=outbox, check=lease.check, warn=self.progress.warn)
                try:
                    yield WorkArea(path=area.path, segments=segments)
                finally:
                    segments.flush()  # the last checkpoint of a run that was stopped is the one that counts
                    segments.close()

    def _holder(self) -> str:
        """A name for this machine's directory of unfinished work."""
        path = Path(self.local.root, AREA, "holder")
        if not path.exists():
            self.local.space.create(str(path), secrets.token_hex(16).encode())
        return path.read_text(encoding="ascii")

    def cache(self, name: str) -> Path:
        """A directory on this machine."""
        return self.local.cache(name)

    def read_text(self, address: str) -> str | None:
        """A small pointer file."""
        data = self.space.read(self.resolve(address))
        return None if data is None else data.decode(errors="replace")

    def write_text(self, address: str, text: str) -> None:
        """Replace a small pointer file."""
        place = self.place(address)
        require_place(self.space, place)
        self.space.put(place.address, text.encode())

    def gc(self, *, remove: bool) -> tuple[Leftover, ...]:
        """What no artifact needs any more, in the store and on this machine."""
        return (*collect(self.space, self.root, remove=remove), *self.local.gc(remove=remove))
