"""What long work says while it runs: a bar on a terminal, one JSON line per interval elsewhere. All on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Where a job says what it does."""

    def say(self, message: str, **facts: object) -> None:
        """Say one thing once."""

    def warn(self, message: str, **facts: object) -> None:
        """Say one thing that the user should look at."""

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterable[T]:
        """Pass the items through, showing count, rate and time left."""


class Silent:
    """Says nothing; for tests and library use."""

    def say(self, message: str, **facts: object) -> None:
        """Say nothing."""

    def warn(self, message: str, **facts: object) -> None:
        """Say nothing."""

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterable[T]:  # noqa: ARG002
        """Pass the items through."""
        return items


class Lines:
    """One JSON object a line, at most one per interval and task: what a container's log wants."""

    def __init__(self, *, interval_seconds: float = 10.0) -> None:
        self.interval_seconds = interval_seconds

    def _write(self, **fields: object) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        sys.stderr.write(json.dumps({"time": stamp, **fields}, ensure_ascii=False, default=str) + "\n")
        sys.stderr.flush()

    def say(self, message: str, **facts: object) -> None:
        """Write one line."""
        self._write(level="info", message=message, **facts)

    def warn(self, message: str, **facts: object) -> None:
        """Write one line of level `warning`."""
        self._write(level="warning", message=message, **facts)

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        """Write a line per interval with the count, the rate and the seconds left."""
        total = total if total is not None else _length(items)
        start = last = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - last >= self.interval_seconds:
                last = now
                rate = done / (now - start)
                left = {"seconds_left": round((total - done) / rate)} if total else {}
                self._write(level="info", message=what, done=done, total=total, per_second=round(rate, 2), **left)


class Terminal:
    """A bar with rate and time left, for people."""

    def say(self, message: str, **facts: object) -> None:
        """Print one line."""
        tail = "  ".join(f"{key}={value}" for key, value in facts.items())
        sys.stderr.write(message + (f"  ({tail})" if tail else "") + "\n")

    def warn(self, message: str, **facts: object) -> None:
        """Print one line, marked as a warning."""
        self.say(f"warning: {message}", **facts)

    def track(self, items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
        """Show a bar while the items pass."""
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total if total is not None else _length(items), rate="")
            for item in items:
                yield item
                bar.advance(task)
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:.1f}/s" if speed else "")


def choose() -> Progress:
    """A bar when stderr is a terminal, JSON lines otherwise."""
    return Terminal() if sys.stderr.isatty() else Lines()


@contextmanager
def timed(progress: Progress, what: str) -> Iterator[None]:
    """Say how long a step took."""
    start = time.monotonic()
    yield
    progress.say(what, seconds=round(time.monotonic() - start, 1))


def _length(items: Iterable[object]) -> int | None:
    return len(items) if isinstance(items, Sized) else None
