"""Artifacts from elsewhere on this machine's disk: files by sha256, and directories that are links to them.

    sha256/ab/abcd…      bytes that were verified when they came
    artifacts/<name>/    an artifact as libraries want it: files under their own names, linked to the above
    tmp/                 what is just being fetched

A directory is filled file by file, each put in place whole, so a fetch that was killed goes on where it ended. Every
process that uses a directory holds a shared lock on it; what nobody holds may be evicted, longest unused first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from nearer.store.disk import link_or_copy
from nearer.store.manifest import MANIFEST, FileEntry, file_sha256

Fetch = Callable[[FileEntry, Path], None]
"""Bring a file's bytes, verified, to a path where nothing is."""
Ahead = Callable[[Sequence[FileEntry]], Iterator[tuple[FileEntry, Path]]]
"""Bring files, verified, each to a path where nothing was; those that it cannot bring it leaves out."""
_ABANDONED_SECONDS = 24 * 3600.0  # a guess: no file is fetched for a day


class FileCache:
    """A bounded cache that several processes may share.

    Args:
        directory: made when it is needed.
        limit_bytes: above it, what nobody uses is evicted.
        workers: files that are fetched at once.
    """

    def __init__(self, directory: Path, *, limit_bytes: int, workers: int = 1) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.workers = workers
        self._temporary = directory / "tmp"
        self._ready = False
        self._held: dict[str, int] = {}
        self._hashes: dict[tuple[int, ...], str] = {}

    def artifact(
        self,
        name: str,
        files: Sequence[FileEntry],
        manifest: str,
        fetch: Fetch,
        *,
        ahead: Ahead | None = None,
    ) -> Path:
        """A directory that holds exactly these bytes; the process keeps it from eviction until it ends.

        Args:
            name: of the directory; the same name must always mean the same files.
            files: what it must hold.
            manifest: the text of its manifest.json; "" for none.
            fetch: called for what is not there, or not sound.
            ahead: brings some of that in a way that is faster.
        """
        top = self.directory / "artifacts" / name
        self._hold(top)
        top.mkdir(parents=True, exist_ok=True)
        wanted = [entry for entry in files if not self._is_sound(top / entry.path, entry)]
        if wanted:
            missing = [entry for entry in wanted if not self._from_bytes(top, entry)]
            self.make_room(sum(entry.size for entry in missing))
            here = set()
            for entry, path in ahead(missing) if ahead and missing else ():
                self._kept_and_placed(path, top, entry)
                here.add(entry.path)
            with ThreadPoolExecutor(self.workers) as pool:
                futures = [pool.submit(self._fetched, top, entry, fetch) for entry in missing if entry.path not in here]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        if manifest:
            self._write(top / MANIFEST, manifest)
        return top

    def keep(self, name: str, files: Sequence[FileEntry], manifest: str, source: Path) -> None:
        """Remember files of this machine that were just published: opening them will fetch nothing."""

        def fetch(entry: FileEntry, target: Path) -> None:
            link_or_copy(source / entry.path, target)

        with suppress(OSError):  # a full disk here harms nobody
            self.artifact(name, files, manifest, fetch)

    def add(self, file: Path, entry: FileEntry) -> None:
        """Take a file whose bytes are those of the entry; it keeps its name."""
        kept = self._bytes(entry.sha256)
        with suppress(FileExistsError):
            _with_parents(kept, lambda: link_or_copy(file, kept))

    def make_room(self, needed: int) -> None:
        """Evict what nobody uses, longest unused first, until the bytes fit under the limit."""
        self._sweep()
        used = self._used()
        for lock in sorted((self.directory / "artifacts").glob("*.lock"), key=_changed):
            if used + needed <= self.limit_bytes:
                return
            self._evict(lock)
            self._drop_unlinked()
            used = self._used()

    def temporary(self) -> Path:
        """A path where nothing is, on the cache's file system."""
        path = Path(f"{self._temporary}/{secrets.token_hex(8)}")
        if not self._ready:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._ready = True
        return path

    def _fetched(self, top: Path, entry: FileEntry, fetch: Fetch) -> None:
        temporary = self.temporary()
        try:
            try:
                fetch(entry, temporary)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                temporary.unlink(missing_ok=True)
                self.make_room(self.limit_bytes)  # the disk is smaller than the limit says
                fetch(entry, temporary)
            self._kept_and_placed(temporary, top, entry)
        finally:
            temporary.unlink(missing_ok=True)

    def _kept_and_placed(self, temporary: Path, top: Path, entry: FileEntry) -> None:
        self.add(temporary, entry)
        self._place(temporary, top, entry)

    def _from_bytes(self, top: Path, entry: FileEntry) -> bool:
        """Link the file from the bytes that are there, if they are sound."""
        kept = self._bytes(entry.sha256)
        if not self._is_sound(kept, entry):
            kept.unlink(missing_ok=True)
            return False
        temporary = self.temporary()
        try:
            link_or_copy(kept, temporary)
        except FileNotFoundError:
            return False  # evicted just now
        self._place(temporary, top, entry)
        return True

    def _place(self, temporary: Path, top: Path, entry: FileEntry) -> None:
        target = Path(f"{top}/{entry.path}")
        _with_parents(target, lambda: temporary.replace(target))
        self._hashes[_identity(target)] = entry.sha256

    def _is_sound(self, path: Path, entry: FileEntry) -> bool:
        """Whether the file has its bytes; hashed once a process, unless it changes."""
        try:
            identity = _identity(path)
            if path.is_symlink() or path.stat().st_size != entry.size:
                return False
            if identity not in self._hashes:
                self._hashes[identity] = file_sha256(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return self._hashes[identity] == entry.sha256

    def _bytes(self, sha256: str) -> Path:
        return Path(f"{self.directory}/sha256/{sha256[:2]}/{sha256}")

    def _write(self, path: Path, text: str) -> None:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        temporary = self.temporary()
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    def _hold(self, top: Path) -> None:
        """Lock the directory against eviction for as long as this process lives."""
        path = top.with_name(f"{top.name}.lock")
        if top.name in self._held:
            os.utime(self._held[top.name])
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(handle, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):  # else it was evicted while we waited
                    os.utime(handle)
                    self._held[top.name] = handle
                    return
            os.close(handle)

    def _evict(self, lock: Path) -> None:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), lock.stat()):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)  # before the lock is let go: see _hold
        except (BlockingIOError, FileNotFoundError):
            return
        finally:
            os.close(handle)

    def _drop_unlinked(self) -> None:
        """Remove bytes that no directory links to."""
        for path in self._kept():
            with suppress(FileNotFoundError):
                if path.stat().st_nlink == 1:
                    path.unlink()

    def _kept(self) -> list[Path]:
        return [path for path in (self.directory / "sha256").glob("*/*") if path.is_file()]

    def _used(self) -> int:
        """Bytes on disk, each file once however many links it has."""
        found: dict[tuple[int, int], int] = {}
        for folder in ("sha256", "artifacts"):
            for path in (self.directory / folder).rglob("*"):
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        found[status.st_dev, status.st_ino] = status.st_size
        return sum(found.values())

    def _sweep(self) -> None:
        """Remove what killed processes were fetching."""
        for path in self._temporary.glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def name_of(text: str) -> str:
    """A name for a directory that always means the same files: those that the text tells."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _with_parents(target: Path, act: Callable[[], object]) -> None:
    """Do what puts a file there; its directory is made only if it is missing, which is seldom."""
    try:
        act()
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        act()


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
