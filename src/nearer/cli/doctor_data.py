"""`nearer doctor data`."""

from pathlib import Path
from typing import Annotated

import typer

from nearer.cli import options
from nearer.cli.stores import store_of
from nearer.progress import choose
from nearer.settings import load


def data(
    config: options.Config = None,
    assignments: options.Set = None,
    page: Annotated[Path, typer.Option("--page", help="Where the HTML page is written.")] = Path("doctor-data.html"),
) -> None:
    """Look at the dataset: leaks, false negatives, cut texts, lengths, labels, languages. Exit code 3 when it leaks."""
    loaded = load(config, assignments=assignments or ())
    progress = choose()
    for warning in loaded.warnings:
        progress.warn(warning)
    from nearer.doctor.run import examine, require_no_leaks

    store = store_of(loaded.settings, progress=progress)
    found = examine(loaded.settings, store, progress, target=page)
    width = max(len(finding.name) for finding in found.findings)
    typer.echo(found.dataset)
    for finding in found.findings:
        mark = {"good": " ", "look": "?", "bad": "!"}[finding.state]
        typer.echo(f"{mark} {finding.name.ljust(width)}  {finding.count:>7,} of {finding.of:,}  {finding.meaning}")
    typer.echo(f"page: {page}")
    require_no_leaks(found)
