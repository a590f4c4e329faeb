"""The numbers that a model computes in when it encodes or scores; training has a choice of its own."""

from __future__ import annotations

from typing import Any, Literal

from nearer.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
WantedPrecision = Literal["auto", "fp32", "bf16", "fp16"]


def choose(wanted: WantedPrecision, *, device: str) -> Precision:
    """What `auto` is on a device: bf16 on a GPU that multiplies in it, else fp32.

    A CPU stays in fp32 also where it has bf16: figures and vectors are then the same on every machine without a GPU.

    Args:
        wanted: as the settings have it.
        device: `cpu`, or a GPU's name in PyTorch.

    Raises:
        InputError: fp16 on a CPU.
    """
    import torch

    on_gpu = device.startswith("cuda")
    if wanted == "fp16" and not on_gpu:
        raise InputError("precision fp16 on a CPU", where="precision", rule="fp16 needs a GPU", way_out="auto or fp32")
    if wanted != "auto":
        return wanted
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def compute_in(model: Any, precision: Precision) -> None:
    """Let the transformer of a SentenceTransformer or CrossEncoder compute in fewer bits, for good.

    Pooling, further layers and a reranker's last product stay in fp32: a score in bf16 has 8 bits, and a list of
    candidates has more different ones. So do buffers: angles of rotary positions would be wrong by whole turns.

    Args:
        model: in fp32.
        precision: `fp32` leaves it as it is.
    """
    import torch

    if precision == "fp32":
        return
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    transformer = model.transformers_model
    heads = [layer for layer in transformer.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == 1]
    kept = {id(weight) for weight in (heads[-1].parameters() if heads else ())}
    for weight in transformer.parameters():
        if id(weight) not in kept:
            weight.data = weight.data.to(dtype)
    if heads:
        heads[-1].register_forward_pre_hook(lambda _layer, inputs: tuple(one.float() for one in inputs))
    model[0].register_forward_hook(_in_full)


def _in_full(_module: Any, _inputs: Any, features: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in features.items()
    }
