"""`nearer submit`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nearer.cli import options
from nearer.cli.execute import Context
from nearer.cluster.session import Request, Session


class OnInterrupt(StrEnum):
    """What Ctrl-C, or the end of a CI job, does to the run."""

    DETACH = "detach"
    CANCEL = "cancel"


def submit(
    job: Annotated[Path, typer.Argument(help="A job file, as in jobs/. The same file again attaches to its run.")],
    values: options.Values = None,
    assignments: options.SetAny = None,
    name: options.Name = None,
    namespace: options.Namespace = None,
    context: options.KubeContext = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show why it waits and what it says, and end with its exit code.")
    ] = False,
    on_interrupt: Annotated[
        OnInterrupt, typer.Option("--on-interrupt", help="Ctrl-C while following: leave the run alone, or end it.")
    ] = OnInterrupt.DETACH,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the run of this file; it can go on later.")] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Run a job file on Kubernetes: as a Job, in the cluster of the kubeconfig, followed to its end if you like."""
    Context.stage = "submit"
    request = Request(
        job=job,
        values=tuple(values or ()),
        assignments=tuple(assignments or ()),
        name=name,
        namespace=namespace,
        context=context,
    )
    session = Session(request, out=typer.echo, say=lambda text: typer.echo(f"nearer: {text}", err=True))
    if dry_run:
        code = session.dry_run()
    elif cancel:
        code = session.cancel()
    else:
        code = session.submit(follow=follow, on_interrupt=on_interrupt.value)
    raise typer.Exit(code)
