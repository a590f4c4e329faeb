"""The result where GitHub Actions shows it: annotations, the step's summary, the step's outputs."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

from nearer.cluster.ending import Ending

_LEVELS = {"error", "warning", "notice"}


def is_here() -> bool:
    """Whether this process runs in a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(level: str, text: str, *, title: str = "nearer") -> None:
    """A workflow command, which GitHub shows beside the run.

    Args:
        level: error, warning or notice.
        text: any; line ends are kept.
        title: what stands above it.
    """
    assert level in _LEVELS  # noqa: S101 - our own callers
    sys.stdout.write(f"::{level} title={_property(title)}::{_data(text)}\n")
    sys.stdout.flush()


def publish(ending: Ending, *, namespace: str, command: str) -> None:
    """Annotation, summary and outputs of an ended run, each where GitHub named a file for it.

    Outputs: `job`, `namespace`, `exit_code`, `reason`, `artifact`, `metrics` (JSON).
    """
    if ending.code:
        text = "\n".join(part for part in (ending.reason, ending.why, ending.advice) if part)
        annotate("error", text, title=f"{ending.run}: exit {ending.code}, {ending.meaning}")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _append(Path(summary), _summary(ending, namespace=namespace, command=command))
    if output := os.environ.get("GITHUB_OUTPUT"):
        values = {
            "job": ending.run,
            "namespace": namespace,
            "exit_code": str(ending.code),
            "reason": ending.reason,
            "artifact": ending.artifact,
            "metrics": json.dumps(ending.metrics, ensure_ascii=False),
        }
        _append(Path(output), "".join(_output(name, value) for name, value in values.items()))


def _summary(ending: Ending, *, namespace: str, command: str) -> str:
    rows = {
        "Job": f"`{namespace}/{ending.run}`",
        "Exit code": f"{ending.code}: {ending.meaning}",
        "Reason": ending.reason,
        "Platform": ending.why,
        "Way out": ending.advice,
        "Artifact": f"`{ending.artifact}`" if ending.artifact else "",
    }
    lines = [f"### nearer {command}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in rows.items() if text]
    if ending.metrics:
        lines += ["", "| metric | value |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(str(value))} |" for name, value in ending.metrics.items()]
    if ending.tail:
        fence = "`" * 5
        lines += ["", "Its last words:", "", fence, ending.tail.replace(fence, "'''''"), fence]
    return "\n".join(lines) + "\n\n"


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def _output(name: str, value: str) -> str:
    """In the form that takes several lines; the delimiter is random, so that no value can end it."""
    delimiter = f"nearer_{secrets.token_hex(12)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
