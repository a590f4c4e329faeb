"""`nearer pipeline`."""

from nearer import pipeline as stages
from nearer.cli import options
from nearer.cli.execute import execute
from nearer.cli.show import show


def pipeline(
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Run the jobs in order: generate, train, eval, export-onnx, reindex. What is done already is skipped."""
    execute(
        "pipeline",
        config=config,
        assignments=assignments,
        dry_run=dry_run,
        overwrite=overwrite,
        steps=stages.steps,
        show=show,
    )
