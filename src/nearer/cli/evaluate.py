"""`nearer eval`."""

from nearer.cli import options
from nearer.cli.execute import execute
from nearer.cli.show import show


def evaluate(
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Compare the models before and after on held-out queries over the whole corpus."""
    execute(
        "eval",
        config=config,
        assignments=assignments,
        dry_run=dry_run,
        overwrite=overwrite,
        steps=lambda _: [("evaluate", {})],
        show=show,
    )
