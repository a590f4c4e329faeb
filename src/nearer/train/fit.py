"""What the dry run says of memory: what a run needs, what fits where, and what `deepspeed: auto` makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nearer import process
from nearer.train.activations import Activations, activations
from nearer.train.demand import Demand
from nearer.train.memory import METHODS, Need, choose, model_states, need_of, on_cpu
from nearer.train.shape import Precision, Shape, adapt, freeze, model_shape
from nearer.train.zero_settings import division_of, require_bf16

_GIB: Final = 1 << 30
_CARDS: Final = (16, 24, 48, 80)
"""GiB of the GPUs that are looked at where none can be seen."""


class _Look:
    """A demand beside what this machine has."""

    def __init__(self, demand: Demand, known: Shape, *, gpus: Sequence[int] | None = None) -> None:
        self.whole = freeze(known, embeddings=demand.freeze_embeddings, layers=demand.freeze_layers)
        self.shape = self.whole
        if demand.lora_rank is not None:
            self.shape = adapt(self.whole, rank=demand.lora_rank, targets=demand.lora_targets)
        self.gpus = [] if demand.device == "cpu" else _gpus() if gpus is None else list(gpus)
        self.each = demand.processes or max(1, len(self.gpus))
        self.total = self.each * demand.nodes
        self.cuda = bool(self.gpus) or demand.device == "cuda"
        self.products: Precision = _products(demand.precision, cuda=self.cuda)
        self.host = None if not self.gpus and demand.device == "cuda" else _host_bytes()
        self.checkpointing = demand.checkpointing
        self._on_cpu = demand.device == "cpu" or not self.gpus
        shares = [-(-rows // self.total) for rows, _ in demand.passes]
        if demand.chunk is not None:
            shares = [min(demand.chunk, rows) for rows in shares]
        self.shares = [(rows, tokens) for rows, (_, tokens) in zip(shares, demand.passes, strict=True)]
        self.work: dict[str, Any] = {
            "shares": self.shares,
            "together": demand.chunk is None,
            "precision": self.products,
            "dropout": demand.dropout,
            "cuda": self.cuda,
        }
        division = division_of(demand.deepspeed)
        self.state_bytes = division.state_bytes if division else 4
        if self.state_bytes == 2:
            require_bf16(self.products, where=demand.deepspeed)
        self.own = self.needs(self.shape, checkpointing=demand.checkpointing)
        self.choice = choose(
            self.own,
            wanted=division.method if division else "auto",
            processes=self.total,
            device_bytes=min(self.gpus, default=None),
            host_bytes=self.host,
        )

    def needs(self, shape: Shape, *, checkpointing: bool) -> dict[str, Need]:
        found = {}
        for method in METHODS:
            acts = _activations(shape, method=method, checkpointing=checkpointing, **self.work)
            need = need_of(
                shape,
                acts,
                method=method,
                processes=self.total,
                processes_per_node=self.each,
                precision=self.products,
                state_bytes=self.state_bytes,
            )
            found[method] = on_cpu(need, processes_per_node=self.each) if self._on_cpu else need
        return found


def chosen_method(demand: Demand, *, gpus: Sequence[int] | None = None) -> str | None:
    """What `deepspeed` comes to on this machine: the method that `memory_notes` names.

    Args:
        demand: the run.
        gpus: bytes of each GPU of this machine; None: they are looked for.

    Returns:
        None where the architecture is not known.
    """
    known = model_shape(demand.config, reranker=demand.reranker) if demand.config else None
    return None if known is None else _Look(demand, known, gpus=gpus).choice.method


def planned_share(demand: Demand, *, gpus: Sequence[int] | None = None) -> float | None:
    """Share of the smallest GPU of this machine that a run is planned to take; None where that is not known.

    Args:
        demand: the run.
        gpus: bytes of each GPU of this machine; None: they are looked for.
    """
    known = model_shape(demand.config, reranker=demand.reranker) if demand.config else None
    if known is None:
        return None
    look = _Look(demand, known, gpus=gpus)
    return look.own[look.choice.method].device / min(look.gpus) if look.gpus else None


def memory_notes(demand: Demand) -> tuple[str, ...]:
    """What training will need of memory, in sentences."""
    known = model_shape(demand.config, reranker=demand.reranker) if demand.config else None
    if known is None:
        config = demand.config
        what = f"architecture {config.get('model_type')!r} is not known" if config else "the base model is not here yet"
        return (f"memory: not planned: {what}",)
    look = _Look(demand, known)
    shape, choice, checkpointing, total, each = look.shape, look.choice, look.checkpointing, look.total, look.each
    trains = sum(weight.count for weight in shape.trainable)
    lines = [
        f"memory: {shape.architecture}, {_number(shape.count)} weights of which {_number(trains)} train, "
        f"{look.products} products; at once{f' on each of {total} processes' if total > 1 else ''}: "
        + ", ".join(f"{rows} texts of {tokens} tokens" for rows, tokens in look.shares),
        _states_line(look),
        _activations_line(shape, method=choice.method, work=look.work, checkpointing=checkpointing),
    ]
    need = look.own[choice.method]
    if look.gpus:
        lines.append(
            _choice_line(choice.method, need, fits=choice.fits, why=choice.why, gpus=look.gpus, host=look.host)
        )
    else:
        lines.append(_machine_line(need if not look.cuda else None, host=look.host))
        lines.append(
            _cards_line(shape, look.whole, work=look.work, checkpointing=checkpointing, total=total, each=each)
        )
    if look.gpus and not choice.fits and demand.lora_rank is None:
        lines.append(_way_out(look))
    return tuple(line for line in lines if line)


def _activations(
    shape: Shape,
    *,
    shares: Sequence[tuple[int, int]],
    together: bool,
    method: str,
    precision: Precision,
    checkpointing: bool,
    dropout: float | None,
    cuda: bool,
) -> Activations:
    found = [
        activations(
            shape,
            rows=rows,
            tokens=tokens,
            method=method,
            precision=precision,
            checkpointing=checkpointing,
            dropout=dropout,
            cuda=cuda,
        )
        for rows, tokens in shares
    ]
    largest = max(found, key=lambda each: each.peak)
    if not together:
        return largest
    others = sum(each.kept for each in found) - largest.kept
    return replace(largest, kept=largest.kept + others, peak=largest.peak + others)


def _products(precision: str, *, cuda: bool) -> Precision:
    if precision != "auto":
        return precision  # type: ignore[return-value]
    return "bf16" if cuda or _multiplies_bf16() else "fp32"


def _multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_tile" in flags


def _gpus() -> list[int]:
    """Bytes of each GPU that this process may see; nothing is imported for it."""
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES", "0") in {"", "-1"}:
        return []
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - found by name
    except (OSError, subprocess.SubprocessError):
        return []
    found = [int(line) << 20 for line in done.stdout.split() if line.isdecimal()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found[: len(visible.split(","))] if visible else found


def _host_bytes() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(physical, process.memory_limit_bytes() or physical)


def _states_line(look: _Look) -> str:
    method, each = look.choice.method, look.each
    states = model_states(
        look.shape, method=method, processes=look.total, precision=look.products, state_bytes=look.state_bytes
    )
    parts = (
        ("weights", "weights"),
        ("gradients", "gradients"),
        ("optimizer", "optimizer"),
        ("buffers", "buffers up to"),
    )
    sizes = [(words, getattr(states.device, name)) for name, words in parts]
    device = ", ".join(f"{words} {_gib(size)}" for words, size in sizes if size)
    how = "without ZeRO" if method == "none" else f"by {method}{', all in bf16' if look.state_bytes == 2 else ''}"
    line = f"memory: model states {how}: {device} = {_gib(states.device.total)} GiB a process"
    if states.host.total:
        line += f", and {_gib(states.host.total)} GiB of the machine's memory"
    if each > 1:
        line += f"; a node: {_gib(states.device.total * each)} and {_gib(states.host.total * each)} GiB"
    return line


def _activations_line(shape: Shape, *, method: str, work: Mapping[str, Any], checkpointing: bool) -> str:
    plain = _activations(shape, method=method, checkpointing=False, **work)
    less = _activations(shape, method=method, checkpointing=True, **work)
    shown = [f"activations {_gib(plain.peak)} GiB", f"with activation_checkpointing {_gib(less.peak)} GiB"]
    line = "memory: " + ", ".join(reversed(shown) if checkpointing else shown)
    if plain.copies:
        line += f"; {_gib(plain.copies)} GiB of weights in the products' precision"
    return line


def _choice_line(method: str, need: Need, *, fits: bool, why: str, gpus: Sequence[int], host: int | None) -> str:
    line = f"memory: deepspeed: {method}: {why}: {_gib(need.device)} of {_gib(min(gpus))} GiB a GPU"
    if need.host:
        line += f", {_gib(need.host)} of {_gib(host or 0)} GiB of the machine's memory"
    return line if fits else f"{line}: DOES NOT FIT"


def _machine_line(need: Need | None, *, host: int | None) -> str:
    if need is None or host is None:
        return ""
    verdict = "" if need.host <= host else ": DOES NOT FIT"
    return f"memory: without a GPU {_gib(need.host)} of this machine's {_gib(host)} GiB{verdict}"


def _cards_line(
    shape: Shape, whole: Shape, *, work: Mapping[str, Any], checkpointing: bool, total: int, each: int
) -> str:
    """What `auto` would choose on GPUs of common sizes, with LoRA beside where the whole model trains."""
    on_gpu = {**work, "cuda": True, "precision": "bf16" if work["precision"] == "fp32" else work["precision"]}

    def needs(of: Shape) -> dict[str, Need]:
        return {
            name: need_of(
                of,
                _activations(of, method=name, checkpointing=checkpointing, **on_gpu),
                method=name,
                processes=total,
                processes_per_node=each,
                precision=on_gpu["precision"],
            )
            for name in METHODS
        }

    own, adapted = needs(shape), needs(adapt(whole, rank=16, targets=None)) if shape is whole else None
    found = []
    for card in _CARDS:
        choice = choose(own, wanted="auto", processes=total, device_bytes=card * _GIB, host_bytes=None)
        words = f"{card} GiB: {choice.method}" if choice.fits else f"{card} GiB: does not fit"
        if choice.fits and own[choice.method].host:
            words += f" with {_gib(own[choice.method].host)} GiB of host memory"
        small = adapted and choose(adapted, wanted="auto", processes=total, device_bytes=card * _GIB, host_bytes=None)
        if small and small.method == "none" and small.fits and choice.method != "none":
            words += ", or none with lora"
        found.append(words)
    count = f"{total} GPUs" if total > 1 else "one GPU, where ZeRO without offload saves nothing,"
    return f"memory: `deepspeed: auto` on {count} of " + "; ".join(found)


def _way_out(look: _Look) -> str:
    ways = [
        words
        for words, found in (
            ("activation_checkpointing: true", look.needs(look.whole, checkpointing=True)),
            ("lora: {}", look.needs(adapt(look.whole, rank=16, targets=None), checkpointing=look.checkpointing)),
        )
        if choose(found, wanted="auto", processes=look.total, device_bytes=min(look.gpus), host_bytes=look.host).fits
    ]
    return f"memory: what would fit: {' or '.join(ways) if ways else 'a smaller batch_size or chunk_size'}"


def _gib(count: int) -> str:
    return f"{count / _GIB:.2f}" if count < _GIB else f"{count / _GIB:.1f}"


def _number(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)
