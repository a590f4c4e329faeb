"""However often a log stream ends, and wherever: each line once, in order, and what is lost is told."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nearer.cluster.answers import Unreachable
from nearer.cluster.patience import Patience
from nearer.cluster.podlog import Container, PodLog

START = datetime(2026, 11, 25, 9, tzinfo=UTC)
EAGER = Patience(pause_seconds=0.0, longest_pause_seconds=0.0, attempts=3)


class Node:
    """A container's log file, and a stream of it that ends at any byte, one way or the other."""

    patience = EAGER

    def __init__(self, lines: list[bytes], container: Container, ends: list[tuple[int, bool, int]]) -> None:
        self.lines = lines
        self.container = container
        self.ends = ends
        self.written = 0

    def log(self, pod: str, *, container: str, since: str | None, follow: bool) -> Iterator[bytes]:
        """Each stream sees a bit more than the last one; once the container has ended, all of it."""
        if not self.ends:
            self.container.ended.set()
        more, torn, at = self.ends.pop(0) if self.ends and follow else (len(self.lines), False, -1)
        self.written = min(self.written + more, len(self.lines))
        data = b"".join(
            line + b"\n" for line in self.lines[: self.written] if not since or line[:19] >= since[:19].encode()
        )
        if at < 0 or not torn:
            yield data if at < 0 else data[: at % (len(data) + 1)]
            return
        yield data[: at % (len(data) + 1)]
        raise Unreachable("connection reset")


def stamped(steps: list[tuple[int, str]]) -> list[bytes]:
    """Lines as a runtime writes them: nine digits, neighbours up to a second out of order."""
    lines: list[bytes] = []
    when = START
    for milliseconds, text in steps:
        when = max(START, when + timedelta(milliseconds=milliseconds))
        lines.append(f"{when.strftime('%Y-%m-%dT%H:%M:%S.%f')}789Z {text}".encode())
    return lines


def read(node: Any, container: Container) -> tuple[list[str], list[str]]:
    """The lines and the gaps."""
    lines: list[str] = []
    gaps: list[str] = []
    PodLog(node, container, line=lines.append, gap=gaps.append, stop=threading.Event()).read()
    return lines, gaps


STEPS = st.lists(st.tuples(st.integers(-900, 3000), st.sampled_from(["a", "b", "", "한글", "x" * 50])), max_size=30)
ENDS = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3000)), max_size=12)


@given(steps=STEPS, ends=ENDS)
def test_every_line_once_and_in_order(steps: list[tuple[int, str]], ends: list[tuple[int, bool, int]]) -> None:
    """Torn in the middle of a line, of a character, between lines that are the same to the nanosecond."""
    # Jumps back add up in a drawn list; a runtime's do not: its two streams are apart by less than a second.
    newest, kept = 0, []
    at = 0
    for step, text in steps:
        at = max(at + step, newest - 900, 0)
        kept.append((at - sum(each for each, _ in kept), text))
        newest = max(newest, at)
    lines = stamped(kept)
    container = Container(pod="p", name="nearer")
    got, gaps = read(Node(lines, container, ends), container)
    assert got == [line.partition(b" ")[2].decode() for line in lines]
    assert gaps == []


@given(kept=st.integers(0, 5), text=st.sampled_from(["a", "b"]))
def test_a_rotation_is_told_unless_the_last_line_is_still_there(kept: int, text: str) -> None:
    """Whether what was read last stands in the new file decides."""
    lines = stamped([(1000, f"{text}{number}") for number in range(8)])
    container = Container(pod="p", name="nearer")
    step = count()

    def log(pod: str, *, since: str | None, **_: object) -> Iterator[bytes]:
        if next(step) == 0:
            return iter([b"\n".join(lines[:3]) + b"\n"])
        container.ended.set()
        left = [line for line in lines[kept:] if line[:19] >= str(since)[:19].encode()]
        return iter([b"\n".join(left) + b"\n"])

    got, gaps = read(SimpleNamespace(log=log, patience=EAGER), container)
    expected = lines if kept <= 2 else [*lines[:3], *lines[kept:]]
    assert got == [line.partition(b" ")[2].decode() for line in expected]
    assert len(gaps) == (kept > 2)
    assert all("rotated" in gap for gap in gaps)


def test_a_log_without_its_beginning_is_told() -> None:
    """Who comes late to a long run sees what is left."""
    container = Container(pod="p", name="nearer", started=START - timedelta(hours=2))
    container.ended.set()
    got, gaps = read(Node(stamped([(0, "late")]), container, []), container)
    assert got == ["late"]
    assert "2:00:00 after its start: what was said before is lost" in gaps[0]


def test_a_node_in_another_time_zone() -> None:
    """A runtime may write local time; what is asked for again is asked for in UTC."""
    container = Container(pod="p", name="nearer")
    asked: list[str | None] = []

    def log(pod: str, *, since: str | None, **_: object) -> Iterator[bytes]:
        asked.append(since)
        if len(asked) > 1:
            container.ended.set()
        return iter([b"2026-11-25T18:00:05.5+09:00 one\n"])

    got, gaps = read(SimpleNamespace(log=log, patience=EAGER), container)
    assert got == ["one"]
    assert gaps == []
    assert asked == [None, "2026-11-25T09:00:03Z", "2026-11-25T09:00:03Z"]
