"""Where a run's processes are: how many machines, which one this is, and how many processes it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from nearer.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Place:
    """This machine among those that train together.

    `node` counts from 0; `processes` are those of each machine; `master` is the first machine's address and port.
    """

    nodes: int = 1
    node: int = 0
    processes: int = 1
    master: str = ""
    port: int = 0
    cuda: bool = False

    @property
    def total(self) -> int:
        """Processes on all machines."""
        return self.nodes * self.processes


def find_place(
    *, nodes: int | None, processes: int | None, gpus: int, environment: Mapping[str, str] | None = None
) -> Place:
    """Settings first, then what the pods of an Indexed Job are told, then what is there.

    Args:
        nodes: setting; None: NNODES, or 1.
        processes: setting, for each machine; None: NPROC_PER_NODE, else one a GPU, else 1.
        gpus: how many are to be used and can be seen.
        environment: for tests; default `os.environ`.

    Raises:
        InputError: fewer GPUs than processes; several machines, and nothing says where the first one is.
    """
    variables = os.environ if environment is None else environment
    nodes = nodes or _number(variables, "NNODES") or 1
    processes = processes or _number(variables, "NPROC_PER_NODE") or max(1, gpus)
    if gpus and processes > gpus:
        raise InputError(
            f"{processes} processes and {gpus} GPUs",
            where="gpus_per_node",
            rule="a GPU for each process",
            way_out=f"gpus_per_node: {gpus}; or device: cpu",
        )
    if nodes == 1:
        return Place(processes=processes, cuda=gpus > 0)
    node = _number(variables, "NODE_RANK")
    node = _number(variables, "JOB_COMPLETION_INDEX") if node is None else node
    master, port = variables.get("MASTER_ADDR", ""), _number(variables, "MASTER_PORT")
    if node is None or not 0 <= node < nodes or not master or not port:
        raise InputError(
            f"{nodes} nodes, and this one does not know its place",
            where="nodes",
            rule=f"MASTER_ADDR, MASTER_PORT, and NODE_RANK from 0 to {nodes - 1}",
            way_out="the chart sets them in the pods of a Job with `nodes` above 1; elsewhere set them yourself",
        )
    return Place(nodes=nodes, node=node, processes=processes, master=master, port=port, cuda=gpus > 0)


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    if text and not text.isdecimal():
        raise InputError(f"{name} is {text!r}", where="environment", rule="a whole number")
    return int(text) if text else None
