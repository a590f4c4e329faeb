"""`nearer schema`."""

import json

import typer

from nearer.settings import Settings


def schema() -> None:
    """Print the JSON Schema of the settings document, for editors and charts."""
    typer.echo(json.dumps(Settings.model_json_schema(), ensure_ascii=False, indent=2))
