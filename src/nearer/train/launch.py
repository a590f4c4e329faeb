"""Start a run's processes on this machine with torchrun's elastic agent, and say in one exit code how they ended.

The agent knows of its workers only that one failed. What they were, and what a worker's end means, is kept here: see
the table in `nearer.errors`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from nearer import process
from nearer.errors import DoesNotFit, Interrupted, NearerError
from nearer.progress import Progress
from nearer.store import WorkArea
from nearer.train.line import Exchange, Report
from nearer.train.orders import EmbeddingTraining, Orders, Task
from nearer.train.place import Place

_GRACE_SECONDS: Final = 15.0
"""Workers whose peer has died notice within so many seconds, or hang in a collective and are killed."""
_SHUTDOWN_SECONDS: Final = 240
"""For a step and a checkpoint after SIGTERM, when TORCH_ELASTIC_SHUTDOWN_TIMEOUT does not say otherwise. Less than the
chart's terminationGraceSeconds."""
_MEET_SECONDS: Final = 120
"""Between `gather`, after which all machines are there, and the agents' own rendezvous."""
_ROOM_TO_SPARE: Final = 0.5
"""Share of a GPU that a run may be planned to take without being tried first. A guess, not seen on a GPU."""
_FIRST: Final = (2, 3, 4, 1, 69, 75)
"""Whose error is the cause, when several workers failed: the others only lost their peer."""


def launch(task: Task, place: Place, *, work: WorkArea | None, chunk: int | None, progress: Progress) -> None:
    """Train with all processes of all machines; the result is left in the work area.

    On GPUs, unless the plan says that there is room to spare, the longest texts are tried first, by processes that end
    after it: a chunk that does not fit is then known at once, and not when the longest batch comes. Out of memory,
    everything starts again from the last checkpoint with half the chunk.

    Args:
        task: what to train.
        place: this machine's processes.
        work: the area; None on another machine than the first.
        chunk: texts or pairs that a process passes through the model at once; None: all of its part.
        progress: hears of it.

    Raises:
        DoesNotFit: out of memory, and the chunk cannot be made smaller.
        Interrupted: SIGTERM, or a process that was lost; the last checkpoint stands.
        NearerError: what a worker failed with; a process was lost twice after the same checkpoint.
    """
    rehearse = chunk is None and wants_rehearsal(task, place)
    while True:
        try:
            if rehearse:
                progress.say("trying steps of the longest texts", chunk_size=chunk)
                _once(task, place, work=work, chunk=chunk, rehearse=True, progress=progress)
                rehearse = False
            _once(task, place, work=work, chunk=chunk, progress=progress)
        except DoesNotFit as error:
            smaller = _smaller(task, place, chunk)
            if smaller is None or place.nodes > 1:
                raise
            then = "trying" if rehearse else "going on from the last checkpoint with"
            progress.warn(f"out of memory: {then} {smaller} texts at a time", reason=error.what)
            chunk = smaller
            continue
        except Interrupted as error:
            if work is not None and not process.STOP.is_set():
                _remember_loss(work, error)
            raise
        return


def wants_rehearsal(task: Task, place: Place) -> bool:
    """Whether to try the longest texts first: on the GPUs of one machine, unless the plan leaves half of them free."""
    if not place.cuda or place.nodes > 1:
        return False
    from nearer.train.demand import demand_of
    from nearer.train.fit import planned_share

    share = planned_share(demand_of(task.training, task.base.config()))
    return share is None or share > _ROOM_TO_SPARE


def _remember_loss(work: WorkArea, error: Interrupted) -> None:
    """A process that is lost twice at the same checkpoint will be lost for ever: that is no interruption.

    Raises:
        NearerError: it was lost there before.
    """
    steps = [
        name
        for name in {*work.shared(), *(path.name for path in work.path.iterdir())}
        if re.fullmatch(r"step-\d+", name)
    ]
    last = max(steps, key=lambda name: int(name.removeprefix("step-")), default="the start")
    name = f"lost-after-{last.replace(' ', '-')}"
    if name in work.shared() or (work.path / name).exists():
        raise NearerError(
            f"a process was lost for the second time after {last}: {error.what}",
            where=str(work.path),
            rule="a run that is interrupted comes further each time",
            way_out="see the log for what kills it: memory of the node, a GPU that fails, a limit of the container",
        ) from error
    (work.path / name).write_text(f"{error.what}\n", encoding="utf-8")
    work.share(name)


def _smaller(task: Task, place: Place, chunk: int | None) -> int | None:
    """Half of it; None: there is no half."""
    if chunk is None:
        training = task.training
        texts = 1 + training.negatives_per_query if isinstance(training, EmbeddingTraining) else 1
        chunk = -(-training.batch_size * texts // place.total)
    return chunk // 2 or None


def _once(
    task: Task,
    place: Place,
    *,
    work: WorkArea | None,
    chunk: int | None,
    progress: Progress,
    rehearse: bool = False,
) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says of failures, we say
    process.STOP.check()
    killed = process.memory_kills()
    with (
        tempfile.TemporaryDirectory(prefix="nearer-") as name,
        _exchange(Path(name), task, place, work, chunk, rehearse=rehearse) as line,
    ):
        one = place.nodes == 1
        config = LaunchConfig(
            min_nodes=place.nodes,
            max_nodes=place.nodes,
            nproc_per_node=place.processes,
            run_id="nearer",
            rdzv_backend="c10d" if one else "static",
            rdzv_endpoint="127.0.0.1:0" if one else f"{place.master}:{place.port}",
            rdzv_configs={} if one else {"rank": place.node, "timeout": _MEET_SECONDS},
            local_addr="127.0.0.1" if one else None,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(name) / "logs")),
            signals_to_handle="SIGHUP",  # SIGTERM is ours
            shutdown_timeout=int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT") or _SHUTDOWN_SECONDS),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "nearer.train.worker", str(line.path))
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            raise _cause(line, codes, memory=process.memory_kills() > killed) from None
    if process.STOP.is_set() and work is not None and not rehearse:
        progress.say("stopped after the last step: publishing is left for the next time")
    process.STOP.check()


@contextmanager
def _exchange(
    directory: Path, task: Task, place: Place, work: WorkArea | None, chunk: int | None, *, rehearse: bool
) -> Iterator[Exchange]:
    orders = Orders(
        task=task,
        cuda=place.cuda,
        chunk=chunk,
        area=work.path if work else None,
        far=bool(work and work.segments),
        scratch=directory,
        rehearse=rehearse,
    )
    over = threading.Event()
    line = Exchange(path=directory / "line", orders=orders, work=work, on_loss=lambda: _let_go(line, over))
    threading.Thread(target=_pass_on, args=(line, over), daemon=True).start()
    try:
        yield line
    finally:
        over.set()
        line.close()


def _pass_on(line: Exchange, over: threading.Event) -> None:
    """SIGTERM comes to the launcher alone; each worker hears of it once."""
    told: set[int] = set()
    while not over.wait(0.2):
        if process.STOP.is_set():
            for pid in set(line.pids.values()) - told:
                told.add(pid)
                _kill(pid, signal.SIGTERM)


def _let_go(line: Exchange, over: threading.Event) -> None:
    """A worker died without a word. The others cannot go on without it, and may not notice for a long time."""
    left = time.monotonic() + _GRACE_SECONDS
    while line.pids and time.monotonic() < left:
        if over.wait(0.2):
            return
    for pid in list(line.pids.values()):
        _kill(pid, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _cause(line: Exchange, codes: list[int], *, memory: bool) -> Exception:
    failed = [report for report in line.reports.values() if report.error or report.fault]
    if any(report.memory for report in failed) or memory:
        told = next((report.error for report in failed if report.memory), None)
        return told or DoesNotFit(
            "the system killed a process for its memory",
            rule="all processes together fit into the machine's, or the container's, memory",
            way_out="a smaller batch_size or chunk_size, fewer gpus_per_node, or more memory",
        )
    for code in _FIRST:
        for report in failed:
            if _code(report) == code:
                return report.error or RuntimeError(f"a worker failed:\n{report.fault}")
    return Interrupted(
        f"a process of this run was lost (exit codes {', '.join(map(str, codes))})",
        rule="all processes train together",
        way_out="run the same command again: it goes on from the last checkpoint",
    )


def _code(report: Report) -> int:
    return report.error.code if report.error else NearerError.code


def wait_for(visible: Any, *, seconds: float) -> Any:
    """Ask again and again until there is an answer.

    Raises:
        Interrupted: SIGTERM, or there is none in time.
    """
    last = time.monotonic() + seconds
    while (found := visible()) is None:
        process.STOP.check()
        if time.monotonic() > last:
            raise Interrupted(
                f"the first node has not published the model within {seconds:.0f} s",
                rule="a node ends when the model that it helped to train is there",
                way_out="run the same command again on all nodes",
            )
        time.sleep(1.0)
    return found
