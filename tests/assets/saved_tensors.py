"""What autograd keeps of a forward pass."""

from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(
    model: Any, *, rows: int, tokens: int, autocast: bool = False, checkpointing: bool = False
) -> tuple[int, int]:
    """Bytes of the tensors that one forward pass saves: activations, and copies of weights in another precision."""
    own = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    shapes = {tuple(weight.shape) for weight in model.parameters() if weight.dim() > 1}
    shapes |= {shape[::-1] for shape in shapes}
    found: dict[int, tuple[int, bool]] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tuple(tensor.shape) in shapes)
            alive.append(storage)
        return tensor

    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    ids = torch.randint(5, 100, (rows, tokens))
    mask = torch.ones_like(ids)
    mask[0, -tokens // 4 :] = 0
    precision = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    with saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        model(input_ids=ids, attention_mask=mask)
    return tuple(sum(size for size, copy in found.values() if copy == wanted) for wanted in (False, True))  # type: ignore[return-value]
