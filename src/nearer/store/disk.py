"""The primitives on a POSIX file system."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nearer.store.space import TEMPORARY, Remains, Stat

# Hard links are refused across file systems, by some network and FUSE file systems, and beyond a number of links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class LocalSpace:
    """The primitives of publishing on a POSIX file system. Files are linked where that works, else copied."""

    grace_seconds = 0.0
    workers = 1  # a link takes microseconds
    resumes = False

    def read(self, key: str) -> bytes | None:
        """The bytes; None: no such file."""
        try:
            return Path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not exist: the whole content under another name, then one link(2)."""
        path = Path(key)
        with _temporary(path) as temporary:
            _write(temporary, data)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                if not self._create_without_link(temporary, path):
                    return False
        sync_directory(path.parent)
        return True

    def _create_without_link(self, temporary: Path, path: Path) -> bool:
        """For file systems without hard links: whoever holds the lock may look and rename."""
        while True:
            with self.alone(f"{path}.lock") as mine:
                if mine:
                    if path.exists():
                        return False
                    temporary.rename(path)
                    return True
            time.sleep(0.01)

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a file: write, fsync, rename, fsync of the directory."""
        path = Path(key)
        with _temporary(path) as temporary:
            _write(temporary, data)
            temporary.replace(path)
        sync_directory(path.parent)

    def upload(self, source: Path, key: str, remains: Sequence[Remains] = ()) -> None:  # noqa: ARG002
        """Write or replace a file with a local file's bytes. A symbolic link is followed and copied."""
        path = Path(key)
        with _temporary(path) as temporary:
            if source.is_symlink():
                _copy_bytes(source, temporary)
            else:
                link_or_copy(source, temporary)
            sync_file(temporary)
            temporary.replace(path)
        sync_directory(path.parent)

    def remains(self, prefix: str) -> Mapping[str, Sequence[Remains]]:  # noqa: ARG002
        """Nothing: linking a file again costs less than comparing it."""
        return {}

    def copy(self, source: str, key: str, size: int = 0) -> None:  # noqa: ARG002
        """Write or replace a file with another one's bytes."""
        path = Path(key)
        with _temporary(path) as temporary:
            link_or_copy(Path(source), temporary)
            if path.is_dir() and not path.is_symlink():
                _remove_empty_directories(path)  # an older artifact had a directory of this name
            temporary.replace(path)
        sync_directory(path.parent)

    def list(self, prefix: str) -> Mapping[str, Stat]:
        """All files below the directory, links not followed."""
        top = Path(prefix)
        if not top.is_dir():
            return {"": _stat(top)} if os.path.lexists(top) else {}
        found = {}
        for folder, folders, names in os.walk(top):
            for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found[path.relative_to(top).as_posix()] = _stat(path)
        return found

    def delete(self, key: str, tag: str = "") -> None:  # noqa: ARG002 - locks keep others from writing it anew
        """Remove a file; nothing happens if it is not there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            Path(key).unlink()

    def clear(self, prefix: str) -> None:
        """Remove the directory and all that is in it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(prefix)

    def unfinished(self, prefix: str) -> Mapping[str, Stat]:  # noqa: ARG002
        """Nothing: a file appears whole, by a rename."""
        return {}

    def abandon(self, prefix: str) -> None:
        """Nothing is ever begun."""

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Hold an flock(2) on the file; the kernel lets go of it when the process dies."""
        path = Path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _try_lock(path)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                path.unlink(missing_ok=True)  # before the lock is let go: see _try_lock
                os.close(handle)


def _try_lock(path: Path) -> int | None:
    """Lock the file without waiting; None: somebody has it.

    Owners remove the file before they let go, so a lock counts only if the file that we locked is still the one of
    that name: otherwise two processes could hold an old and a new file.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                os.truncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside the path, on the same file system; nothing is left of it at the end, unless we are killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; where links are refused, copy its bytes."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy_bytes(source, target)
        sync_file(target)


def _copy_bytes(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def sync_file(path: Path) -> None:
    """Have the file's bytes on the disk before this returns."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Make what was made, renamed or removed in a directory last."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_empty_directories(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        Path(folder).rmdir()


def _stat(path: Path) -> Stat:
    found = path.lstat()
    return Stat(size=found.st_size, modified=found.st_mtime)
