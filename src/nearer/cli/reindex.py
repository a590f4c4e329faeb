"""`nearer reindex`."""

from typing import Annotated

import typer

from nearer.cli import options
from nearer.cli.execute import execute
from nearer.cli.stores import store_of
from nearer.errors import InputError
from nearer.progress import choose
from nearer.settings import load


def reindex(
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Move the alias back to the generation before.")] = False,
) -> None:
    """Encode the corpus with the new embedder, check the generation, then switch the alias to it."""
    if rollback:
        if dry_run or overwrite:
            raise InputError("--rollback moves an alias and nothing else", rule="no --dry-run or --overwrite beside it")
        from nearer.reindex.run import rollback as roll_back

        settings = load(config, assignments=assignments or ()).settings
        progress = choose()
        roll_back(settings, store_of(settings, progress=progress), progress)
        return
    execute(
        "reindex",
        config=config,
        assignments=assignments,
        dry_run=dry_run,
        overwrite=overwrite,
        steps=lambda _: [("reindex", {})],
    )
