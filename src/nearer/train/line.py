"""What a launcher and the workers that it started tell each other, over a socket that only this user can open.

A worker asks and the launcher answers. The store is the launcher's: it holds the lock or lease of the work area, and
sends what a worker has finished. A line that breaks before the worker has reported means that the worker is dead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from nearer.errors import NearerError
from nearer.store import WorkArea


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a worker ended.

    Args:
        error: in words, when it failed; its code is the worker's exit code.
        fault: a traceback, when it failed in a way that has no words.
        memory: whether it was out of memory.
    """

    error: NearerError | None = None
    fault: str = ""
    memory: bool = False


@dataclass(kw_only=True)
class Exchange:
    """The launcher's end.

    Args:
        path: of the socket, in a directory of the user's own.
        orders: given to each worker.
        work: the area; None on a machine that does not keep it.
    """

    path: Path
    orders: Any
    work: WorkArea | None
    on_loss: Callable[[], None]
    pids: dict[int, int] = field(default_factory=dict)
    """rank → process id, of workers that have not reported yet."""
    reports: dict[int, Report] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._listener = Listener(str(self.path), family="AF_UNIX", backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No worker can call any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        rank = -1
        try:
            while True:
                what, *arguments = connection.recv()
                if what == "hello":
                    rank, self.pids[arguments[0]] = arguments[0], arguments[1]
                    answer: Any = self.orders
                elif what == "report":
                    self.reports[rank] = arguments[0]
                    answer = None
                else:
                    answer = self._store(what, arguments)
                connection.send(answer)
        except (EOFError, OSError):
            self.pids.pop(rank, None)
            if rank >= 0 and rank not in self.reports:
                self.on_loss()

    def _store(self, what: str, arguments: list[Any]) -> Any:
        if self.work is None:
            return RuntimeError("this machine has no work area")
        try:
            if what == "names":
                return self.work.shared()
            if what == "fetch":
                return self.work.bring(arguments[0])
            return self.work.share(arguments[0], instead_of=arguments[1])
        except Exception as error:  # noqa: BLE001 - it is raised where the worker asked
            return error


class Line:
    """A worker's end.

    Args:
        path: of the launcher's socket.
    """

    def __init__(self, path: str) -> None:
        self._connection = Client(path, family="AF_UNIX")

    def ask(self, *message: Any) -> Any:
        """The launcher's answer; its errors are raised here."""
        self._connection.send(message)
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class FarSegments:
    """A worker's view of the store: what the launcher can reach."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def names(self) -> frozenset[str]:
        """The pieces that are complete in the store."""
        found: frozenset[str] = self._line.ask("names")
        return found

    def fetch(self, name: str, target: Path) -> None:  # noqa: ARG002 - both ends mean the same directory
        """Bring a piece."""
        self._line.ask("fetch", name)

    def share(self, name: str, path: Path, *, instead_of: Iterable[str]) -> None:  # noqa: ARG002 - likewise
        """Send a piece in the background."""
        self._line.ask("share", name, list(instead_of))

    def flush(self) -> tuple[str, ...]:
        """The launcher waits for what is on its way."""
        return ()

    def remove(self) -> None:
        """The launcher removes the area."""
