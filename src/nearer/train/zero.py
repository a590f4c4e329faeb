"""DeepSpeed ZeRO (Rajbhandari et al. 2020): which part of a model's states each process keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nearer.errors import InputError
from nearer.train.shape import Precision
from nearer.train.zero_settings import has_bf16_states, read_settings, require_bf16

_BYTES_A_WEIGHT: Final = 16
"""Weight, gradient and AdamW's two moments in fp32."""
_STATES_SHARE: Final = 0.6
"""Share of a GPU's memory that the model's states may take where activations want the rest. A guess."""


def choose_method(*, weights: int, trainable: int, processes: int, gpu_bytes: int) -> str:
    """What `auto` means for a model whose activations cannot be planned.

    Args:
        weights: how many the model has.
        trainable: how many of them train.
        processes: over all machines.
        gpu_bytes: memory of one GPU.

    Returns:
        `none` when each GPU has the room for everything, else the first stage for which it has, else offload: one
        process alone has nobody to divide with, so for it there is offload only.
    """
    room = _STATES_SHARE * gpu_bytes
    frozen = 4 * (weights - trainable)
    needs = {"none": _BYTES_A_WEIGHT * trainable}
    if processes > 1:
        needs["zero1"] = 8 * trainable + 12 * trainable // processes
        needs["zero2"] = 4 * trainable + 16 * trainable // processes
        needs["zero3"] = 20 * trainable // processes - frozen + frozen // processes
    for method, need in needs.items():
        if frozen + need <= room:
            return method
    return "zero3_offload" if processes > 1 else "zero2_offload"


def configure(
    method: str, *, precision: Precision, max_grad_norm: float, hidden: int, cuda: bool
) -> dict[str, Any] | None:
    """DeepSpeed's own settings for a method; None for `none`.

    Args:
        method: `none`, a stage, or the path of a JSON file with DeepSpeed settings, which come before ours.
        precision: of the products; the optimizer steps fp32 originals, unless a file says otherwise.
        max_grad_norm: gradients are scaled down above it.
        hidden: width of the model; smaller weights are not worth dividing.
        cuda: whether there are GPUs.

    Raises:
        InputError: DeepSpeed is not installed, the file is no settings of DeepSpeed, or says what nearer says itself.
    """
    if method == "none":
        return None
    _require_deepspeed()
    if precision == "fp16":
        raise InputError(
            "precision fp16 under DeepSpeed",
            where="precision",
            rule="bf16 or fp32: a checkpoint does not hold DeepSpeed's loss scale",
            way_out="precision: auto; or deepspeed: none",
        )
    own = read_settings(Path(method)) if method.endswith(".json") else {"zero_optimization": _stage(method, cuda=cuda)}
    if has_bf16_states(own):
        require_bf16(precision, where=method)
    zero = {
        "contiguous_gradients": True,
        "overlap_comm": cuda,
        "reduce_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 10 * hidden,  # as accelerate's `auto`
        **own["zero_optimization"],
    }
    return {
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # PyTorch's fused AdamW is vectorised on CPUs too, and needs no compiler
        "steps_per_print": 1 << 60,
        **own,
        "bf16": {**own.get("bf16", {}), "enabled": precision == "bf16"},
        "zero_optimization": zero,
        "gradient_clipping": max_grad_norm,
        "gradient_accumulation_steps": 1,
        "train_micro_batch_size_per_gpu": 1,
    }


def stage_of(configuration: dict[str, Any] | None) -> int:
    """The stage; 0 without DeepSpeed."""
    return int(configuration["zero_optimization"].get("stage", 0)) if configuration else 0


def prepare_cpu() -> None:
    """Keep DeepSpeed from compiling a shared-memory reduction for two minutes, which training never calls."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _stage(method: str, *, cuda: bool) -> dict[str, Any]:
    name, _, offload = method.partition("_")
    stage = int(name.removeprefix("zero"))
    place = {"device": "cpu", "pin_memory": cuda}
    found: dict[str, Any] = {"stage": stage}
    if offload:
        found["offload_optimizer"] = place
        if stage == 3:
            found["offload_param"] = place
    return found


def _require_deepspeed() -> None:
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"DeepSpeed cannot be used: {error}",
            where="deepspeed",
            rule="the package `deepspeed` is installed",
            way_out="pip install 'nearer[deepspeed]'; or deepspeed: none",
        ) from error
