"""One process of a run of several: `python -m nearer.train.worker SOCKET`, started by torchrun's agent in `launch`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from nearer import process
from nearer.errors import DoesNotFit, NearerError, from_os_error
from nearer.progress import Silent, choose
from nearer.store import WorkArea
from nearer.train.line import FarSegments, Line, Report
from nearer.train.orders import Orders, Task

if TYPE_CHECKING:
    from nearer.train.world import World

_PR_SET_PDEATHSIG: Final = 1


def main(path: str) -> int:
    """Train; the exit code is that of the error, as everywhere."""
    _die_with_launcher()
    _listen_to_launcher()
    process.share_cores()
    # Else accelerate counts the machine's cores, whatever the container's quota is.
    cores = process.cpu_count() // int(os.environ["LOCAL_WORLD_SIZE"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
    line = Line(path)
    orders: Orders = line.ask("hello", int(os.environ["RANK"]), os.getpid())
    report = _run(orders, line)
    line.ask("report", report)
    sys.stderr.write(report.fault)
    return report.error.code if report.error else 1 if report.fault else 0


def _run(orders: Orders, line: Line) -> Report:
    try:
        _train(orders, line)
    except Exception as error:  # noqa: BLE001 - the launcher must hear of everything
        return _told(error)
    return Report()


def _told(error: Exception) -> Report:
    import torch

    from nearer.train.world import is_lost_peer, lost_peer

    if isinstance(error, NearerError):
        return Report(error=error, memory=isinstance(error, DoesNotFit))
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Report(error=DoesNotFit(f"out of memory: {error}"), memory=True)
    if is_lost_peer(error):
        return Report(error=lost_peer())
    if isinstance(error, OSError) and (told := from_os_error(error)):
        return Report(error=told)
    return Report(fault="".join(traceback.format_exception(error)))


def _train(orders: Orders, line: Line) -> None:
    from nearer.train.hardware import choose_precision
    from nearer.train.publish import leave
    from nearer.train.recipe import Method
    from nearer.train.task import load, train
    from nearer.train.world import World
    from nearer.train.zero import configure, prepare_cpu
    from nearer.train.zero_settings import division_of

    warnings.filterwarnings(
        "ignore", category=FutureWarning, module="accelerate|transformers"
    )  # of each other's options
    world = World.join(cuda=orders.cuda)
    # Rows are as long whatever the negatives are, so a rehearsal does not wait for a retriever's.
    task = replace(orders.task, retriever=None) if orders.rehearse else orders.task
    device = "cuda" if orders.cuda else "cpu"
    progress = choose() if world.main and not orders.rehearse else Silent()
    if orders.area is not None and world.main and not orders.rehearse:
        work = WorkArea(path=orders.area, segments=FarSegments(line) if orders.far else None)
    else:
        work = WorkArea(path=orders.scratch / f"rank-{world.rank}")
    division = division_of(task.training.deepspeed)
    whole = division is not None and division.method.startswith("zero3")
    loaded = load(task, device="cpu" if whole else device)
    model = loaded.tuned.model
    method = world.share(_method(task, model, world, cuda=orders.cuda))
    configuration = configure(
        method,
        precision=choose_precision(task.training.precision, device=device),
        max_grad_norm=task.training.max_grad_norm,
        hidden=model.transformers_model.config.hidden_size,
        cuda=orders.cuda,
    )
    if configuration and not orders.cuda:
        prepare_cpu()
    if division is not None and division.state_bytes == 2:
        progress.warn(
            "weights and optimizer states are in bf16: a change of a weight by less than about a 500th of it is lost",
            way_out="a learning_rate well above that for states in fp32; or fp32 states, lora or offload",
        )
    progress.say("processes that train together", count=world.size, deepspeed=method, chunk_size=orders.chunk)
    trained = train(
        task,
        loaded,
        method=Method(
            world=world, deepspeed=configuration, chunk=orders.chunk, rehearse=orders.rehearse, launched=True
        ),
        device=device,
        work=work,
        progress=progress,
    )
    if world.main and not orders.rehearse:
        leave(trained, work)
    World.leave()


def _method(task: Task, model: Any, world: World, *, cuda: bool) -> str:
    """What the dry run says, for a model whose architecture is not known from the count of its weights."""
    import torch

    from nearer.train.demand import demand_of
    from nearer.train.fit import chosen_method
    from nearer.train.zero import choose_method

    training = task.training
    if training.deepspeed != "auto":
        return str(training.deepspeed)
    if not cuda:
        return "none"
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = [torch.cuda.get_device_properties(number).total_memory for number in range(here)]
    demand = replace(demand_of(training, task.base.config()), nodes=world.size // here, processes=here)
    counts = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return chosen_method(demand, gpus=gpus) or choose_method(
        weights=sum(count for count, _ in counts),
        trainable=sum(count for count, trains in counts if trains),
        processes=world.size,
        gpu_bytes=min(gpus),
    )


def _die_with_launcher() -> None:
    """A launcher that is killed cannot end its workers, and nobody else would."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen_to_launcher() -> None:
    """SIGTERM sets the flag, as often as it comes; what a terminal sends to the whole group is for the launcher."""
    signal.signal(signal.SIGTERM, lambda *_: process.STOP.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
