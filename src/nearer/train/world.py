"""The processes that train together, as one of them sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from nearer import process
from nearer.errors import Interrupted

T = TypeVar("T")

_SILENCE: Final = timedelta(minutes=10)
"""A peer that does not answer for so long is lost. Longer than rank 0 needs to write a checkpoint while the others
wait, and short, because until then a GPU that hangs costs as much as one that works."""


@dataclass(frozen=True, kw_only=True)
class World:
    """All processes of a run; every method is called by all of them, in the same order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, *, cuda: bool) -> World:
        """Meet the other processes that the launcher started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_SILENCE)
        return cls(rank=dist.get_rank(), size=dist.get_world_size())

    @staticmethod
    def leave() -> None:
        """Give up the connections; a process that ends with them may crash after all is done."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> range:
        """Which of `count` things are a rank's: consecutive, and as many as any other's but for one."""
        own = self.rank if rank is None else rank
        return range(count * own // self.size, count * (own + 1) // self.size)

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        shared: T = box[0]
        return shared

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order, on every rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def spread(self, tensor: Tensor) -> Tensor:
        """Rank 0's numbers, in place of everybody's."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def rows(self, own: Tensor) -> list[Tensor]:
        """The rows (n, d) of every rank, whose n may differ; no gradient passes through."""
        if self.size == 1:
            return [own]
        counts = torch.zeros(self.size, dtype=torch.int64, device=own.device)
        counts[self.rank] = len(own)
        longest = int(self.total(counts).max())
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [part[:count] for part, count in zip(found, counts.tolist(), strict=True)]

    def check_stop(self) -> None:
        """Leave together if anybody was asked to.

        Raises:
            Interrupted: SIGTERM came to one of the processes.
        """
        if self.size > 1:
            flag = torch.tensor(int(process.STOP.is_set()))  # on the CPU: no GPU is waited for
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            if flag.item():
                process.STOP.set()
        process.STOP.check()


ALONE: Final = World()


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process of the run has gone."""
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and any(sign in text for sign in ("gloo/transport", "Connection closed by peer", "Connection reset by peer"))
    )


def lost_peer() -> Interrupted:
    """What is said then."""
    return Interrupted(
        "another process of this run has gone",
        rule="all processes train together",
        way_out="run the same command again everywhere: it goes on from the last checkpoint",
    )
