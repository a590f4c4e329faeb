"""SIGKILL before and after every request that publishing, fetching and sharing make, and what the next run does."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter

import pytest
from s3_machine import around_requests, forked, machine, space_at, was_killed
from store_work import content, files_below, job, publish, write

from nearer.errors import ArtifactMissing, Interrupted
from nearer.store.s3 import lease
from nearer.store.space import AREA

OLD = {"model.bin": b"old " * 100, "sub/config.json": b"{}", "only-old.txt": b"o"}
NEW = {"model.bin": b"new!" * 100, "sub/config.json": b"[]", "only-new.txt": b"n", "big.bin": b"b" * (6 << 20)}
FETCHED = {"big.bin": b"x" * (6 << 20)} | {f"file-{n}.bin": bytes([n]) * 1000 for n in range(6)}
BEST = b"w" * (6 << 20)
PIECES = {
    "step-1": {"weights.bin": BEST, "state.bin": b"1" * 9000},
    "step-2": {"weights.bin": BEST, "state.bin": b"2" * 9000},
}
SIZES = {name: len(data) for name, data in NEW.items()}
UNTIL_DONE = 400  # more requests than any of these processes makes
FULL = pytest.mark.full, pytest.mark.timeout(3600)
PIECES_OF_ALL = 7  # odd, so that each piece has kill points with a reader first and without
SOME_OR_ALL = [(14, 43), *(pytest.param((first, PIECES_OF_ALL), marks=FULL) for first in range(PIECES_OF_ALL))]


@pytest.fixture
def clean(s3_endpoint):
    space = space_at(s3_endpoint)
    space.grace_seconds = 0.0  # for gc: what is left is of dead processes
    return space


def points(first, step):
    """Kill points: before and after each n-th request, all of them or some."""
    return itertools.islice(itertools.product(range(1, UNTIL_DONE), ("before", "after")), first, None, step)


def finished_files(space, root):
    """Bytes of files that are in a staging, and in parts of uploads that were begun there."""
    found = space.list(f"{root}/{AREA}/staging")
    whole = Counter({name.partition("/")[2]: stat.size for name, stat in found.items()})
    whole.pop("manifest.json", None)
    begun = space.unfinished(f"{root}/{AREA}/staging")
    parts = {name.partition("/")[2].partition("?")[0]: stat.size for name, stat in begun.items()}
    return sum(min(size, SIZES[name]) for name, size in (Counter(parts) | whole).items())


def seen_by_a_reader(root, clean, directory):
    try:
        return content(machine(root, clean, directory))
    except ArtifactMissing:
        return None
    except Interrupted:
        return "being replaced"


# An overwrite does all that a publication does; the sample is of one.
@pytest.mark.parametrize("before", [pytest.param("none", marks=FULL), "old"])
@pytest.mark.parametrize("which", SOME_OR_ALL, ids=lambda which: f"from {which[0]} by {which[1]}")
def test_kill_at_every_request_of_a_publication(s3_endpoint, s3_root, clean, tmp_path, before, which):
    """A reader sees the old or the new artifact; the same command completes and sends nothing finished again."""
    seen, killed, saved = [], 0, 0
    for number, when in points(*which):
        root, disk = f"{s3_root}/{number}-{when}", tmp_path / f"{number}-{when}"
        if before == "old":
            publish(machine(root, clean, disk), "models/m", OLD, "f1")

        def work(root=root, disk=disk):
            job(machine(root, space_at(s3_endpoint), disk, overwrite=True), "f2", NEW)

        went_on = was_killed(forked(work, number=number, when=when))
        killed += went_on
        finished = finished_files(clean, root)
        reader_first = number % 2
        if reader_first:
            seen.append(seen_by_a_reader(root, clean, tmp_path / f"reader-{number}-{when}"))
        decided = clean.list(f"{root}/{AREA}/claims")
        with around_requests() as requests:
            job(machine(root, clean, disk, overwrite=True), "f2", NEW)
        sent = sum(request.sent for request in requests if request.is_file)
        assert sent <= sum(SIZES.values()) - finished, (number, when)
        if len(decided) > (before == "old") or not went_on:
            assert sent == 0, (number, when)
        saved += finished
        reader = machine(root, clean, tmp_path / f"last-{number}-{when}")
        assert content(reader) == NEW
        assert reader.verify("models/m") == ()
        reader.gc(remove=True)
        assert {name.split("/")[0] for name in clean.list(f"{root}/{AREA}")} == {"claims"}
        assert not list(clean._uploads(root))
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        clean.clear(root)
        if not went_on:
            break
    print(
        f"{killed} kill points of {'an overwrite' if before == 'old' else 'a publication'} "
        f"(from {which[0]} by {which[1]}), {saved} bytes not sent again"
    )
    told = ["new" if found == NEW else "old" if found == OLD else found for found in seen]
    first = "old" if before == "old" else None
    turn = told.index("new")
    assert told == [first] * turn + ["new"] * (len(told) - turn)
    assert saved > 0


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=FULL)])
def test_kill_at_every_request_of_a_fetch(s3_endpoint, s3_root, clean, tmp_path, step):
    """The next fetch gets the right bytes, and does not fetch again what was complete."""
    publish(machine(s3_root, clean, tmp_path / "publisher"), "models/m", FETCHED, "f1")
    killed, saved = 0, 0
    for number, when in points(step // 2, step):
        disk = tmp_path / f"{number}-{when}"

        def work(disk=disk):
            content(machine(s3_root, space_at(s3_endpoint), disk))

        went_on = was_killed(forked(work, number=number, when=when))
        killed += went_on
        complete = [path for path in disk.rglob("*.bin") if "artifacts" in path.parts]
        saved += len(complete)
        with around_requests() as requests:
            assert content(machine(s3_root, clean, disk)) == FETCHED
        fetched = Counter(request.key.rpartition("/")[2] for request in requests if request.is_fetch)
        assert not {path.name for path in complete} & set(fetched)
        assert len(complete) + len(fetched) == len(FETCHED)
        assert not list(disk.rglob("tmp/*")) or went_on
        if not went_on:
            break
    print(f"{killed} kill points of a fetch, {saved} files not fetched again")
    assert saved > 0


def share_both(store):
    """A checkpoint, and the next one instead of it; they have a file in common."""
    with store.work("w1") as area:
        for name, files in PIECES.items():
            write(area.path / name, files)
        area.share("step-1")
        area.segments.flush()
        area.share("step-2", instead_of=["step-1"])
        assert area.segments.flush() == ()


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=FULL)])
def test_kill_at_every_request_of_a_push(s3_endpoint, s3_root, clean, tmp_path, monkeypatch, step):
    """Another machine finds the newest complete piece; the same push again sends no bytes that were there."""
    monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)  # the killed process is dead for sure
    seen, killed, saved = [], 0, 0
    for number, when in points(step // 2, step):
        root, disk = f"{s3_root}/{number}-{when}", tmp_path / f"{number}-{when}"

        def work(root=root, disk=disk):
            share_both(machine(root, space_at(s3_endpoint), disk))

        went_on = was_killed(forked(work, number=number, when=when))
        killed += went_on
        prefix = f"{root}/{AREA}/work/w1/bytes"
        there = sum(stat.size for stat in {**clean.list(prefix), **clean.unfinished(prefix)}.values())
        saved += there
        with machine(root, clean, tmp_path / f"other-{number}-{when}").work("w1") as area:
            found = area.shared()
            for name in found:
                assert files_below(area.bring(name)) == PIECES[name]
            seen.append(max(found, default=None))
            with around_requests() as requests:
                for name, files in PIECES.items():
                    if name not in found and name >= max(found, default=""):
                        write(area.path / name, files)
                        area.share(name, instead_of=found)
                assert area.segments.flush() == ()
            sent = sum(request.sent for request in requests if request.is_file)
            assert sent <= sum(len(data) for data in {*PIECES["step-1"].values(), *PIECES["step-2"].values()}) - there
            if seen[-1] == "step-2":
                assert sent == 0
            area.remove()
        left = set(clean.list(f"{root}/{AREA}"))
        assert left == set(), (number, when)
        if not went_on:
            break
    print(f"{killed} kill points of a push, {saved} bytes not sent again")
    assert seen == sorted(seen, key=lambda name: name or "")
    assert set(seen) == {None, "step-1", "step-2"}
