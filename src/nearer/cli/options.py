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
