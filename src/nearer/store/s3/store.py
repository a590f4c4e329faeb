"""Artifacts under an S3 prefix."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from nearer import address as addresses
from nearer.errors import ArtifactMissing, InputError, OutOfReach
from nearer.progress import Progress, Silent
from nearer.store.admit import admit, foresee, require_place
from nearer.store.cache import FileCache
from nearer.store.gc import collect
from nearer.store.local import LocalStore
from nearer.store.manifest import FileEntry, Manifest
from nearer.store.place import Place, look
from nearer.store.protocol import Artifact, Leftover, WorkArea
from nearer.store.publish import new_attempt, publish
from nearer.store.s3 import tags
from nearer.store.s3.lease import Lease
from nearer.store.s3.segments import S3Segments
from nearer.store.s3.space import S3Space
from nearer.store.settle import for_each
from nearer.store.space import AREA, LEASE, Changed, Stat
from nearer.store.standing import corrupt, standing, strays, was_replaced

_TRIES: Final = 3


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
            if problem := self._fetch(f"{place.address}/{entry.path}", entry, listing.get(entry.path), target):
                problems.append(f"{entry.path}: {problem}")
                raise Changed(f"{place.address}/{entry.path}")

        text = manifest.to_json()
        return self.files.artifact(_name(text), manifest.files, text, fetch)

    def _fetch(self, key: str, entry: FileEntry, stat: Stat | None, target: Path) -> str | None:
        """Bring a file and say what is wrong with it. Wrong bytes may be the wire's fault: tried again."""
        if stat is None:
            return "missing"
        if stat.size != entry.size:
            return f"{stat.size} bytes instead of {entry.size}"
        found = ""
        for _ in range(_TRIES):
            target.unlink(missing_ok=True)
            found = self.space.download(key, target, stat)
            if found == entry.sha256:
                return None
        return f"sha256 is {found}, not {entry.sha256}"

    def raw(self, address: str) -> Path:
        """A user's own object or prefix as a local path."""
        for _ in range(_TRIES):
            with suppress(Changed):
                return self._raw(address)
        raise InputError(
            f"{address} changes while it is read",
            where=self.resolve(address),
            rule="input that stays as it is while the work runs",
            way_out="wait until it is written, then run the same command again",
        )

    def _raw(self, address: str) -> Path:
        full = self.resolve(address)
        listing = {name: stat for name, stat in self.space.list(full).items() if AREA not in name.split("/")}
        if not listing:
            raise ArtifactMissing(
                f"{address} does not exist",
                where=full,
                rule="an object, or a prefix that holds objects",
                way_out="correct the address; s3://… is literal, a plain name is under `artifacts`",
            )
        known = self.files.directory / "raw" / f"{_name(json.dumps([full, _plain(listing)]))}.json"
        entries = self._raw_entries(full, listing, known)
        top = self.files.artifact(known.stem, entries, "", self._raw_fetch(full, listing))
        return top / entries[0].path if "" in listing else top

    def _raw_entries(self, full: str, listing: Mapping[str, Stat], known: Path) -> list[FileEntry]:
        """Names and sha256 of a user's objects: what has neither is fetched once to learn them."""
        if known.exists():
            return [FileEntry(**entry) for entry in json.loads(known.read_text(encoding="utf-8"))]

        def one(name: str) -> FileEntry:
            stat = listing[name]
            temporary = self.files.temporary()
            try:
                sha256 = self._believed(f"{full}/{name}" if name else full, temporary, stat)
                entry = FileEntry(path=name or full.rpartition("/")[2], size=stat.size, sha256=sha256)
                self.files.add(temporary, entry)
            finally:
                temporary.unlink(missing_ok=True)
            return entry

        self.files.make_room(sum(stat.size for stat in listing.values()))
        entries = for_each(self.space, one, sorted(listing))
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f"{known.name}.{secrets.token_hex(4)}")
        temporary.write_text(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False), encoding="utf-8")
        temporary.replace(known)
        return entries

    def _believed(self, key: str, target: Path, stat: Stat) -> str:
        """Bring an object whose sha256 nobody wrote down: its ETag tells that the bytes are right, or a second time."""
        seen: set[str] = set()
        bucket = key.removeprefix("s3://").partition("/")[0]
        for _ in range(_TRIES + 1):
            target.unlink(missing_ok=True)
            sha256 = self.space.download(key, target, stat)
            if sha256 in seen or tags.agrees(target, stat.tag, part=self.space.transfer.part_bytes(bucket, stat.size)):
                return sha256
            seen.add(sha256)
        raise OutOfReach(
            "other bytes come each time",
            where=key,
            rule="the same bytes twice, or those of the ETag",
            way_out="look for a broken proxy or network card; then run the same command again",
        )

    def _raw_fetch(self, full: str, listing: Mapping[str, Stat]) -> Callable[[FileEntry, Path], None]:
        def fetch(entry: FileEntry, target: Path) -> None:
            name = "" if "" in listing else entry.path
            if self._fetch(f"{full}/{name}" if name else full, entry, listing[name], target):
                raise Changed(full)

        return fetch

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
            self.files.keep(_name(text), published.files, text, directory)
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
                problem = self._fetch(f"{place.address}/{name}", wanted[name], listing.get(name), temporary)
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


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(listing: Mapping[str, Stat]) -> list[list[object]]:
    return [[name, stat.size, stat.tag or stat.modified] for name, stat in sorted(listing.items())]
