"""This process among others: signals, and what the container's cgroup lets it use."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import signal
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import FrameType

from nearer.errors import Interrupted

_CGROUP = Path("/sys/fs/cgroup")
_TERMINATION_LOG = Path("/dev/termination-log")
_TERMINATION_LOG_BYTES = 4096  # what the kubelet reads of it


class StopFlag:
    """Set by SIGTERM; long work looks at it between steps and leaves with `Interrupted`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the work to stop at the next safe place."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether the work was asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Leave if asked to.

        Raises:
            Interrupted: SIGTERM came.
        """
        if self.is_set():
            raise Interrupted("stopped by SIGTERM", way_out="run the same command again: it goes on from here")


STOP = StopFlag()


def install_signal_handlers() -> None:
    """Turn SIGTERM into a flag. A second SIGTERM ends the process at once, as the default handler would."""

    def on_term(_signum: int, _frame: FrameType | None) -> None:
        STOP.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, on_term)


def cpu_count() -> int:
    """Cores this process may use: the smaller of its affinity and the cgroup's quota (v2 and v1), at least 1."""
    cores = len(os.sched_getaffinity(0))
    for quota, period in (_quota_v2(), _quota_v1()):
        if quota > 0 and period > 0:
            cores = min(cores, max(1, math.ceil(quota / period)))
    return cores


def memory_limit_bytes() -> int | None:
    """The cgroup's memory limit (v2 and v1); None when there is none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(_CGROUP / name)
        if text and text != "max" and int(text) < 1 << 60:
            return int(text)
    return None


def memory_kills() -> int:
    """How many processes of the cgroup the kernel has killed for its memory limit (v2 and v1); 0 when unknown."""
    for name in ("memory.events", "memory/memory.oom_control"):
        for line in _read(_CGROUP / name).splitlines():
            word, _, count = line.partition(" ")
            if word == "oom_kill" and count.isdigit():
                return int(count)
    return 0


def share_cores() -> None:
    """Let threads of matrix products that wait for each other sleep, unless OMP_WAIT_POLICY says otherwise.

    They spin by default, and where something else wants the cores, they take them from the very thread that they wait
    for. Must be called before PyTorch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def release_memory() -> None:
    """Give back what models, optimizers and graphs that are no longer used have left behind.

    Models and trainers refer to themselves in circles, so they live on until the collector comes by. The first call,
    which should come after the imports, sets aside what is there: a million objects of modules that are never freed,
    and that each collection took 0.4 s to go through.
    """
    _set_modules_aside()
    gc.collect()
    trim_heap()


@cache
def _set_modules_aside() -> None:
    gc.collect()
    gc.freeze()


def trim_heap() -> None:
    """Give the pages of freed tensors back to the system.

    glibc keeps them and hands them out again badly, because tensors are of many sizes: after a training of
    multilingual-e5-small 3.8 GB were resident, 1.2 GB of them in use.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return  # another C library than glibc
    trim(0)


def write_termination_message(fields: Mapping[str, object]) -> None:
    """Leave a short JSON for the kubelet at /dev/termination-log, when that file is there and writable."""
    if not os.access(_TERMINATION_LOG, os.W_OK):
        return
    text = json.dumps(fields, ensure_ascii=False, default=str)
    if len(text.encode()) > _TERMINATION_LOG_BYTES:
        short = {key: fields[key] for key in ("stage", "code", "artifact") if key in fields}
        text = json.dumps({**short, "reason": str(fields.get("reason", ""))[:800]}, ensure_ascii=False, default=str)
    _TERMINATION_LOG.write_text(text, encoding="utf-8")


def _quota_v2() -> tuple[int, int]:
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else (0, 0)


def _quota_v1() -> tuple[int, int]:
    quota, period = _read(_CGROUP / "cpu/cpu.cfs_quota_us"), _read(_CGROUP / "cpu/cpu.cfs_period_us")
    return (int(quota), int(period)) if quota.isdigit() and period.isdigit() else (0, 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
