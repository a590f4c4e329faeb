"""Work in processes of its own, each forked from one that has imported everything already."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What accelerate imports where it is installed, and which looks for a GPU.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        *("nearer.cli.app", "nearer.train.embedding", "nearer.train.reranker", "torch", "sentence_transformers"),
        *("transformers.models.bert.modeling_bert", "deepspeed", "datasets", "bm25s", "kiwipiepy"),
        *("faiss", "ir_measures", "pytrec_eval"),
    ]
)


@dataclass(frozen=True)
class Ended:
    """The exit code (negative: the signal) and all that was said."""

    code: int
    said: str


def _child(directory: str, work: Callable[..., int | None], arguments: tuple[Any, ...], words: Any) -> None:
    os.chdir(directory)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.dup2(words.fileno(), 1)
    os.dup2(words.fileno(), 2)
    words.close()
    try:
        code = work(*arguments) or 0
    except Exception as error:  # noqa: BLE001 - told to whoever waits
        traceback.print_exc()
        code = getattr(error, "code", 1)
    if code:
        raise SystemExit(code)


def _nearer(arguments: list[str], prepare: Callable[[], None] | None) -> int:
    if prepare:
        prepare()
    from nearer import process
    from nearer.cli.app import run

    process.install_signal_handlers()
    return run(arguments)


def begin(directory: Path, work: Callable[..., int | None], *arguments: Any) -> tuple[Any, Any]:
    """A process that calls `work`, which must be picklable and may give an exit code; where it speaks."""
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_child, args=(str(directory), work, arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


def start(directory: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> tuple[Any, Any]:
    """A process that runs `nearer` with these arguments, after `prepare` (which must be picklable); where it speaks."""
    return begin(directory, _nearer, list(arguments), prepare)


def end(process: Any, ours: Any) -> Ended:
    """Wait for it."""
    parts = []
    while part := os.read(ours.fileno(), 1 << 16):
        parts.append(part)
    ours.close()
    process.join()
    return Ended(code=process.exitcode, said=b"".join(parts).decode(errors="replace"))


def call(directory: Path, work: Callable[..., int | None], *arguments: Any) -> Ended:
    """See `begin`; from start to end."""
    return end(*begin(directory, work, *arguments))


def run(directory: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> Ended:
    """See `start`; from start to end."""
    return end(*start(directory, *arguments, prepare=prepare))
