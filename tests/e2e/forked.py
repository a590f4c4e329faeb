"""Command lines in processes of their own, forked from one that has imported everything already."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["nearer.cli.app", "torch", "sentence_transformers", "datasets", "bm25s", "kiwipiepy", "faiss", "ir_measures"]
)


@dataclass(frozen=True)
class Ended:
    """The exit code (negative: the signal) and all that was said."""

    code: int
    said: str


def _child(directory: str, arguments: list[str], prepare: Callable[[], None] | None, words: Any) -> None:
    os.chdir(directory)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.dup2(words.fileno(), 1)
    os.dup2(words.fileno(), 2)
    words.close()
    if prepare:
        prepare()
    from nearer import process
    from nearer.cli.app import run

    process.install_signal_handlers()
    code = run(arguments)
    if code:
        raise SystemExit(code)


def start(directory: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> tuple[Any, Any]:
    """A process that runs `nearer` with these arguments, after `prepare` (which must be picklable); where it speaks."""
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_child, args=(str(directory), list(arguments), prepare, theirs))
    process.start()
    theirs.close()
    return process, ours


def end(process: Any, ours: Any) -> Ended:
    """Wait for it."""
    parts = []
    while part := os.read(ours.fileno(), 1 << 16):
        parts.append(part)
    ours.close()
    process.join()
    return Ended(code=process.exitcode, said=b"".join(parts).decode(errors="replace"))


def run(directory: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> Ended:
    """From start to end."""
    return end(*start(directory, *arguments, prepare=prepare))
