"""Weights and optimizer states as whole tensors by parameter name, however the processes have divided them.

So a checkpoint is the same for any number of processes and any ZeRO stage: what one kind of run wrote, another reads.
Every function is called by all processes; rank 0 alone gets, and gives, the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from nearer.train.world import World

_STEP: Final = "step"


def trainable_weights(model: nn.Module, *, world: World) -> dict[str, Tensor]:
    """The weights that train, as the optimizer steps them, on the CPU, as a copy; empty on other ranks than 0."""
    found = {}
    dtype = _stepped_in(model)
    for name, weight in _trainable(model):
        whole = _full(weight)
        if world.main:
            found[name] = whole.detach().to("cpu", dtype, copy=True).contiguous()
    return found


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], *, world: World) -> None:
    """Put back what `trainable_weights` gave rank 0, into a model that is not divided yet.

    Raises:
        KeyError: these are weights of another model, or others of its weights trained.
    """
    own = dict(_trainable(model))
    if world.main and own.keys() != weights.keys():
        raise KeyError(f"{len(own.keys() ^ weights.keys())} weights do not match")
    with torch.no_grad():
        for name, weight in own.items():
            if world.main:
                weight.copy_(weights[name])
            world.spread(weight.data)


def optimizer_states(model: nn.Module, optimizer: Any, *, world: World) -> dict[str, Tensor]:
    """The optimizer's states, on the CPU: `<state> <parameter>`, and the steps it took; empty on other ranks."""
    found: dict[str, Tensor] = {}
    inner = _innermost(optimizer)
    _link(model, optimizer)
    dtype = _stepped_in(model)
    for name, weight in _trainable(model):
        for key in _keys(inner):
            if divided(weight):
                from deepspeed.utils import safe_get_full_optimizer_state

                whole = safe_get_full_optimizer_state(weight, key)
            else:
                whole = inner.state[weight][key]
            if world.main:
                found[f"{key} {name}"] = whole.detach().to("cpu", dtype, copy=True).contiguous()
    steps = [state[_STEP] for state in inner.state.values() if _STEP in state]
    return {**found, _STEP: torch.as_tensor(steps[0]).cpu().clone()} if world.main and steps else found


def put_optimizer_states(model: nn.Module, optimizer: Any, states: Mapping[str, Tensor], *, world: World) -> None:
    """Put back what `optimizer_states` gave rank 0, into an optimizer that has not stepped yet."""
    names = world.share([(name, tuple(tensor.shape)) for name, tensor in states.items()])
    keys = sorted({name.partition(" ")[0] for name, _ in names if " " in name})
    step = world.share(states.get(_STEP))
    if not keys or step is None:
        return
    inner = _innermost(optimizer)
    weights = dict(_trainable(model))
    zero = any(map(divided, weights.values()))
    for place in _flat(optimizer) if zero else weights.values():
        # Fused AdamW keeps its count beside the weights; a parameter must not share its count with another.
        count = step.clone().to(place.device if inner.defaults.get("fused") else "cpu")
        inner.state[place] = {_STEP: count, **{key: torch.zeros_like(place) for key in keys}}
    _link(model, optimizer)
    for name, weight in weights.items():
        for key in keys:
            shape = weight.ds_shape if hasattr(weight, "ds_shape") else weight.shape
            whole = torch.empty(shape, dtype=torch.float32, device=_meeting_place(weight))
            if world.main:
                whole.copy_(states[f"{key} {name}"])
            world.spread(whole)
            if zero:
                from deepspeed.utils import safe_set_full_optimizer_state

                safe_set_full_optimizer_state(weight, whole, key)
            else:
                inner.state[weight][key].copy_(whole)


def put_masters(model: nn.Module, weights: Mapping[str, Tensor], *, world: World) -> None:
    """Give a divided model whose weights compute in bf16 the fp32 weights that its optimizer steps from."""
    from deepspeed.utils import safe_set_full_fp32_param

    for name, weight in _trainable(model):
        shape = weight.ds_shape if hasattr(weight, "ds_shape") else weight.shape
        whole = torch.empty(shape, dtype=torch.float32, device=_meeting_place(weight))
        if world.main:
            whole.copy_(weights[name])
        world.spread(whole)
        safe_set_full_fp32_param(weight, whole)


def divided(weight: nn.Parameter) -> bool:
    """Whether DeepSpeed keeps a weight's fp32 original, or its optimizer states, in parts."""
    return hasattr(weight, "ds_id") or hasattr(weight, "_hp_mapping")


def _link(model: nn.Module, optimizer: Any) -> None:
    """Let stages 1 and 2 know where each weight's states are.

    DeepSpeed 0.19 does so once, after the first step of the first group of parameters: those of the second have no
    states then.
    """
    if any(divided(weight) for weight in model.parameters()):
        zero = _zero(optimizer)
        if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
            zero._hp_optimizer_states_linked = False  # noqa: SLF001 - no public name
            zero._lazy_init_hp_params_optimizer_state()  # noqa: SLF001 - likewise


def _stepped_in(model: nn.Module) -> torch.dtype:
    """Type of the weights that the optimizer steps, and of its moments: fp32, unless DeepSpeed was told otherwise."""
    for _, weight in _trainable(model):
        if hasattr(weight, "ds_id"):
            zero: Any = weight._z3_optimizer  # type: ignore[attr-defined]  # noqa: SLF001 - no public name
            return cast("torch.dtype", zero.master_weights_and_grads_dtype)
        if part := getattr(weight, "_hp_mapping", None):  # None where this process has nothing of the weight
            return cast("torch.dtype", part.hp_fragment.dtype)
    return torch.float32


def _full(weight: nn.Parameter) -> Tensor:
    if not divided(weight):
        return weight.float()
    from deepspeed.utils import safe_get_full_fp32_param

    whole: Tensor = safe_get_full_fp32_param(weight)
    return whole


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def _zero(optimizer: Any) -> Any:
    """DeepSpeed's optimizer inside accelerate's wrapper."""
    return optimizer.optimizer


def _innermost(optimizer: Any) -> torch.optim.Optimizer:
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _keys(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the states that have the shape of their parameter."""
    for place, state in optimizer.state.items():
        return sorted(key for key, value in state.items() if getattr(value, "shape", None) == place.shape)
    return []


def _flat(optimizer: Any) -> list[Tensor]:
    """The parameters that the optimizer inside ZeRO steps: a process's parts of the weights, laid end to end."""
    zero = _zero(optimizer)
    found = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_partitioned_groups_flat
    return list(found)


def _meeting_place(weight: nn.Parameter) -> torch.device:
    """A device on which the processes can exchange a tensor, even where the weights are in the host's memory."""
    if not divided(weight):
        return weight.device
    from deepspeed.accelerator import get_accelerator

    return torch.device(get_accelerator().current_device_name())
