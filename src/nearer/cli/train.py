"""`nearer train`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from nearer.cli import options
from nearer.cli.execute import execute
from nearer.errors import InputError
from nearer.settings import Settings


class Model(StrEnum):
    """What can be trained."""

    EMBEDDING = "embedding"
    RERANKER = "reranker"


def train(
    model: Annotated[Model | None, typer.Argument(help="Default: each that has a section under `train`.")] = None,
    config: options.Config = None,
    assignments: options.Set = None,
    dry_run: options.DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Train the embedding model by contrastive learning, the reranker as a binary classifier."""

    def steps(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
        chosen = [model.value] if model else [name.value for name in Model if getattr(settings.train, name) is not None]
        if not chosen:
            raise InputError(
                "nothing says what to train",
                rule="`train.embedding` or `train.reranker` in the settings, or an argument",
                way_out="nearer train embedding -c …",
            )
        return [("train", {"model": name}) for name in chosen]

    command = f"train {model.value}" if model else "train"
    execute(command, config=config, assignments=assignments, dry_run=dry_run, overwrite=overwrite, steps=steps)
