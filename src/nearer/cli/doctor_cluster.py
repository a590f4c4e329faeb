"""`nearer doctor cluster`."""

from pathlib import Path
from typing import Annotated

import typer

from nearer.cli import options
from nearer.cli.stores import store_of

_SIGNS = {"ok": "ok   ", "wrong": "WRONG", "unknown": "?    "}


def cluster(
    job: Annotated[Path | None, typer.Argument(help="A job file: could this run start here?")] = None,
    values: options.Values = None,
    assignments: options.SetAny = None,
    name: options.Name = None,
    namespace: options.Namespace = None,
    context: options.KubeContext = None,
) -> None:
    """Look whether runs can start: rights, queue, nodes with such GPUs, claims, the store. Nothing is touched."""
    from nearer.address import is_s3
    from nearer.cluster.api import Cluster
    from nearer.cluster.connect import connect
    from nearer.cluster.jobfile import read_job
    from nearer.cluster.render import release_name
    from nearer.doctor.cluster import examine

    described = read_job(job, values=values or (), assignments=assignments or ()) if job else None
    store = None
    if described and is_s3(described.loaded.settings.artifacts):
        settings = described.loaded.settings

        def store() -> object:
            return store_of(settings).read_text("nearer-doctor-was-here")  # nobody ever writes it: a plain read

    findings = examine(
        Cluster(lambda: connect(context=context, namespace=namespace)),
        job=described,
        release=release_name(job.stem, name) if job else "doctor",
        store=store,
    )
    wrong = 0
    for finding in findings:
        typer.echo(f"{_SIGNS[finding.state]} {finding.about:<8} {finding.text}")
        wrong += finding.state == "wrong"
    if wrong:
        raise typer.Exit(2)
