"""`nearer export-onnx`."""

from nearer.cli import options
from nearer.cli.execute import execute


def export_onnx(
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Export the reranker to ONNX, fp32 and int8, each proven against PyTorch."""
    execute(
        "export-onnx",
        config=config,
        assignments=assignments,
        dry_run=dry_run,
        overwrite=overwrite,
        steps=lambda _: [("export", {})],
    )
