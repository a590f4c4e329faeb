"""Publishing under chosen schedules, over a space in memory that is no more than what S3 promises.

Each primitive is atomic, there are no locks, and between any two primitives another process may run. That is the
protocol without the help of flock: what holds here holds on S3.
"""

from __future__ import annotations

import itertools
import random
import threading
from contextlib import contextmanager

import pytest

from nearer.errors import ArtifactCorrupt, ArtifactExists, Interrupted, NearerError
from nearer.store import Manifest, publish
from nearer.store.place import Place, look
from nearer.store.settle import settle
from nearer.store.space import Stat

PLACE = Place(address="s3://bucket/root/models/m", root="s3://bucket/root")
FIRST = {"model.bin": b"first", "shared": b"1", "a": b"a"}
SECOND = {"model.bin": b"second", "shared": b"2", "b": b"b"}
THIRD = {"model.bin": b"third", "shared": b"3", "a": b"A", "b": b"B"}


class MemorySpace:
    """Objects by key."""

    grace_seconds = 86400.0
    workers = 1
    resumes = True

    def __init__(self, objects=()):
        self.objects = dict(objects)

    def read(self, key):
        return self.objects.get(key)

    def create(self, key, data):
        return self.objects.setdefault(key, data) is data

    def put(self, key, data):
        self.objects[key] = data

    def upload(self, source, key, remains=()):
        self.objects[key] = source.read_bytes()

    def remains(self, prefix):
        return {}

    def copy(self, source, key, size=0):
        if source not in self.objects:
            raise FileNotFoundError(2, "No such key", source)
        self.objects[key] = self.objects[source]

    def list(self, prefix):
        below = f"{prefix}/"
        return {
            key.removeprefix(below): Stat(len(data), 0.0, data.hex())
            for key, data in self.objects.items()
            if below in key
        }

    def delete(self, key, tag=""):
        if not tag or self.objects.get(key, b"").hex() == tag:
            self.objects.pop(key, None)

    def unfinished(self, prefix):
        return {}

    def abandon(self, prefix):
        pass

    def clear(self, prefix):
        for key in [key for key in self.objects if key.startswith(f"{prefix}/")]:
            del self.objects[key]

    @contextmanager
    def alone(self, key):
        yield True


class Process(threading.Thread):
    """Work over a space that makes one primitive call a `step`."""

    def __init__(self, space, work):
        super().__init__(daemon=True)
        self.space, self.work = space, work
        self.turn, self.paused = threading.Lock(), threading.Lock()
        self.result, self.done = None, False
        self.turn.acquire()
        self.paused.acquire()
        self.start()
        self.paused.acquire()

    def __getattr__(self, name):
        found = getattr(self.space, name)
        if not callable(found) or name == "alone":
            return found

        def primitive(*args):
            self.paused.release()
            self.turn.acquire()
            return found(*args)

        return primitive

    def run(self):
        self.result = _attempt(self.work, self)
        self.done = True
        self.paused.release()

    def step(self):
        if not self.done:
            self.turn.release()
            self.paused.acquire()

    def steps(self, count):
        for _ in range(count):
            self.step()

    def finish(self):
        count = 0
        while not self.done:
            self.step()
            count += 1
        self.join()
        return count


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A function that gives the work of publishing these files."""
    numbers = itertools.count()
    # No two attempts have one name, and the schedule of a run is the same every time.
    monkeypatch.setattr(publish, "new_attempt", lambda: f"attempt-{next(numbers)}")

    def work(files, fingerprint, *, overwrite=False):
        directory = tmp_path / fingerprint
        directory.mkdir(exist_ok=True)
        for name, data in files.items():
            (directory / name).write_bytes(data)
        manifest = Manifest(kind="embedder", name="m", fingerprint=fingerprint)
        return lambda space: publish.publish(space, PLACE, directory, manifest, overwrite=overwrite)

    return work


def read(space):
    """What a verifying reader gets: the fingerprint of a whole artifact."""
    while True:
        manifest = settle(space, PLACE).manifest
        found = {entry.path: space.read(f"{PLACE.address}/{entry.path}") for entry in manifest.files}
        after = look(space, PLACE)
        if after.staged is None and after.manifest.attempt == manifest.attempt:
            expected = {"f1": FIRST, "f2": SECOND, "f3": THIRD}[manifest.fingerprint]
            if found != expected:
                raise ArtifactCorrupt(str([name for name in expected if found[name] != expected[name]]))
            return manifest.fingerprint


def _attempt(work, space):
    try:
        return work(space)
    except NearerError as error:
        return error


def run(objects, first, second, switches):
    """First runs so many steps, then second so many, and so on; then first to its end, then second to its."""
    space = MemorySpace(objects)
    processes = Process(space, first), Process(space, second)
    for number, count in enumerate(switches):
        processes[number % 2].steps(count)
    for process in processes:
        process.finish()
    return space, [process.result for process in processes]


def lengths(objects, *works):
    return [Process(MemorySpace(objects), work).finish() for work in works]


def schedules(most, *, depth, sample):
    """All schedules with one switch; of those with more switches all, or a seeded sample."""
    yield from ((count,) for count in range(most[0] + 1))
    many = [range(most[number % 2] + 1) for number in range(depth)]
    if sample is None:
        yield from itertools.product(*many)
    else:
        draw = random.Random(13)
        yield from (tuple(draw.choice(counts) for counts in many) for _ in range(sample))


# The whole of a schedule is a few milliseconds of one core; the long runs are for `make test-full`.
pytestmark = pytest.mark.timeout(3600)
DEPTHS = [(2, 150), pytest.param(2, None, marks=pytest.mark.full), pytest.param(4, 5_000, marks=pytest.mark.full)]


@pytest.mark.parametrize(("depth", "sample"), DEPTHS)
def test_two_first_publishers(publisher, depth, sample):
    """Under every schedule one publisher has its own artifact there and the other is told the winner's fingerprint."""
    works = publisher(FIRST, "f1"), publisher(SECOND, "f2")
    winners, covered = set(), 0
    for switches in schedules(lengths({}, *works), depth=depth, sample=sample):
        space, results = run({}, *works, switches)
        winner = read(space)
        won = [result for result in results if isinstance(result, Manifest)]
        [lost] = [result for result in results if isinstance(result, ArtifactExists)]
        assert [manifest.fingerprint for manifest in won] == [winner]
        assert f"the fingerprint there is {winner}" in str(lost)
        assert not [key for key in space.objects if "/staging/" in key]
        assert {key.removeprefix(PLACE.address) for key in space.objects if key.startswith(f"{PLACE.address}/")} == {
            f"/{name}" for name in ({"f1": FIRST, "f2": SECOND}[winner] | {"manifest.json": b""})
        }
        winners.add(winner)
        covered += 1
    print(f"{covered} schedules")
    assert winners == {"f1", "f2"}


@pytest.mark.parametrize(("depth", "sample"), DEPTHS)
def test_two_overwriters(publisher, depth, sample):
    """Under every schedule one whole artifact stands there in the end."""
    base = MemorySpace()
    publisher(THIRD, "f3")(base)
    works = publisher(FIRST, "f1", overwrite=True), publisher(THIRD, "f3", overwrite=True)
    standing, covered = set(), 0
    for switches in schedules(lengths(base.objects, *works), depth=depth, sample=sample):
        space, results = run(base.objects, *works, switches)
        assert all(isinstance(result, Manifest | Interrupted) for result in results)
        covered += 1
        standing.add(read(space))
    print(f"{covered} schedules")
    assert standing == {"f1", "f3"}


@pytest.mark.parametrize(("depth", "sample"), DEPTHS)
def test_a_reader_during_an_overwrite(publisher, depth, sample):
    """Under every schedule a verifying reader gets the old artifact or the new one."""
    base = MemorySpace()
    publisher(SECOND, "f2")(base)
    works = publisher(FIRST, "f1", overwrite=True), read
    seen = set()
    for switches in schedules(lengths(base.objects, *works), depth=depth, sample=sample):
        space, results = run(base.objects, *works, switches)
        assert isinstance(results[0], Manifest)
        seen.add(results[1])
        assert read(space) == "f1"
    assert seen == {"f1", "f2"}


class LosesAnswers(MemorySpace):
    """The first create of a claim takes effect, but its answer is lost."""

    def __init__(self, objects, how):
        super().__init__(objects)
        self.how = how

    def create(self, key, data):
        created = super().create(key, data)
        if created and (how := self.how):
            self.how = None
            if how == "error":
                raise OSError(5, "Input/output error", key)
            return False  # as a client's own retry would be told
        return created


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_retried_create_that_meets_itself_has_won(publisher, overwrite):
    """If a client repeats a create that had succeeded, the publisher recognises its own claim."""
    base = MemorySpace()
    if overwrite:
        publisher(SECOND, "f2")(base)
    space = LosesAnswers(base.objects, "false")
    assert publisher(FIRST, "f1", overwrite=overwrite)(space).fingerprint == read(space) == "f1"
    assert sum(key.endswith(".json") and "/claims/" in key for key in space.objects) == 1 + overwrite


def test_a_create_that_failed_and_yet_succeeded_is_finished_by_the_next(publisher):
    """After an error whose effect is unknown, the decided attempt keeps its staging, and a reader finishes it."""
    base = MemorySpace()
    publisher(SECOND, "f2")(base)
    space = LosesAnswers(base.objects, "error")
    with pytest.raises(OSError, match="Input/output error"):
        publisher(FIRST, "f1", overwrite=True)(space)
    assert read(space) == "f1"


def test_a_staging_that_somebody_removed_is_told(publisher):
    """A publisher whose staging vanished between claim and copy does not say that it published."""

    class Vandal(MemorySpace):
        def create(self, key, data):
            created = super().create(key, data)
            self.clear(f"{PLACE.area}/staging")
            return created

    space = Vandal()
    with pytest.raises(Interrupted, match="was removed before it was copied"):
        publisher(FIRST, "f1")(space)
    assert publisher(SECOND, "f2")(MemorySpace(space.objects)).fingerprint == "f2"
