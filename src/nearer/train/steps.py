"""One optimizer step of a run that is more than one process, or whose batch is cut into chunks.

The batch's outputs (vectors, logits) are computed first, the loss and its gradient with respect to them next; the
model's gradient is then that of sum(output x gradient), chunk by chunk. Where a chunk's gradient needs all outputs,
they are computed twice, the first time without a graph (GradCache: Gao et al. 2021, sec. 3.2). Each chunk is a backward
pass of its own, and the last one alone is an accumulation boundary: that is what ZeRO-2 and 3 ask for, which reduce a
gradient as soon as it is there and take a second one within a pass for an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from nearer.train.world import World


class GroupedLoss(Protocol):
    """A loss that says what it needs of a group of texts, and how the loss changes with it."""

    separable: ClassVar[bool]
    model: nn.Module

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """The model's outputs for one group."""

    def slopes(self, outputs: Sequence[Tensor], labels: Any, *, world: World) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient with respect to the outputs of all groups, one after the other."""


def grouped_step(trainer: Any, loss: GroupedLoss, *, world: World, chunked: bool) -> Callable[..., Tensor]:
    """What takes the place of the trainer's `training_step`.

    Args:
        trainer: a sentence-transformers trainer whose model is wrapped already when the step is called.
        loss: of the model.
        world: all processes.
        chunked: each group passes through the model alone, and its activations are given up before the next.
    """

    def step(model: nn.Module, inputs: dict[str, Any], _items: Any = None) -> Tensor:
        model.train()
        loss.model = model
        features, labels = trainer.collect_features(trainer._prepare_inputs(inputs))  # noqa: SLF001 - what it overrides calls it
        with trainer.compute_loss_context_manager():
            if not chunked or len(features) == 1:
                return _at_once(trainer, loss, features, labels, world=world)
            if loss.separable:
                return _one_by_one(trainer, loss, features, labels, world=world)
            return _twice(trainer, loss, features, labels, world=world)

    return step


def _at_once(trainer: Any, loss: GroupedLoss, features: Sequence[Any], labels: Any, *, world: World) -> Tensor:
    outputs = [loss.outputs(group) for group in features]
    value, slope = loss.slopes([output.detach() for output in outputs], labels, world=world)
    _backward(trainer, torch.cat(outputs), slope, world=world)
    return value


def _one_by_one(trainer: Any, loss: GroupedLoss, features: Sequence[Any], labels: Any, *, world: World) -> Tensor:
    values, start = [], 0
    for number, group in enumerate(features):
        with _part(trainer, last=number == len(features) - 1):
            output = loss.outputs(group)
            value, slope = loss.slopes([output.detach()], labels[start : start + len(output)], world=world)
            start += len(output)
            values.append(value)
            _backward(trainer, output, slope, world=world)
    return torch.stack(values).sum()


def _twice(trainer: Any, loss: GroupedLoss, features: Sequence[Any], labels: Any, *, world: World) -> Tensor:
    outputs, dice = [], []
    with torch.no_grad():
        for group in features:
            dice.append(_dice(trainer.args.device))
            outputs.append(loss.outputs(group))
    value, slope = loss.slopes(outputs, labels, world=world)
    slopes = torch.split(slope, [len(output) for output in outputs])
    del outputs
    for number, group in enumerate(features):
        with _part(trainer, last=number == len(features) - 1):
            _throw(trainer.args.device, dice[number])  # the same dropout as the first time
            _backward(trainer, loss.outputs(group), slopes[number], world=world)
    return value


def _backward(trainer: Any, output: Tensor, slope: Tensor, *, world: World) -> None:
    more = {"scale_wrt_gas": False} if trainer.is_deepspeed_enabled else {}
    # Gradients are averaged over the processes, and are to be summed.
    trainer.accelerator.backward((output * slope).sum() * world.size, **more)


@contextmanager
def _part(trainer: Any, *, last: bool) -> Iterator[None]:
    """One backward pass of several: the gradients are exchanged, and the optimizer may step, after the last one."""
    accelerator = trainer.accelerator
    accelerator.gradient_state._set_sync_gradients(last)  # noqa: SLF001 - transformers' trainer does the same
    wait = nullcontext() if last or trainer.is_deepspeed_enabled else accelerator.no_sync(trainer.model_wrapped)
    with wait:
        yield


def _dice(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _throw(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
