"""What training a model needs of memory: its states to the byte, its activations closely, and what fits where.

Plain arithmetic over a `Shape`, as PyTorch's AdamW and DeepSpeed 0.19's ZeRO (Rajbhandari et al. 2020) allocate it. The
tests compare it with what they do allocate, and with the tensors that autograd saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

from nearer.train.shape import Shape, Weight

Precision = Literal["fp32", "bf16", "fp16"]
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
class Activations:
    """What one forward pass keeps for its backward pass, in bytes.

    `kept`: after the forward pass; `peak`: with the block that is computed again under activation checkpointing;
    `copies`: the weights in the precision of the products, which autocast keeps beside.
    """

    kept: int
    peak: int
    copies: int


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
    shape: Shape, *, method: str, processes: int, precision: Precision, frozen_bytes: Literal[2, 4] = 4
) -> States:
    """Weights, gradients and AdamW's states of one process: of the fullest one, where they differ.

    Gradients are what is there between backward pass and optimizer step. Without ZeRO, weights are fp32, and the
    products' precision is autocast's; under ZeRO, weights and gradients are in `precision` and the optimizer steps fp32
    originals.

    Args:
        shape: says which weights train.
        method: one of METHODS.
        processes: over all machines.
        precision: of the products.
        frozen_bytes: of a number that does not train, without ZeRO.
    """
    stage = 0 if method == "none" else int(method[len("zero")])
    if stage == 0:
        return _whole(shape, processes=processes, frozen_bytes=frozen_bytes)
    size = 4 if precision == "fp32" else 2
    divide = _by_weight if stage == 3 else _by_group
    return divide(shape, processes=processes, size=size, offload=method.endswith("_offload"))


def _whole(shape: Shape, *, processes: int, frozen_bytes: int) -> States:
    stepped = [weight for weight in shape.trainable if weight.used]
    trained = _count(stepped)
    return States(
        device=Bytes(
            weights=4 * _count(shape.trainable) + frozen_bytes * (shape.count - _count(shape.trainable)),
            gradients=4 * trained,
            optimizer=8 * trained + 4 * len(stepped),  # two moments, and a step counter a weight
            buffers=4 * _count(shape.trainable) if processes > 1 else 0,  # DistributedDataParallel's buckets
        )
    )


def _by_group(shape: Shape, *, processes: int, size: int, offload: bool) -> States:
    """ZeRO-1 and -2: the flat weights of each optimizer group are padded and cut into equal parts.

    Stage 1 keeps no more gradients than stage 2: DeepSpeed 0.19 drops those of other parts once they are reduced.
    """
    groups = _groups(shape)
    padded = [_align(_count(group), _ALIGNMENT * processes) for group in groups]
    part = sum(padded) // processes
    frozen = shape.count - _count(shape.trainable)
    # A weight that two parts share has its whole gradient in both.
    kept = max(
        sum(_count(_overlapping(group, whole // processes, rank)) for group, whole in zip(groups, padded, strict=True))
        for rank in range(processes)
    )
    weights = size * (sum(padded) + frozen)
    originals = Bytes(optimizer=12 * part + 4 * len(groups))
    largest = size * max((weight.count for weight in shape.trainable), default=0)
    bucket = size * min(_BUCKET, _count(shape.trainable))
    if not offload:
        step = (4 + size) * max(padded, default=0) // processes
        return States(device=Bytes(weights=weights, gradients=size * kept, buffers=max(bucket, step)) + originals)
    return States(
        device=Bytes(weights=weights, buffers=largest + bucket),
        host=originals + Bytes(gradients=4 * part, buffers=size * part + largest),
    )


def _by_weight(shape: Shape, *, processes: int, size: int, offload: bool) -> States:
    """ZeRO-3: each weight is padded and cut into equal parts; small ones stay whole as well, once gathered."""

    def part(weights: Iterable[Weight]) -> int:
        return sum(ceil(weight.count / processes) for weight in weights)

    small = [weight for weight in shape.weights if weight.count <= 10 * shape.hidden]
    whole = Bytes(weights=size * processes * part(small))
    divided = Bytes(weights=size * part(shape.weights), gradients=size * part(shape.trainable))
    groups = len(_groups(shape))
    originals = Bytes(optimizer=12 * part(shape.trainable) + 4 * groups)
    layer = max((_count(w for w in shape.weights if w.layer == number) for number in range(shape.layers)), default=0)
    outside = max((weight.count for weight in shape.weights if weight.layer is None), default=0)
    bucket = size * min(_BUCKET, _count(shape.trainable))
    gathered = Bytes(buffers=size * max(2 * layer, outside) + bucket)  # a block, and the next one on its way
    if not offload:
        return States(device=whole + divided + originals + gathered + Bytes(buffers=4 * part(shape.trainable)))
    return States(device=whole + gathered, host=divided + originals + Bytes(gradients=4 * part(shape.trainable)))


def activations(
    shape: Shape,
    *,
    rows: int,
    tokens: int,
    method: str,
    precision: Precision,
    checkpointing: bool = False,
    dropout: float | None = None,
    cuda: bool = True,
) -> Activations:
    """The tensors that autograd saves in one forward pass, counted operation by operation.

    Attention is PyTorch's fused one, except on a CPU with dropout, where it keeps its probabilities.

    Args:
        shape: which weights train decides what must be kept.
        rows: texts, or pairs, that pass through at once.
        tokens: of each, padding counted.
        method: one of METHODS: without ZeRO, residuals stay fp32 and autocast copies weights.
        precision: of the products.
        checkpointing: only the input of each block is kept.
        dropout: probability; None: the model's own.
        cuda: on a GPU.
    """
    size = 4 if precision == "fp32" else 2
    autocast = method == "none" and precision != "fp32"
    residual = 4 if autocast else size
    drops = (shape.dropout if dropout is None else dropout) > 0
    per_token = [
        _block(
            shape,
            layer,
            tokens=tokens,
            size=size,
            residual=residual,
            autocast=autocast,
            drops=drops,
            cuda=cuda,
            starts=layer == _first(shape) and not _embeddings_train(shape),
        )
        for layer in range(shape.layers)
    ]
    active = [cost for layer, cost in enumerate(per_token) if layer >= _first(shape)]
    around = residual * shape.hidden  # the last norm's input (a BERT's first one's, and its last output)
    if shape.style == "llama":
        around += 4 * shape.hidden
    if shape.style == "bert":
        around += residual * shape.hidden + (shape.hidden * (1 if cuda else size) if drops and shape.dropout else 0)
    kept = sum(active) if not checkpointing else residual * shape.hidden * len(active)
    peak = kept + (max(active, default=0) if checkpointing else 0)
    linear = {f".{suffix}.weight" for suffixes in shape.inputs.values() for suffix in suffixes}
    copies = _count(weight for weight in shape.weights if any(weight.name.endswith(each) for each in linear))
    scale = rows * tokens
    return Activations(
        kept=scale * (kept + around), peak=scale * (peak + around), copies=size * copies if autocast else 0
    )


def _first(shape: Shape) -> int:
    """The first block that anything flows back to."""
    if _embeddings_train(shape):
        return 0
    return min((weight.layer for weight in shape.trainable if weight.layer is not None), default=shape.layers)


def _embeddings_train(shape: Shape) -> bool:
    return any(weight.trains and weight.layer is None and "embed" in weight.name for weight in shape.weights)


def _block(
    shape: Shape,
    layer: int,
    *,
    tokens: int,
    size: int,
    residual: int,
    autocast: bool,
    drops: bool,
    cuda: bool,
    starts: bool,
) -> int:
    """Bytes a token that one block keeps: inputs of what trains, and of what is not linear.

    `starts`: nothing below it trains, so its input needs no gradient.
    """
    own = [weight for weight in shape.weights if weight.layer == layer]
    takers = {
        group: sum(any(w.trains and _belongs(w, suffix) and len(w.shape) > 1 for w in own) for suffix in suffixes)
        for group, suffixes in shape.inputs.items()
    }
    # Autocast makes a copy of a fp32 input for each layer that reads it.
    copies = {group: count if autocast and shape.style != "neox" else min(count, 1) for group, count in takers.items()}
    attention = shape.heads * shape.head
    found = size * 4 * attention  # queries, keys, values, result
    if drops and shape.dropout and not cuda:
        found += (4 - size) * 3 * attention + 3 * 4 * shape.heads * tokens + 2 * size * shape.hidden
    else:
        found += size * tokens + 4 * shape.heads + (2 * shape.hidden if drops and shape.dropout else 0)
    found += size * shape.hidden * (copies["attention"] + copies["mlp"])
    found += size * shape.intermediate * copies["mlp output"]
    if shape.style == "neox":
        found += size * attention * copies["attention output"]  # a copy: its heads were apart
    if not (starts and shape.parallel and not takers["mlp"] + takers["mlp output"]):
        found += size * shape.intermediate * (3 if shape.style == "llama" else 1)  # around the activation function
    norms_train = any(weight.trains and "norm" in weight.name.lower() for weight in own)
    if shape.style == "llama":  # RMSNorm by hand: its input in fp32, and its result before the weight
        found += 2 * (4 * shape.hidden + (residual * shape.hidden if norms_train else 0) + 4)
        if shape.normed_heads:
            heads = shape.heads + shape.key_heads
            found += heads * shape.head * (4 + (size if norms_train else 0)) + 4 * heads
    else:
        found += residual * shape.hidden * (1 if shape.parallel else 2) + 4 * residual
    return found + size * sum(weight.shape[0] for weight in own if weight.name.endswith("lora_A.default.weight"))


def _belongs(weight: Weight, suffix: str) -> bool:
    return f".{suffix}." in weight.name


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
    shape: Shape, acts: Activations, *, method: str, processes: int, processes_per_node: int, precision: Precision
) -> Need:
    """What a method needs of one GPU, and of one machine for all its processes."""
    states = model_states(shape, method=method, processes=processes, precision=precision)
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


def _count(weights: Iterable[Weight]) -> int:
    return sum(weight.count for weight in weights)
