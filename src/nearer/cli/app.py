"""The command line: five jobs and what stands beside them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import nearer
from nearer import process
from nearer.cli.artifacts import artifacts
from nearer.cli.doctor import doctor
from nearer.cli.evaluate import evaluate
from nearer.cli.execute import guarded
from nearer.cli.export_onnx import export_onnx
from nearer.cli.generate import generate
from nearer.cli.pipeline import pipeline
from nearer.cli.reindex import reindex
from nearer.cli.schema import schema
from nearer.cli.train import train

app = typer.Typer(
    name="nearer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("generate")(generate)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("export-onnx")(export_onnx)
app.command("reindex")(reindex)
app.command("pipeline")(pipeline)
app.add_typer(doctor)
app.add_typer(artifacts)
app.command("schema")(schema)


_USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]
"""Of the click that typer carries inside, which exports only subclasses of it."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nearer {nearer.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Fine-tune the retrieval models of a Korean RAG, prove on held-out data whether they got better, ship them."""


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; arguments default to the process's own."""
    process.share_cores()

    def call() -> int:
        try:
            result = app(arguments, standalone_mode=False)
        except typer.Exit as done:
            return done.exit_code
        except _USAGE_ERROR as error:
            error.show()
            return int(error.exit_code)
        except typer.Abort:
            raise KeyboardInterrupt from None
        return result if isinstance(result, int) else 0

    return guarded(call)


def main() -> None:
    """The `nearer` script."""
    process.install_signal_handlers()
    sys.exit(run())


if __name__ == "__main__":
    main()
