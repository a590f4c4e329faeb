"""`nearer doctor`."""

import typer

from nearer.cli.doctor_cluster import cluster
from nearer.cli.doctor_data import data

doctor = typer.Typer(
    name="doctor", no_args_is_help=True, help="Say what is wrong with the data or the cluster, before a run does."
)
doctor.command("data")(data)
doctor.command("cluster")(cluster)
