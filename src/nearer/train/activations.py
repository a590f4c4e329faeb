"""What a forward pass keeps for its backward pass: the tensors that autograd saves, counted operation by operation."""

from __future__ import annotations

from dataclasses import dataclass

from nearer.train.shape import Precision, Shape, Weight, count_of


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What one forward pass keeps for its backward pass, in bytes.

    `kept`: after the forward pass; `peak`: with the block that is computed again under activation checkpointing;
    `copies`: the weights in the precision of the products, which autocast keeps beside.
    """

    kept: int
    peak: int
    copies: int


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
    copies = count_of(weight for weight in shape.weights if any(weight.name.endswith(each) for each in linear))
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
