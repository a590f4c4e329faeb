"""A job file with what is laid over it: the values of the chart, and the settings within them, checked."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearer.cluster.chart import chart_directory
from nearer.errors import InputError
from nearer.settings import Loaded, load
from nearer.settings.document import read_assignments

_SETTINGS = "settings"


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """What describes one run.

    Args:
        path: the job file.
        values: values files that lie over it, the last one on top.
        over: what was assigned one by one, on top of all, as values.
        command: the nearer command that the pod runs.
        loaded: the checked settings.
    """

    path: Path
    values: tuple[Path, ...]
    over: dict[str, Any]
    command: str
    loaded: Loaded

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        """All of it as values files, in the order that Helm lays them."""
        with tempfile.NamedTemporaryFile("w", prefix="nearer-set-", suffix=".yaml", encoding="utf-8") as last:
            json.dump(self.over, last, default=str)  # JSON is YAML, and leaves no doubt what is a word
            last.flush()
            yield [self.path, *self.values, *([Path(last.name)] if self.over else [])]


def read_job(path: Path, *, values: Sequence[Path] = (), assignments: Sequence[str] = ()) -> JobFile:
    """Read a job file and check its settings as the pod will.

    Args:
        path: a file as in jobs/.
        values: more values files, e.g. what one cluster needs.
        assignments: `train.reranker.epochs=5` sets a field of the settings, `pod.gpus=2` a value of the chart.

    Raises:
        InputError: not a job file; several problems of its settings at once.
    """
    chart_names = _chart_names()
    over: dict[str, Any] = {}
    in_settings: list[str] = []
    for assignment in assignments:
        inner = assignment.removeprefix(f"{_SETTINGS}.")
        first = assignment.partition("=")[0].partition(".")[0]
        target = over
        if inner != assignment or first not in chart_names:
            in_settings.append(inner)
            target = over.setdefault(_SETTINGS, {})
        _lay(target, read_assignments([inner]).values)
    # The pod does not see this machine's environment, so neither does the check.
    loaded = load(path, overlays=values, assignments=in_settings, environment={})
    command = over.get("command", loaded.command)
    if not isinstance(command, str) or not command:
        raise InputError(
            f"{path} says no command",
            where=str(path),
            rule="a job file: `command: train reranker`, and the settings under `settings:`",
            way_out="start from one of the files in jobs/",
        )
    return JobFile(path=path, values=tuple(values), over=over, command=command, loaded=loaded)


def ignored_environment() -> list[str]:
    """Settings in this machine's environment, which are no part of a run elsewhere."""
    return sorted(name for name in os.environ if name.startswith("NEARER_") and "__" in name)


def _chart_names() -> set[str]:
    schema = json.loads((chart_directory() / "values.schema.json").read_text(encoding="utf-8"))
    return set(schema["properties"]) - {_SETTINGS}


def _lay(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    for name, value in upper.items():
        if isinstance(value, dict) and isinstance(lower.get(name), dict):
            _lay(lower[name], value)
        else:
            lower[name] = value
