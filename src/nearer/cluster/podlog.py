"""One container's log to its very end: nothing twice, and what is lost is said to be lost.

The server hands out lines by time, rounded down to the second, and a stream may end at any byte. So each line carries
its timestamp; after every end the last seconds are asked for again, and the lines that were had already are counted off
against those that come (a line that was said twice within one nanosecond still counts twice). The log is complete when
a stream that was opened after the container had ended, ends without an error.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event

from nearer.cluster.answers import Refusal, Unreachable
from nearer.cluster.api import Cluster

_OVERLAP = timedelta(seconds=2)
"""How far back is asked for: the runtime stamps stdout and stderr apart, so neighbours may be out of order."""

_LATE = timedelta(minutes=5)
"""A log that begins so long after its container probably has no beginning any more. A guess: nearer says something
every ten seconds once it works."""


@dataclass(kw_only=True)
class Container:
    """What is known about a container while its log is read; set by whoever watches its pod."""

    pod: str
    name: str
    started: datetime | None = None
    ended: Event = field(default_factory=Event)
    gone: Event = field(default_factory=Event)


class PodLog:
    """Reads one log.

    Args:
        cluster: where.
        container: whose.
        line: told each line, without timestamp.
        gap: told what cannot be had, and why.
        stop: once set, nobody listens any more.
    """

    def __init__(
        self,
        cluster: Cluster,
        container: Container,
        *,
        line: Callable[[str], None],
        gap: Callable[[str], None],
        stop: Event,
    ) -> None:
        self._cluster = cluster
        self._container = container
        self._line = line
        self._gap = gap
        self._stop = stop
        self._window: deque[tuple[datetime, bytes]] = deque()
        self._newest: datetime | None = None
        self._said: set[str] = set()

    def read(self) -> None:
        """Until the log is complete, cannot be had any more, or nobody listens."""
        pauses = self._cluster.patience.pauses()
        failures = 0
        while not self._stop.is_set():
            final = self._container.ended.is_set()
            before = self._newest
            try:
                self._stream(final=final)
                if final:
                    return
                failures = 0
            except Refusal as refusal:
                if refusal.code in {401, 403}:
                    self._gap(f"its log may not be read (pods/log): {refusal.message}")
                    return
                if refusal.code == 404 or self._container.gone.is_set():
                    self._gap(f"the pod is gone; {self._missing()}")
                    return
                failures = self._failed(failures, refusal.message, final=final)
            except Unreachable as error:
                if self._container.gone.is_set():
                    self._gap(f"the pod is gone; {self._missing()}")
                    return
                failures = self._failed(failures, str(error), final=final)
            if failures > self._cluster.patience.attempts:
                return
            if self._newest != before:
                pauses = self._cluster.patience.pauses()
            # Either the container's end is told in the meantime, or it is time to ask again.
            self._container.ended.wait(next(pauses)) if not final else time.sleep(next(pauses))

    def _failed(self, failures: int, why: str, *, final: bool) -> int:
        """Count attempts once the container has ended; before that, silence and cut streams are nothing special."""
        failures = failures + 1 if final else 0
        if failures > self._cluster.patience.attempts:
            self._gap(f"the rest of its log cannot be read ({why}); {self._missing()}")
        return failures

    def _missing(self) -> str:
        return f"lines after {self._newest.isoformat()} may be lost" if self._newest else "its lines are lost"

    def _stream(self, *, final: bool) -> None:
        replay = Counter(raw for _, raw in self._window)
        known = bool(replay)  # until the first line shows whether the log still has what was read last
        rest = b""
        since = self._since()
        stream = self._cluster.log(self._container.pod, container=self._container.name, since=since, follow=not final)
        for chunk in stream:
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                known = self._take(raw, replay, expected=known)
        if final and rest:
            self._take(rest, replay, expected=known)

    def _take(self, raw: bytes, replay: Counter[bytes], *, expected: bool) -> bool:
        """One line; whether a line that was read before must still come."""
        if replay[raw]:
            replay[raw] -= 1
            return False
        stamp, _, text = raw.partition(b" ")
        when = _time(stamp)
        if when is None:
            self._note(raw)
            return expected
        if expected and self._newest:
            self._gap(
                f"its log was rotated: lines between {self._newest.isoformat()} and {when.isoformat()} may be lost"
            )
        started = self._container.started
        if self._newest is None and started and when - started > _LATE:
            self._gap(
                f"its log begins at {when.isoformat()}, {when - started} after its start: what was said before is lost"
            )
        self._remember(when, raw)
        self._line(text.decode("utf-8", errors="replace"))
        return False

    def _note(self, raw: bytes) -> None:
        """What comes without a timestamp is no line of the log, but the node's words about it."""
        text = raw.decode("utf-8", errors="replace").strip()
        if text and text not in self._said:
            self._said.add(text)
            self._gap(f"the node says about its log: {text}")

    def _remember(self, when: datetime, raw: bytes) -> None:
        self._newest = max(when, self._newest) if self._newest else when
        self._window.append((when, raw))
        oldest = self._oldest()
        while self._window and self._window[0][0] < oldest:
            self._window.popleft()

    def _oldest(self) -> datetime:
        newest = self._newest or datetime.now(UTC)
        return (newest - _OVERLAP).replace(microsecond=0)

    def _since(self) -> str | None:
        if self._newest is None:
            return None
        oldest = self._oldest()
        # What came out of order may be newer than its neighbours in front: only what will be sent again is counted off.
        self._window = deque(each for each in self._window if each[0] >= oldest)
        return oldest.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(stamp: bytes) -> datetime | None:
    """RFC 3339 with up to nine digits; a node may write its own time zone."""
    try:
        when = datetime.fromisoformat(stamp.decode("ascii"))
    except ValueError:
        return None
    return when if when.tzinfo else None
