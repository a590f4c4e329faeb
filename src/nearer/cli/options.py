"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="Settings or job file. Default: conf/settings.yaml, then nearer.yaml."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Set one field, e.g. --set train.embedding.epochs=5. May be repeated.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print what would be done, touch nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another artifact that stands at the output.")]

Values = Annotated[
    list[Path] | None, typer.Option("-f", "--values", help="A values file over the job file. May be repeated.")
]
SetAny = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A field of the settings (train.reranker.epochs=5) or a value of the chart (pod.gpus=2). May be repeated.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the run. Default: the job file's.")]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Default: that of the context.")]
KubeContext = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig. Default: its current one.")]
