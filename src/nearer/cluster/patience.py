"""How long nearer waits for a cluster, in seconds, and how often it asks again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The defaults suit a real cluster; the tests' own are milliseconds.

    Args:
        connect_seconds: until a connection stands.
        answer_seconds: without a byte of an answer that is no stream.
        attempts: of a call that changes something or asks for one thing, before exit 69.
        pause_seconds: before the second attempt; doubled each time.
        longest_pause_seconds: where the doubling ends.
        watch_seconds: the length of a watch that was asked for; the server ends it and it is begun anew. Shorter than
            the idle limits of common load balancers (four to six minutes).
        silence_seconds: a log stream without a byte for so long is opened anew, since a connection that died silently
            looks the same as a training that has nothing to say.
        explain_seconds: between two questions why nothing runs yet.
        lost_seconds: without any answer while following, before exit 69.
        drain_seconds: for the rest of the logs once the run is over.
    """

    connect_seconds: float = 10.0
    answer_seconds: float = 30.0
    attempts: int = 5
    pause_seconds: float = 0.5
    longest_pause_seconds: float = 15.0
    watch_seconds: int = 180
    silence_seconds: float = 60.0
    explain_seconds: float = 5.0
    lost_seconds: float = 900.0
    drain_seconds: float = 60.0

    def pauses(self) -> Iterator[float]:
        """The pauses between attempts, without end."""
        pause = self.pause_seconds
        while True:
            yield pause
            pause = min(pause * 2, self.longest_pause_seconds)
