"""What a follower sees: log lines on stdout, nearer's own words on stderr, and on a terminal a bar per pod."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

Annotate = Callable[[str, str], None]


class Display(Protocol):
    """Where a follower says what it sees."""

    def line(self, pod: str, text: str) -> None:
        """One line of a pod's log."""

    def say(self, text: str) -> None:
        """Something about the run."""

    def warn(self, text: str) -> None:
        """Something that the user should look at, a gap in a log above all."""

    def over(self, pod: str) -> None:
        """A pod has said all it will say."""

    def close(self) -> None:
        """Take down what moves."""


class Plain:
    """Lines for a file or a CI log: a pod's own, unchanged, behind its name.

    Args:
        annotate: told warnings as well, where a CI shows them apart.
    """

    def __init__(self, *, annotate: Annotate | None = None) -> None:
        self._annotate = annotate

    def line(self, pod: str, text: str) -> None:
        """Write it behind the pod's name."""
        _write(pod, text)

    def say(self, text: str) -> None:
        """Write it, marked as nearer's own."""
        sys.stderr.write(f"nearer: {text}\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Write it, marked as a warning."""
        self.say(f"warning: {text}")
        if self._annotate:
            self._annotate("warning", text)

    def over(self, pod: str) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing moves."""


class Terminal:
    """For people: messages as sentences, progress as bars that stay at the bottom."""

    def __init__(self) -> None:
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TextColumn("{task.fields[left]}"),
        )
        console = Console(stderr=True, soft_wrap=True)
        self._bars = bars.Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def line(self, pod: str, text: str) -> None:
        """Move the pod's bar if the line is progress; print it otherwise."""
        found = _message(text)
        if found is None:
            _write(pod, text)
        elif isinstance(found.get("done"), int):
            self._move(pod, found)
        else:
            known = {"time", "level", "message"}
            facts = "  ".join(f"{name}={value}" for name, value in found.items() if name not in known)
            mark = "warning: " if found.get("level") == "warning" else ""
            _write(pod, f"{mark}{found['message']}" + (f"  ({facts})" if facts else ""))

    def say(self, text: str) -> None:
        """Print it above the bars."""
        self._bars.console.print(f"nearer: {text}", markup=False, highlight=False)

    def warn(self, text: str) -> None:
        """Print it above the bars, marked."""
        self.say(f"warning: {text}")

    def over(self, pod: str) -> None:
        """Take its bar away."""
        if pod in self._tasks:
            self._bars.remove_task(self._tasks.pop(pod))

    def close(self) -> None:
        """Take the bars away."""
        self._bars.stop()

    def _move(self, pod: str, found: dict[str, Any]) -> None:
        left = found.get("seconds_left")
        rate = found.get("per_second")
        fields: dict[str, Any] = {
            "rate": f"{rate}/s" if rate is not None else "",
            "left": f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}" if isinstance(left, int) else "",
        }
        description = f"{pod} {found['message']}"
        if pod not in self._tasks:
            self._tasks[pod] = self._bars.add_task(description, total=found.get("total"), **fields)
        self._bars.update(
            self._tasks[pod], description=description, completed=found["done"], total=found.get("total"), **fields
        )


def choose(*, annotate: Annotate | None = None) -> Display:
    """Bars when stderr is a terminal, plain lines otherwise."""
    return Terminal() if sys.stderr.isatty() and annotate is None else Plain(annotate=annotate)


def _write(pod: str, text: str) -> None:
    """A log line on stdout.

    A carriage return (of a progress bar) begins a new line: behind a prefix nothing in a log can be taken for a command
    to the CI that reads it.
    """
    for part in text.split("\r"):
        if part or "\r" not in text:
            sys.stdout.write(f"[{pod}] {part}\n")
    sys.stdout.flush()


def _message(text: str) -> dict[str, Any] | None:
    """A line of nearer's own JSON."""
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("message"), str) else None
