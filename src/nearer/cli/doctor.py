"""`nearer doctor`."""

import typer

from nearer.cli.doctor_data import data

doctor = typer.Typer(
    name="doctor", no_args_is_help=True, help="Say what is wrong with the data or the cluster, before a run does."
)
doctor.command("data")(data)


@doctor.callback()
def root() -> None:
    """Say what is wrong with the data or the cluster, before a run does."""
