"""Which weights train, and with how much dropout."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nearer.errors import InputError

_DROPOUT_ATTRIBUTES = ("dropout", "attention_dropout", "dropout_prob", "hidden_dropout")


def freeze(model: Any, *, embeddings: bool, layers: int) -> None:
    """Keep the embeddings and the first layers of an encoder as they are.

    When everything below a layer is frozen, no gradient is computed and no activation kept down there.

    Raises:
        InputError: as many layers, or more, than the model has.
    """
    base = model.transformers_model.base_model
    stack = _layers(base)
    if layers and layers >= len(stack):
        raise InputError(
            f"{layers} layers would be frozen",
            where="freeze.layers",
            rule=f"fewer than the model's {len(stack)} layers",
            way_out=f"at most {len(stack) - 1}",
        )
    if embeddings:
        below = getattr(base, "embeddings", None)
        part = below if isinstance(below, nn.Module) else base.get_input_embeddings()
        part.requires_grad_(False)
    for layer in stack[:layers]:
        layer.requires_grad_(False)


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout of the model this probability; what the config says, and is saved, stays."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
            continue
        for name in _DROPOUT_ATTRIBUTES:  # attention implementations take the number and not a module
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)


def freeze_unreached(model: nn.Module, output: Tensor) -> list[str]:
    """Keep still what the output does not depend on, such as a pooler that nobody reads.

    Such a weight has no gradient: one process leaves it alone, DDP waits for it, and ZeRO decays it.

    Args:
        model: whose weights these are.
        output: of a forward pass with gradients.

    Returns:
        Names of the weights that train no more.
    """
    reached, seen, queue = set(), set(), [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            reached.add(node.variable)
        queue += [following for following, _ in node.next_functions]
    idle = [name for name, weight in model.named_parameters() if weight.requires_grad and weight not in reached]
    for name in idle:
        model.get_parameter(name).requires_grad_(False)
    return idle


def _layers(base: nn.Module) -> nn.ModuleList:
    count = getattr(base.config, "num_hidden_layers", None)
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(
        f"nearer does not know where {type(base).__name__} keeps its layers",
        where="freeze.layers",
        rule="a model whose layers stand in one list of `num_hidden_layers`",
        way_out="freeze no layers",
    )
