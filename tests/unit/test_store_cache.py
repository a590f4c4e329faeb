"""Files from elsewhere, kept on this machine."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os

import pytest

from nearer.store import FileEntry
from nearer.store.cache import FileCache

FILES = {"model.bin": b"m" * 4000, "sub/config.json": b"{}", "same-as-model.bin": b"m" * 4000, "empty": b""}
OTHER = {"other.bin": b"o" * 5000}
FORK = multiprocessing.get_context("fork")


def entries(files):
    return [
        FileEntry(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
    ]


class Elsewhere:
    """Where files come from; counts what was asked for."""

    def __init__(self, files, *, failures=()):
        self.files, self.asked, self.failures = files, [], list(failures)

    def __call__(self, entry, target):
        self.asked.append(entry.path)
        if self.failures:
            target.write_bytes(b"half")
            raise self.failures.pop(0)
        target.write_bytes(self.files[entry.path])


def content(top):
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_what_was_fetched_once_is_not_fetched_again(tmp_path):
    """A second process, and a second artifact with the same bytes, fetch nothing; each has its own names."""
    source = Elsewhere(FILES)
    top = FileCache(tmp_path, limit_bytes=1 << 20).artifact("a", entries(FILES), '{"kind": "x"}', source)
    assert content(top) == {**FILES, "manifest.json": b'{"kind": "x"}'}
    assert sorted(source.asked) == sorted(FILES)
    again = Elsewhere({})
    assert FileCache(tmp_path, limit_bytes=1 << 20).artifact("a", entries(FILES), '{"kind": "x"}', again) == top
    renamed = {"renamed.bin": FILES["model.bin"]}
    assert content(FileCache(tmp_path, limit_bytes=1 << 20).artifact("b", entries(renamed), "", again)) == renamed
    assert again.asked == []


@pytest.mark.parametrize("damage", [b"x" * 4000, b"short", b""])
def test_a_corrupt_cache_heals(tmp_path, damage):
    """Bytes that changed on the disk are noticed by a new process and fetched again."""
    top = FileCache(tmp_path, limit_bytes=1 << 20).artifact("a", entries(FILES), "", Elsewhere(FILES))
    with (top / "model.bin").open("r+b") as stream:  # in place, so that every link to it is damaged
        stream.truncate(0)
        stream.write(damage)
    source = Elsewhere(FILES)
    assert content(FileCache(tmp_path, limit_bytes=1 << 20).artifact("a", entries(FILES), "", source)) == FILES
    assert set(source.asked) <= {"model.bin", "same-as-model.bin"}
    assert source.asked


def used(directory):
    return sum(
        size
        for (_, size) in {
            (path.stat().st_ino, path.stat().st_size)
            for folder in ("artifacts", "sha256")
            for path in (directory / folder).rglob("*")
            if path.is_file()
        }
    )


def _fetch(directory, limit, name, files):
    FileCache(directory, limit_bytes=limit).artifact(name, entries(files), "", Elsewhere(files))


def in_a_process(*arguments):
    """A process that uses the cache and ends."""
    process = FORK.Process(target=_fetch, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == 0


def test_a_full_cache_evicts_what_is_longest_unused(tmp_path):
    """Above the limit the oldest artifacts go, with their bytes, and come again when they are asked for."""
    for number in range(4):
        in_a_process(tmp_path, 12_000, f"artifact-{number}", {"model.bin": bytes([number]) * 5000})
        os.utime(tmp_path / f"artifacts/artifact-{number}.lock", (number, number))
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir() if path.is_dir()) == [
        "artifact-2",
        "artifact-3",
    ]
    assert used(tmp_path) <= 12_000
    in_a_process(tmp_path, 12_000, "artifact-0", {"model.bin": bytes(5000)})
    assert (tmp_path / "artifacts/artifact-0/model.bin").read_bytes() == bytes(5000)


def test_what_a_process_uses_is_not_evicted(tmp_path):
    """An artifact that a live process opened stays, even above the limit."""
    top = FileCache(tmp_path, limit_bytes=1).artifact("a", entries(FILES), "", Elsewhere(FILES))
    in_a_process(tmp_path, 1, "b", OTHER)
    in_a_process(tmp_path, 1, "c", {"c": b"c"})
    assert content(top) == FILES
    assert not (tmp_path / "artifacts/b").exists()


def test_a_full_disk_evicts_and_tries_again(tmp_path):
    """No space left: everything that is not in use goes, then the fetch is tried once more."""
    in_a_process(tmp_path, 1 << 20, "old", OTHER)
    full = OSError(errno.ENOSPC, "No space left on device")
    source = Elsewhere({"new.bin": b"n"}, failures=[full])
    cache = FileCache(tmp_path, limit_bytes=1 << 20)
    assert content(cache.artifact("new", entries({"new.bin": b"n"}), "", source)) == {"new.bin": b"n"}
    assert not (tmp_path / "artifacts/old").exists()
    hopeless = Elsewhere({"x": b"x"}, failures=[full, full])
    with pytest.raises(OSError, match="No space left"):
        cache.artifact("x", entries({"x": b"x"}), "", hopeless)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_files_that_were_just_published_are_there(tmp_path):
    """`keep` takes a directory's files; opening the artifact fetches nothing, and a full disk is no error."""
    directory = tmp_path / "published"
    for name, data in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    cache = FileCache(tmp_path / "cache", limit_bytes=1 << 20)
    cache.keep("a", entries(FILES), "{}", directory)
    source = Elsewhere({})
    assert content(cache.artifact("a", entries(FILES), "{}", source)) == {**FILES, "manifest.json": b"{}"}
    assert source.asked == []
    cache.keep("b", entries(OTHER), "{}", tmp_path / "nowhere")


def _fetch_many(directory, seed):
    for number in range(30):
        name = f"artifact-{(number * seed) % 7}"
        files = {"model.bin": name.encode() * 300, "shared.bin": b"s" * 2000}
        cache = FileCache(directory, limit_bytes=9_000, workers=2)
        assert content(cache.artifact(name, entries(files), "", Elsewhere(files))) == files


def test_processes_share_a_cache_that_is_too_small(tmp_path):
    """Several processes fetch and evict at once; each has its files for as long as it uses them."""
    processes = [FORK.Process(target=_fetch_many, args=(tmp_path, seed)) for seed in (1, 2, 3, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
