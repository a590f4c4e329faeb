"""Some calls at once: each recorded before the next starts, the ones that fail for good tried once more at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

from nearer.errors import NearerError, OutOfReach
from nearer.llm.pace import Pace
from nearer.llm.request import Reply, Request

_TICK_SECONDS: Final = 0.5
_MANY: Final = 3  # calls in a row that nothing answers: with fewer at once, the endpoint is gone all the same


class UnansweredError(Exception):
    """One call failed as often as it may."""


class StoppedError(Exception):
    """No further attempt is wanted."""


class Pool:
    """One set of requests on its way.

    Args:
        requests: to be answered.
        call: makes one call, in a thread; raises `UnansweredError`, `StoppedError`, or a `NearerError` that ends all.
        concurrent: calls at once.
        pace: stopped when no call is wanted any more.
        out_of_reach: from the last problem to the error that says so.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        call: Callable[[Request], Reply],
        concurrent: int,
        pace: Pace,
        out_of_reach: Callable[[str], OutOfReach],
    ) -> None:
        self._requests = requests
        self._call = call
        self._concurrent = concurrent
        self._pace = pace
        self._out_of_reach = out_of_reach
        self._waiting = deque(range(len(requests)))
        self._running: dict[Future[Reply], int] = {}
        self._late: list[tuple[int, str]] = []
        self._answered = 0
        self._silent = 0
        self._second = False
        self._fatal: NearerError | None = None

    def run(self, go_on: Callable[[], bool]) -> Iterator[tuple[int, Reply]]:
        """See `Backend.answer`."""
        self._pace.resume()
        with ThreadPoolExecutor(self._concurrent, thread_name_prefix="nearer-llm") as executor:
            try:
                yield from self._answers(executor, go_on)
            finally:
                self._pace.stop()
        if self._fatal is not None:
            raise self._fatal
        for place, problem in self._late if self._second else ():
            yield place, Reply(text="", problem=f"unanswered: {problem}")

    def _answers(self, executor: ThreadPoolExecutor, go_on: Callable[[], bool]) -> Iterator[tuple[int, Reply]]:
        while self._left():
            if not self._goes_on(go_on):
                self._pace.stop()
                if not self._running:
                    return
            while self._goes_on(go_on) and self._waiting and len(self._running) < self._concurrent:
                self._start(executor)
            done, _ = wait(self._running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                place = self._running.pop(future)
                if (reply := self._settle(future, place)) is not None:
                    yield place, reply
                    if self._waiting and self._goes_on(go_on):  # what was yielded is written down by now
                        self._start(executor)

    def _left(self) -> bool:
        """Whether there is anything to wait for; what was set aside comes back once, when all else is done."""
        if not self._waiting and not self._running and self._late and not self._second and self._fatal is None:
            if not self._answered:
                self._fatal = self._out_of_reach(self._late[-1][1])
                return False
            self._second = True
            self._waiting = deque(place for place, _ in self._late)
            self._late = []
        return bool(self._waiting or self._running)

    def _goes_on(self, go_on: Callable[[], bool]) -> bool:
        return self._fatal is None and go_on()

    def _start(self, executor: ThreadPoolExecutor) -> None:
        place = self._waiting.popleft()
        self._running[executor.submit(self._call, self._requests[place])] = place

    def _settle(self, future: Future[Reply], place: int) -> Reply | None:
        try:
            reply = future.result()
        except UnansweredError as error:
            self._late.append((place, str(error)))
            self._silent += 1
            if self._silent >= max(_MANY, self._concurrent) and not self._second:
                self._fatal = self._fatal or self._out_of_reach(str(error))
            return None
        except StoppedError:
            return None
        except NearerError as error:
            self._fatal = self._fatal or error
            return None
        self._answered += 1
        self._silent = 0
        return reply
