"""The ledger of finished calls: after kills, torn lines, and the loss of a disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nearer.errors import OutOfReach
from nearer.llm.ledger import Ledger, read_replies, write_replies
from nearer.llm.request import Reply
from nearer.store import S3Buckets, S3Options, Store, open_store
from nearer.store.protocol import WorkArea


def reply(number: int) -> Reply:
    return Reply(text=f"답 {number}\n\ud800둘째 줄", prompt_tokens=number, completion_tokens=2)


@pytest.fixture
def s3(s3_root: str, s3_endpoint: str) -> Callable[[Path], Store]:
    """Opens the store on a machine with that disk."""
    buckets = S3Buckets(default=S3Options(endpoint=s3_endpoint))
    return lambda disk: open_store(s3_root, cache_directory=disk, buckets=buckets)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_process_that_dies_without_a_word_leaves_every_reply(tmp_path: Path) -> None:
    """Nothing is closed; a line that was being written is passed over, and the next run writes on behind it."""
    first = Ledger(WorkArea(path=tmp_path))
    for number in range(5):
        first.put(f"k{number}", reply(number))
    with (tmp_path / "open.jsonl").open("a") as stream:
        stream.write('{"key": "k5", "text": "hal')
    second = Ledger(WorkArea(path=tmp_path))
    assert len(second) == 5
    second.put("k5", reply(5))
    second.close()
    third = Ledger(WorkArea(path=tmp_path))
    assert [third.get(f"k{number}") for number in range(6)] == [reply(number) for number in range(6)]
    assert third.get("k6") is None


def test_many_small_files_become_one(tmp_path: Path) -> None:
    """A run of days does not leave thousands of files to be read again."""
    for number in range(70):
        write_replies(tmp_path / f"replies-{number}.jsonl", {f"k{number}": reply(number)})
    Ledger(WorkArea(path=tmp_path)).close()
    assert len(list(tmp_path.glob("replies-*.jsonl"))) == 1
    assert Ledger(WorkArea(path=tmp_path)).get("k69") == reply(69)


def test_after_the_loss_of_a_disk_at_most_two_segments_are_missing(tmp_path: Path, s3: Callable[[Path], Store]) -> None:
    """What the store holds when the machine vanishes is all but the segment being filled and the one being sent."""
    cache = tmp_path / "cache"
    with s3(cache).work("llm-x") as area:
        ledger = Ledger(area, segment_replies=4, segment_seconds=1e9)
        for number in range(23):
            ledger.put(f"k{number}", reply(number))
        # The machine vanishes here: what another one finds is what is in the store at this moment.
        assert area.segments is not None
        there = area.segments.names()
        copies = tmp_path / "copies"
        copies.mkdir()
        for name in there:
            area.segments.fetch(name, copies / name)
        kept = {key for name in there for key, _ in read_replies(copies / name)}
        assert len(kept) >= 23 - 2 * 4
        ledger.close()
    shutil.rmtree(cache)
    with s3(cache).work("llm-x") as area:
        found = Ledger(area)
        assert [found.get(f"k{number}") for number in range(23)] == [reply(number) for number in range(23)]


def test_a_segment_leaves_after_some_time_without_further_replies(tmp_path: Path, s3: Callable[[Path], Store]) -> None:
    """A slow tail is not at risk: time alone sends it."""
    clock = Clock()
    with s3(tmp_path).work("llm-y") as area:
        ledger = Ledger(area, segment_replies=100, segment_seconds=30.0, clock=clock)
        ledger.put("k", reply(1))
        clock.now = 29.0
        ledger.tick()
        assert area.segments is not None
        area.segments.flush()
        assert not area.segments.names()
        clock.now = 31.0
        ledger.tick()
        area.segments.flush()
        assert len(area.segments.names()) == 1


class Unsent:
    """Segments of a store that does not answer."""

    def names(self) -> frozenset[str]:
        return frozenset()

    def share(self, name: str, path: Path, *, instead_of: object = ()) -> None:
        pass

    def flush(self) -> tuple[str, ...]:
        return ("replies-1.jsonl",)


def test_no_more_is_paid_for_than_a_store_that_is_out_of_reach_may_lose(tmp_path: Path) -> None:
    """Exit 69 before a third segment begins; all replies are still on this disk."""
    ledger = Ledger(WorkArea(path=tmp_path, segments=Unsent()), segment_replies=3)

    def pay() -> None:
        for number in range(9):
            ledger.put(f"k{number}", reply(number))

    with pytest.raises(OutOfReach, match="paid for"):
        pay()
    assert len(ledger) <= 6
    ledger.close()
    assert len(Ledger(WorkArea(path=tmp_path))) == len(ledger)
