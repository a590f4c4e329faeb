"""What the dry run says of memory: what a run needs, what fits where, and what `deepspeed: auto` makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from nearer import process
from nearer.train.activations import Activations, activations
from nearer.train.memory import (
    METHODS,
    Need,
    choose,
    model_states,
    need_of,
    on_cpu,
)
from nearer.train.shape import Precision, Shape, adapt, freeze, model_shape

_GIB: Final = 1 << 30
_CARDS: Final = (16, 24, 48, 80)
"""GiB of the GPUs that are looked at where none can be seen."""


def memory_notes(
    *,
    config: Mapping[str, Any] | None,
    reranker: bool,
    passes: Sequence[tuple[int, int]],
    chunk: int | None,
    nodes: int,
    processes: int | None,
    deepspeed: str,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    device: Literal["auto", "cpu", "cuda"],
    checkpointing: bool,
    dropout: float | None,
    freeze_embeddings: bool,
    freeze_layers: int,
    lora_rank: int | None,
    lora_targets: Sequence[str] | None,
) -> tuple[str, ...]:
    """What training will need of memory, in sentences.

    Args:
        config: the base model's config.json; None if it is not known yet.
        reranker: whether a head with one label is put on the model.
        passes: (rows, tokens) that pass through the model in one step, over all processes, at their longest.
        chunk: of these rows, so many at once, on each process; None: all of its share.
        nodes: machines.
        processes: on each; None: one for each GPU that can be seen, else one.
        deepspeed: the setting; a file's own settings are not looked at.
        precision: the setting.
        device: the setting.
        checkpointing: only the input of each block is kept.
        dropout: the setting; None: the model's.
        freeze_embeddings: they do not train.
        freeze_layers: so many of the first do not train.
        lora_rank: of adapters; None: the weights train themselves.
        lora_targets: layers that get an adapter; None: the architecture's usual ones.
    """
    shape = model_shape(config, reranker=reranker) if config else None
    if shape is None:
        what = f"architecture {config.get('model_type')!r} is not known" if config else "the base model is not here yet"
        return (f"memory: not planned: {what}",)
    whole = freeze(shape, embeddings=freeze_embeddings, layers=freeze_layers)
    shape = whole if lora_rank is None else adapt(whole, rank=lora_rank, targets=lora_targets)
    gpus = _gpus() if device != "cpu" else []
    each = processes or max(1, len(gpus))
    total = each * nodes
    cuda = bool(gpus) or device == "cuda"
    method = deepspeed if deepspeed in METHODS else "auto"
    products: Precision = _products(precision, cuda=cuda)
    shares = [
        (-(-rows // total) if chunk is None else min(chunk, -(-rows // total)), tokens) for rows, tokens in passes
    ]
    work = {"shares": shares, "together": chunk is None, "precision": products, "dropout": dropout, "cuda": cuda}

    def needs(of: Shape, *, checkpointing: bool = checkpointing) -> dict[str, Need]:
        found = {}
        for name in METHODS:
            acts = _activations(of, method=name, checkpointing=checkpointing, **work)  # type: ignore[arg-type]
            need = need_of(of, acts, method=name, processes=total, processes_per_node=each, precision=products)
            found[name] = need if cuda or not _no_gpu(device, gpus) else on_cpu(need, processes_per_node=each)
        return found

    host = None if not gpus and device == "cuda" else _host_bytes()
    wanted = "auto" if method == "auto" else method
    own = needs(shape)
    choice = choose(
        own, wanted=wanted, processes=total, device_bytes=min(gpus, default=None) if gpus else None, host_bytes=host
    )
    trains = sum(weight.count for weight in shape.trainable)
    lines = [
        f"memory: {shape.architecture}, {_number(shape.count)} weights of which {_number(trains)} train, {products} "
        f"products; at once{f' on each of {total} processes' if total > 1 else ''}: "
        + ", ".join(f"{rows} texts of {tokens} tokens" for rows, tokens in shares),
        _states_line(shape, method=choice.method, processes=total, each=each, precision=products),
        _activations_line(shape, method=choice.method, work=work, checkpointing=checkpointing),
    ]
    if gpus:
        lines.append(
            _choice_line(choice.method, own[choice.method], fits=choice.fits, why=choice.why, gpus=gpus, host=host)
        )
    else:
        lines.append(_machine_line(own[choice.method] if not cuda else None, host=host))
        lines.append(_cards_line(shape, whole, work=work, checkpointing=checkpointing, total=total, each=each))
    if gpus and not choice.fits and lora_rank is None:
        lines.append(_way_out(whole, needs=needs, total=total, gpus=gpus, host=host))
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


def _no_gpu(device: str, gpus: Sequence[int]) -> bool:
    return device == "cpu" or not gpus


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


def _states_line(shape: Shape, *, method: str, processes: int, each: int, precision: Precision) -> str:
    states = model_states(shape, method=method, processes=processes, precision=precision)
    parts = (
        ("weights", "weights"),
        ("gradients", "gradients"),
        ("optimizer", "optimizer"),
        ("buffers", "buffers up to"),
    )
    sizes = [(words, getattr(states.device, name)) for name, words in parts]
    device = ", ".join(f"{words} {_gib(size)}" for words, size in sizes if size)
    how = "without ZeRO" if method == "none" else f"by {method}"
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


def _way_out(whole: Shape, *, needs: Any, total: int, gpus: Sequence[int], host: int | None) -> str:
    ways = [
        words
        for words, found in (
            ("activation_checkpointing: true", needs(whole, checkpointing=True)),
            ("lora: {}", needs(adapt(whole, rank=16, targets=None))),
        )
        if choose(found, wanted="auto", processes=total, device_bytes=min(gpus), host_bytes=host).fits
    ]
    return f"memory: what would fit: {' or '.join(ways) if ways else 'a smaller batch_size or chunk_size'}"


def _gib(count: int) -> str:
    return f"{count / _GIB:.2f}" if count < _GIB else f"{count / _GIB:.1f}"


def _number(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)
