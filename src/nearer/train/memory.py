"""What training a model needs of memory: its states to the byte, and what fits where.

Plain arithmetic over a `Shape`, as PyTorch's AdamW and DeepSpeed 0.19's ZeRO (Rajbhandari et al. 2020) allocate it; the
tests compare it with what they do allocate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

from nearer.train.activations import Activations
from nearer.train.shape import Precision, Shape, Weight, count_of

METHODS: Final = ("none", "zero1", "zero2", "zero3", "zero1_offload", "zero2_offload", "zero3_offload")
_BUCKET: Final = 50_000_000
"""Gradients that DeepSpeed reduces at once, as nearer configures it (`reduce_bucket_size`)."""
_ALIGNMENT: Final = 2
"""DeepSpeed aligns the flat weights of a group to so many a process (`nccl_start_alignment_factor`)."""
_ROOM: Final = 0.9
"""Share of a device that may be planned for: CUDA's own context and fragmentation take the rest. A guess."""


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Model states in one place, in bytes.

    `buffers` are what the states pass through: reduction buckets, fp32 copies of gradients at the optimizer step.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    buffers: int = 0

    @property
    def states(self) -> int:
        """Without buffers."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.buffers

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(
            weights=self.weights + other.weights,
            gradients=self.gradients + other.gradients,
            optimizer=self.optimizer + other.optimizer,
            buffers=self.buffers + other.buffers,
        )


@dataclass(frozen=True, kw_only=True)
class States:
    """What one process keeps: on its device, and in the host's memory for it. On a CPU both are the same memory."""

    device: Bytes
    host: Bytes = Bytes()


@dataclass(frozen=True, kw_only=True)
class Need:
    """One way to train, and what it needs of one GPU and of one machine's memory, in bytes."""

    method: str
    device: int
    host: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `deepspeed: auto` comes to, and the reason in words."""

    method: str
    fits: bool
    why: str


def model_states(
    shape: Shape,
    *,
    method: str,
    processes: int,
    precision: Precision,
    frozen_bytes: Literal[2, 4] = 4,
    state_bytes: Literal[2, 4] = 4,
) -> States:
    """Weights, gradients and AdamW's states of one process: of the fullest one, where they differ.

    Gradients are what is there between backward pass and optimizer step. Without ZeRO, weights are fp32, and the
    products' precision is autocast's; under ZeRO, weights and gradients are in `precision` and the optimizer steps
    originals of their own.

    Args:
        shape: says which weights train.
        method: one of METHODS.
        processes: over all machines.
        precision: of the products.
        frozen_bytes: of a number that does not train, without ZeRO.
        state_bytes: of a number of the originals and of AdamW's moments, under ZeRO.
    """
    stage = 0 if method == "none" else int(method[len("zero")])
    if stage == 0:
        return _whole(shape, processes=processes, frozen_bytes=frozen_bytes)
    size = 4 if precision == "fp32" else 2
    divide = _by_weight if stage == 3 else _by_group
    return divide(shape, processes=processes, size=size, state=state_bytes, offload=method.endswith("_offload"))


def _whole(shape: Shape, *, processes: int, frozen_bytes: int) -> States:
    stepped = [weight for weight in shape.trainable if weight.used]
    trained = count_of(stepped)
    return States(
        device=Bytes(
            weights=4 * count_of(shape.trainable) + frozen_bytes * (shape.count - count_of(shape.trainable)),
            gradients=4 * trained,
            optimizer=8 * trained + 4 * len(stepped),  # two moments, and a step counter a weight
            buffers=4 * count_of(shape.trainable) if processes > 1 else 0,  # DistributedDataParallel's buckets
        )
    )


def _by_group(shape: Shape, *, processes: int, size: int, state: int, offload: bool) -> States:
    """ZeRO-1 and -2: the flat weights of each optimizer group are padded and cut into equal parts.

    Stage 1 keeps no more gradients than stage 2: DeepSpeed 0.19 drops those of other parts once they are reduced.
    """
    groups = _groups(shape)
    padded = [_align(count_of(group), _ALIGNMENT * processes) for group in groups]
    part = sum(padded) // processes
    frozen = shape.count - count_of(shape.trainable)
    # A weight that two parts share has its whole gradient in both.
    kept = max(
        sum(
            count_of(_overlapping(group, whole // processes, rank)) for group, whole in zip(groups, padded, strict=True)
        )
        for rank in range(processes)
    )
    weights = size * (sum(padded) + frozen)
    originals = Bytes(optimizer=3 * state * part + 4 * len(groups))
    largest = size * max((weight.count for weight in shape.trainable), default=0)
    bucket = size * min(_BUCKET, count_of(shape.trainable))
    if not offload:
        step = (size if state == size else state + size) * max(padded, default=0) // processes
        return States(device=Bytes(weights=weights, gradients=size * kept, buffers=max(bucket, step)) + originals)
    return States(
        device=Bytes(weights=weights, buffers=largest + bucket),
        host=originals + Bytes(gradients=4 * part, buffers=size * part + largest),
    )


def _by_weight(shape: Shape, *, processes: int, size: int, state: int, offload: bool) -> States:
    """ZeRO-3: each weight is padded and cut into equal parts; small ones stay whole as well, once gathered."""

    def part(weights: Iterable[Weight]) -> int:
        return sum(ceil(weight.count / processes) for weight in weights)

    small = [weight for weight in shape.weights if weight.count <= 10 * shape.hidden]
    whole = Bytes(weights=size * processes * part(small))
    divided = Bytes(weights=size * part(shape.weights), gradients=size * part(shape.trainable))
    groups = len(_groups(shape))
    originals = Bytes(optimizer=3 * state * part(shape.trainable) + 4 * groups)
    layer = max((count_of(w for w in shape.weights if w.layer == number) for number in range(shape.layers)), default=0)
    outside = max((weight.count for weight in shape.weights if weight.layer is None), default=0)
    bucket = size * min(_BUCKET, count_of(shape.trainable))
    gathered = Bytes(buffers=size * max(2 * layer, outside) + bucket)  # a block, and the next one on its way
    if not offload:
        return States(device=whole + divided + originals + gathered + Bytes(buffers=state * part(shape.trainable)))
    return States(device=whole + gathered, host=divided + originals + Bytes(gradients=4 * part(shape.trainable)))


def choose(
    needs: Mapping[str, Need], *, wanted: str, processes: int, device_bytes: int | None, host_bytes: int | None
) -> Choice:
    """What a setting of `deepspeed` comes to: `auto` is the first method, in the order of METHODS, that fits.

    One process alone has nobody to divide with: ZeRO without offload would save nothing there.

    Args:
        needs: by method, activations included.
        wanted: the setting.
        processes: over all machines.
        device_bytes: memory of one GPU; None on a CPU.
        host_bytes: memory of one machine; None where it is not known.
    """
    if wanted != "auto":
        need = needs[wanted]
        fits = _fits(need, device_bytes=device_bytes, host_bytes=host_bytes)
        return Choice(method=wanted, fits=fits, why="as the settings say")
    if device_bytes is None:
        fits = _fits(needs["none"], device_bytes=None, host_bytes=host_bytes)
        return Choice(method="none", fits=fits, why="no GPU: states and activations share the machine's memory")
    order = METHODS if processes > 1 else ("none", "zero2_offload")
    for method in order:
        if _fits(needs[method], device_bytes=device_bytes, host_bytes=host_bytes):
            why = "each GPU has room for everything" if method == "none" else "the least division that fits"
            if method.endswith("offload") and processes == 1:
                why = "on one GPU ZeRO without offload saves nothing, and the machine has the memory for the optimizer"
            return Choice(method=method, fits=True, why=why)
    why = "nothing fits"
    if processes == 1:
        why = "nothing fits: on one GPU ZeRO without offload saves nothing, and offload wants more memory than there is"
    return Choice(method=order[-1], fits=False, why=why)


def need_of(
    shape: Shape,
    acts: Activations,
    *,
    method: str,
    processes: int,
    processes_per_node: int,
    precision: Precision,
    state_bytes: Literal[2, 4] = 4,
) -> Need:
    """What a method needs of one GPU, and of one machine for all its processes."""
    states = model_states(shape, method=method, processes=processes, precision=precision, state_bytes=state_bytes)
    device = states.device.total + acts.peak + acts.copies
    return Need(method=method, device=device, host=states.host.total * processes_per_node)


def on_cpu(need: Need, *, processes_per_node: int) -> Need:
    """The same without GPUs: all of it is the machine's memory."""
    return replace(need, device=0, host=need.host + need.device * processes_per_node)


def _fits(need: Need, *, device_bytes: int | None, host_bytes: int | None) -> bool:
    on_device = device_bytes is None or need.device <= _ROOM * device_bytes
    return on_device and (host_bytes is None or need.host <= _ROOM * host_bytes)


def _groups(shape: Shape) -> list[list[Weight]]:
    """The optimizer's groups, as transformers' trainer makes them: with weight decay, and without (biases, norms)."""
    decayed = [weight for weight in shape.trainable if len(weight.shape) > 1]
    others = [weight for weight in shape.trainable if len(weight.shape) == 1]
    return [group for group in (decayed, others) if group]


def _overlapping(group: Sequence[Weight], part: int, rank: int) -> list[Weight]:
    found, start = [], 0
    for weight in group:
        if start < (rank + 1) * part and start + weight.count > rank * part:
            found.append(weight)
        start += weight.count
    return found


def _align(count: int, unit: int) -> int:
    return ceil(count / unit) * unit
