"""Unfinished work that is shared through S3 while it goes on."""

from __future__ import annotations

import threading

import pytest

from nearer.errors import ArtifactCorrupt, OutOfReach
from nearer.store import S3Buckets, S3Options
from nearer.store.cache import FileCache
from nearer.store.local import LocalStore
from nearer.store.s3.space import S3Space
from nearer.store.s3.store import S3Store


class Told:
    """A progress that remembers warnings."""

    def __init__(self):
        self.warnings = []

    def say(self, message, **facts):
        pass

    def warn(self, message, **facts):
        self.warnings.append(message)

    def track(self, items, **options):
        return items


@pytest.fixture
def space(s3_endpoint):
    return S3Space(S3Buckets(default=S3Options(endpoint=s3_endpoint)))


@pytest.fixture
def make(s3_root, space, tmp_path):
    """Opens the store on a machine of that name."""

    def opened(machine="a", progress=None):
        return S3Store(
            s3_root,
            space=space,
            cache=FileCache(tmp_path / machine / "cache", limit_bytes=1 << 30),
            local=LocalStore(str(tmp_path / machine / "work")),
            progress=progress,
        )

    return opened


def checkpoint(work, name, **files):
    for file, data in files.items():
        path = work.path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return name


@pytest.fixture
def uploads(space, monkeypatch):
    """The keys that were uploaded; `gate` holds them up while it is closed."""

    class Uploads:
        def __init__(self):
            self.bodies, self.gate, self.failures = [], threading.Event(), 0
            self.gate.set()

        def __call__(self, source, key, remains=()):
            assert self.gate.wait(60)
            if self.failures:
                self.failures -= 1
                raise OutOfReach("the store does not answer")
            self.bodies.append(source.read_bytes())
            upload(source, key, remains)

    upload, counted = space.upload, Uploads()
    monkeypatch.setattr(space, "upload", counted)
    return counted


def test_a_slow_store_does_not_hold_up_the_work(make, uploads):
    """`share` returns while nothing gets through; a checkpoint that is outdated before its turn is never sent."""
    uploads.gate.clear()
    with make().work("abc") as work:
        for step in range(1, 5):
            earlier = {f"step-{number}" for number in range(1, step)}
            work.share(checkpoint(work, f"step-{step}", weights=b"%d" % step), instead_of=earlier)
        uploads.gate.set()
    assert uploads.bodies[-1] == b"4"
    assert len(uploads.bodies) <= 2  # what was under way when the next one came, and the last
    with make("b").work("abc") as work:
        assert work.shared() == {"step-4"}
        assert (work.bring("step-4") / "weights").read_bytes() == b"4"


def test_a_checkpoint_may_be_removed_at_once(make, uploads):
    """What is shared is sent as it was, although its files are gone before their turn comes."""
    uploads.gate.clear()
    with make().work("abc") as work:
        work.share(checkpoint(work, "step-1", weights=b"1"))
        (work.path / "step-1/weights").unlink()
        uploads.gate.set()
    with make("b").work("abc") as work:
        assert (work.bring("step-1") / "weights").read_bytes() == b"1"


def test_bytes_that_are_there_travel_once(make, uploads, space, s3_root):
    """The best weights, part of every checkpoint, are sent once, and go when no checkpoint names them any more."""
    with make().work("abc") as work:
        work.share(checkpoint(work, "step-1", weights=b"1", best=b"best"))
        work.segments.flush()
        work.share(checkpoint(work, "step-2", weights=b"2", best=b"best"), instead_of={"step-1"})
        work.segments.flush()
        assert sorted(uploads.bodies) == [b"1", b"2", b"best"]
        assert len(space.list(f"{s3_root}/.nearer/work/abc/bytes")) == 2
        work.remove()
    assert space.list(s3_root) == {}


def test_a_store_that_is_out_of_reach_does_not_end_the_work(make, uploads):
    """A push that fails is told and tried again with the next one."""
    told = Told()
    with make(progress=told).work("abc") as work:
        uploads.failures = 1
        work.share(checkpoint(work, "a", weights=b"1"))
        work.segments.flush()
        work.share(checkpoint(work, "b", weights=b"2"))
    assert len(told.warnings) == 1
    assert "a could not be sent" in told.warnings[0]
    with make("b").work("abc") as work:
        assert work.shared() == {"a", "b"}


def test_a_damaged_piece_is_refused(make, space, s3_root):
    """Bytes that are not those that were shared are never brought; the piece is not half there."""
    with make().work("abc") as work:
        work.share(checkpoint(work, "step-1", weights=b"12345", other=b"o"))
    [key] = [key for key, stat in space.list(f"{s3_root}/.nearer/work/abc/bytes").items() if stat.size == 5]
    space.put(f"{s3_root}/.nearer/work/abc/bytes/{key}", b"54321")
    with make("b").work("abc") as work:
        with pytest.raises(ArtifactCorrupt, match="the piece 'step-1' of unfinished work is not whole: weights"):
            work.bring("step-1")
        assert not (work.path / "step-1").exists()


def test_single_files_and_names_with_folders_are_pieces_too(make):
    """A shard or a ledger segment is shared under its path and brought to the same path."""
    with make().work("abc") as work:
        (work.path / "vectors-10").mkdir()
        (work.path / "vectors-10/00000.npy").write_bytes(b"v")
        work.share("vectors-10/00000.npy")
    with make("b").work("abc") as work:
        assert work.shared() == {"vectors-10/00000.npy"}
        assert work.bring("vectors-10/00000.npy").read_bytes() == b"v"
        assert work.shared() == frozenset()
