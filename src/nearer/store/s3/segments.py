"""Finished pieces of unfinished work in S3: sent in the background, complete or invisible.

    <prefix>/bytes/<sha256>          the files' bytes, once however many pieces hold them
    <prefix>/segments/<name>.json    what a piece consists of, written last; without it the piece does not exist

Bytes are named by their sha256, so a push that died is gone on with, and the best weights so far, which are part of
every checkpoint, travel once. Bytes that no piece names any more are removed.
"""

from __future__ import annotations

import json
import shutil
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nearer.errors import ArtifactCorrupt, ArtifactMissing, OutOfReach
from nearer.store.disk import link_or_copy, sync_file
from nearer.store.manifest import FileEntry, file_sha256, is_inside
from nearer.store.s3.space import S3Space
from nearer.store.s3.verified import bring
from nearer.store.space import Changed, Stat


@dataclass(frozen=True, kw_only=True)
class _Push:
    name: str
    snapshot: Path
    instead_of: frozenset[str]


class S3Segments:
    """The pieces of one work area.

    Args:
        space: the primitives.
        prefix: of the work area in the store.
        outbox: a local directory for what is waiting to be sent; on the work area's file system.
        check: called before anything is changed; raises when the work is somebody else's by now.
        warn: told when a piece could not be sent.
    """

    def __init__(
        self, space: S3Space, prefix: str, *, outbox: Path, check: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self.space = space
        self.prefix = prefix
        self.outbox = outbox
        self.check = check
        self.warn = warn
        self._pieces: dict[str, tuple[FileEntry, ...]] = {}
        self._waiting: deque[_Push] = deque()
        self._failed: dict[str, _Push] = {}
        self._change = threading.Condition()
        self._busy: str | None = None
        self._closed = False
        self._count = 0
        shutil.rmtree(outbox, ignore_errors=True)  # of a killed process: its checkpoints are in the work area as well
        for key in space.list(f"{prefix}/segments"):
            name = urllib.parse.unquote(key.removesuffix(".json"))
            if (files := self._read(name)) is not None:
                self._pieces[name] = files
        self._thread: threading.Thread | None = None

    def names(self) -> frozenset[str]:
        """The complete pieces."""
        with self._change:
            return frozenset(self._pieces)

    def fetch(self, name: str, target: Path) -> None:
        """Bring a piece, verified, to a path where nothing is."""
        with self._change:
            files = self._pieces.get(name)
        if files is None:
            raise ArtifactMissing(f"no piece {name!r} of this work is in the store", where=self.prefix)
        temporary = self.outbox / f"fetch-{threading.get_ident()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            there = self.space.list(f"{self.prefix}/bytes")
            for entry in files:
                path = temporary / "piece" / entry.path if entry.path else temporary / "piece"
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fetch_file(name, entry, path, there)
            (temporary / "piece").rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def share(self, name: str, path: Path, *, instead_of: Iterable[str] = ()) -> None:
        """Take a snapshot by hard links and send it in the background."""
        with suppress(OutOfReach):  # the work goes on, and the push will ask again
            self.check()
        with self._change:
            self._count += 1
            snapshot = self.outbox / f"{self._count:06d}"
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        for file in files:
            link = snapshot / file.relative_to(path) if path.is_dir() else snapshot
            link.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, link)
        push = _Push(name=name, snapshot=snapshot, instead_of=frozenset(instead_of) - {name})
        with self._change:
            kept = [each for each in self._waiting if each.name not in {*push.instead_of, name}]
            dropped = [each for each in self._waiting if each not in kept]
            dropped += [each for each in self._failed.values() if each.name in {*push.instead_of, name}]
            self._failed = {key: each for key, each in self._failed.items() if each not in dropped}
            self._waiting = deque([*self._failed.values(), *kept, push])  # what failed before is tried again
            self._failed = {}
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nearer-push", daemon=True)
                self._thread.start()
            self._change.notify_all()
        for each in dropped:
            _discard(each.snapshot)

    def flush(self) -> tuple[str, ...]:
        """Wait until everything is sent, or was tried."""
        with self._change:
            self._waiting.extend(self._failed.values())
            self._failed = {}
            self._change.notify_all()
            self._change.wait_for(lambda: self._busy is None and not self._waiting)
            return tuple(sorted(self._failed))

    def close(self) -> None:
        """End the background thread; what is still waiting is not sent."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
        if self._thread:
            self._thread.join()
        shutil.rmtree(self.outbox, ignore_errors=True)

    def remove(self) -> None:
        """Remove all pieces from the store, what they consist of first."""
        self.close()
        self._pieces.clear()
        self.space.clear(f"{self.prefix}/segments")
        self.space.clear(f"{self.prefix}/bytes")

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                push = self._waiting.popleft()
                self._busy = push.name
            try:
                self._push(push)
                error = None
            except Exception as caught:  # noqa: BLE001 - whatever it is, `flush` must not wait for a dead thread
                error = caught
            with self._change:
                self._busy = None
                if error is None:
                    _discard(push.snapshot)
                elif not self._closed:
                    self._failed[push.name] = push
                self._change.notify_all()
            if error is not None:
                self.warn(f"{push.name} could not be sent to the store, the next one will be tried: {error}")

    def _push(self, push: _Push) -> None:
        files = [file for file in push.snapshot.rglob("*") if file.is_file()] or [push.snapshot]
        there = self.space.list(f"{self.prefix}/bytes")
        remains = self.space.remains(self.prefix)
        entries = []
        for file in sorted(files):
            path = file.relative_to(push.snapshot).as_posix()
            entry = FileEntry(path="" if path == "." else path, size=file.stat().st_size, sha256=file_sha256(file))
            entries.append(entry)
            if entry.sha256 not in there or there[entry.sha256].size != entry.size:
                begun = [each for each in remains.get(entry.sha256, ()) if each.upload_id]
                self.space.upload(file, f"{self.prefix}/bytes/{entry.sha256}", begun)
        self.check()
        fields = {"name": push.name, "files": [[entry.path, entry.size, entry.sha256] for entry in entries]}
        self.space.put(self._marker(push.name), json.dumps(fields, ensure_ascii=False).encode())
        with self._change:
            self._pieces[push.name] = tuple(entries)
            gone = push.instead_of & self._pieces.keys()
        for name in gone:
            self.space.delete(self._marker(name))
            with self._change:
                del self._pieces[name]
        self._drop_unnamed()

    def _drop_unnamed(self) -> None:
        with self._change:
            named = {entry.sha256 for files in self._pieces.values() for entry in files}
        self.check()  # the bytes of whoever took over have no names here
        for sha256 in self.space.list(f"{self.prefix}/bytes"):
            if sha256 not in named:
                self.space.delete(f"{self.prefix}/bytes/{sha256}")

    def _fetch_file(self, name: str, entry: FileEntry, path: Path, there: Mapping[str, Stat]) -> None:
        key = f"{self.prefix}/bytes/{entry.sha256}"
        try:
            problem = bring(self.space, key, entry, there.get(entry.sha256), path)
        except Changed:
            problem = "missing"
        if problem:
            raise ArtifactCorrupt(
                f"the piece {name!r} of unfinished work is not whole: {entry.path or 'its file'}: {problem}",
                where=self.prefix,
                rule=f"sha256 {entry.sha256}",
                way_out="it is left out; work goes on from the piece before",
            )
        sync_file(path)  # nobody will compare it again

    def _read(self, name: str) -> tuple[FileEntry, ...] | None:
        data = self.space.read(self._marker(name))
        if data is None:
            return None
        try:
            files = tuple(
                FileEntry(path=str(path), size=int(size), sha256=str(sha256))
                for path, size, sha256 in json.loads(data)["files"]
            )
        except (ValueError, KeyError, TypeError):
            return None
        return files if is_inside(name) and all(not each.path or is_inside(each.path) for each in files) else None

    def _marker(self, name: str) -> str:
        return f"{self.prefix}/segments/{urllib.parse.quote(name, safe='')}.json"


def _discard(snapshot: Path) -> None:
    if snapshot.is_dir():
        shutil.rmtree(snapshot, ignore_errors=True)
    else:
        snapshot.unlink(missing_ok=True)
