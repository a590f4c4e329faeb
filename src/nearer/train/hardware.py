"""Where and in which precision a training run computes."""

from __future__ import annotations

from typing import Literal

import torch

from nearer.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16", "fp16"], *, device: str) -> Precision:
    """The precision of matrix products; weights and optimizer stay fp32.

    `auto` is bf16 where the hardware multiplies in it: a GPU that says so, a CPU with AVX-512 BF16 or AMX. Elsewhere
    bf16 is emulated, and slower than fp32.

    Raises:
        InputError: fp16 on a CPU, which has too few products for its small range to be worth scaling losses.
    """
    if wanted == "fp16" and device == "cpu":
        raise InputError("precision fp16 on a CPU", where="precision", rule="fp16 needs a GPU", way_out="auto or fp32")
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001 - no public way
    return "bf16" if native else "fp32"
