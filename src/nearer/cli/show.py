"""Results as a person reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from nearer.settings import Settings
from nearer.store import Manifest, Plan, Store


def show(manifest: Manifest, store: Store, settings: Settings) -> None:
    """Print the table of a report; other artifacts have said what they are while they were made."""
    if manifest.kind != "report":
        return
    from nearer.evaluate.report import table

    artifact = store.open(settings.eval.output_dir, kind="report")
    report = json.loads((artifact.path / "report.json").read_text(encoding="utf-8"))
    typer.echo(table(report))
    typer.echo(f"report: {manifest.address}/report.html")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        text = (artifact.path / "summary.md").read_text(encoding="utf-8")
        with Path(summary).open("a", encoding="utf-8") as stream:  # of the job: other steps write to it as well
            stream.write(text + "\n")


def plan_text(plan: Plan) -> str:
    """A plan as it is printed by `--dry-run`."""
    width = max((len(item.name) for item in plan.inputs), default=0)
    lines = [plan.job]
    lines += [f"  {item.name.ljust(width)}  {item.address}: {item.state}" for item in plan.inputs]
    lines += [f"  -> {plan.output}: {plan.state}"]
    lines += [f"  note: {note}" for note in plan.notes]
    return "\n".join(lines)
