"""`nearer generate`."""

from nearer.cli import options
from nearer.cli.execute import execute


def generate(
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Make a dataset from documents: queries, ideal contexts, hard negatives; train and test apart."""
    execute(
        "generate",
        config=config,
        assignments=assignments,
        dry_run=dry_run,
        overwrite=overwrite,
        steps=lambda _: [("generate", {})],
    )
