"""`nearer artifacts`."""

from pathlib import Path
from typing import Annotated

import typer

from nearer.cli import options
from nearer.cli.stores import store_of
from nearer.errors import ArtifactCorrupt
from nearer.progress import choose
from nearer.settings import load
from nearer.store import Store, fetch, show

artifacts = typer.Typer(
    name="artifacts", no_args_is_help=True, help="Look at artifacts, copy, check and tidy them, wherever they are."
)
Address = Annotated[str, typer.Argument(help="A name under `artifacts`, a path, or s3://bucket/prefix.")]


@artifacts.command("show")
def show_one(address: Address, config: options.Config = None, assignments: options.Set = None) -> None:
    """Print an artifact's manifest, and what it was made from, up to the documents."""
    typer.echo(show(_store(config, assignments), address))


@artifacts.command("fetch")
def fetch_one(
    address: Address,
    directory: Annotated[Path, typer.Argument(help="Where to put it; must not be there yet.")],
    config: options.Config = None,
    assignments: options.Set = None,
) -> None:
    """Copy an artifact into a directory, every file verified."""
    manifest = fetch(_store(config, assignments), address, directory)
    choose().say(f"{manifest.kind} fetched", files=len(manifest.files), directory=str(directory))


@artifacts.command("verify")
def verify_one(address: Address, config: options.Config = None, assignments: options.Set = None) -> None:
    """Read every file of an artifact again and compare its sha256 with the manifest."""
    problems = _store(config, assignments).verify(address)
    if problems:
        raise ArtifactCorrupt(
            f"{address} is not whole: " + "".join(f"\n    {problem}" for problem in problems),
            rule="size and sha256 as in manifest.json, and no other file",
            way_out="run the command that makes it with --overwrite, or restore the files",
        )
    typer.echo(f"{address}: whole")


@artifacts.command("gc")
def collect(
    config: options.Config = None,
    assignments: options.Set = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove it; without this it is only listed.")] = False,
) -> None:
    """List what no artifact needs any more: old staging, uploads that never ended, finished work, old caches."""
    found = _store(config, assignments).gc(remove=remove)
    for leftover in found:
        typer.echo(f"{leftover.size:>14,}  {leftover.reason}  {leftover.key}")
    total = sum(leftover.size for leftover in found)
    what = "removed" if remove else "can go (--remove)"
    typer.echo(f"{total:>14,}  bytes in {len(found)} place{'s' * (len(found) != 1)} {what}")


def _store(config: Path | None, assignments: list[str] | None) -> Store:
    settings = load(config, assignments=assignments or (), required=False).settings
    return store_of(settings, progress=choose())
