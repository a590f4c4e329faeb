"""What a setting of `deepspeed` says: one of nearer's methods, or a user's own file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nearer.errors import InputError
from nearer.train.shape import Precision

_OURS: Final = {
    "optimizer": "learning_rate, weight_decay",
    "scheduler": "warmup_share",
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size, chunk_size",
    "gradient_accumulation_steps": "chunk_size",
    "gradient_clipping": "max_grad_norm",
    "fp16": "precision",
    "amp": "precision",
    "tensor_parallel": "nothing: a model is divided by ZeRO alone",
}
_BF16_STATES: Final = ("bf16_master_weights_and_grads", "bf16_optimizer_states")


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a model's states are divided.

    Args:
        method: one of `memory.METHODS`: for a file, the one that it is a variant of.
        state_bytes: of a number of the weights that the optimizer steps, and of its moments.
    """

    method: str
    state_bytes: Literal[2, 4] = 4


def division_of(setting: str) -> Division | None:
    """What a setting of `deepspeed` comes to; None for `auto`, which depends on the machine.

    Raises:
        InputError: it names a file that is no settings of DeepSpeed, or says what nearer says itself.
    """
    if setting == "auto":
        return None
    if not setting.endswith(".json"):
        return Division(method=setting)
    own = read_settings(Path(setting))
    zero = own["zero_optimization"]
    offload = any(zero.get(part, {}).get("device") == "cpu" for part in ("offload_optimizer", "offload_param"))
    return Division(
        method=f"zero{zero['stage']}{'_offload' if offload else ''}", state_bytes=2 if has_bf16_states(own) else 4
    )


def has_bf16_states(own: dict[str, Any]) -> bool:
    """Whether the optimizer steps bf16 weights, with moments in bf16."""
    return bool(own.get("bf16", {}).get(_BF16_STATES[0]))


def require_bf16(precision: Precision, *, where: str) -> None:
    """States in bf16 are those of a model that computes in bf16.

    Raises:
        InputError: it computes in another precision.
    """
    if precision != "bf16":
        raise InputError(
            f"the optimizer's states in bf16, and precision {precision}",
            where=where,
            rule="states in bf16 are those of a model that computes in bf16",
            way_out='precision: bf16; or leave "bf16" out',
        )


def read_settings(path: Path) -> dict[str, Any]:
    """A user's own settings of DeepSpeed, without what is `auto` and nearer's to say.

    Raises:
        InputError: these are none, or they say what nearer says itself, or what its checkpoints cannot hold.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read DeepSpeed's settings: {error}", where=str(path), rule="a JSON file") from error
    zero = found.get("zero_optimization") if isinstance(found, dict) else None
    if not isinstance(zero, dict) or zero.get("stage") not in {1, 2, 3}:
        raise InputError(
            "these are no settings of DeepSpeed ZeRO",
            where=str(path),
            rule='{"zero_optimization": {"stage": 1, 2 or 3, …}, …}',
        )
    if twice := [key for key in _OURS if found.get(key, "auto") != "auto"]:
        raise InputError(
            f"DeepSpeed's settings say what nearer's say: {', '.join(twice)}",
            where=str(path),
            rule="one place for each: " + "; ".join(f"{key}: {_OURS[key]}" for key in twice),
            way_out="remove these keys from the file",
        )
    for part in ("offload_optimizer", "offload_param"):
        if zero.get(part, {}).get("device", "none") not in {"none", "cpu"}:
            raise InputError(
                f"{part} to {zero[part]['device']!r}",
                where=str(path),
                rule="`cpu`: checkpoints of states on disk are not tried",
                way_out=f'"{part}": {{"device": "cpu"}}',
            )
    own = {key: value for key, value in found.items() if key not in _OURS and value != "auto"}
    _check_bf16(own, path)
    return own


def _check_bf16(own: dict[str, Any], path: Path) -> None:
    asked = own.get("bf16", {})
    both = f'"bf16": {{"{_BF16_STATES[0]}": true, "{_BF16_STATES[1]}": true}}'
    if not isinstance(asked, dict) or asked.keys() - set(_BF16_STATES):
        raise InputError(
            "DeepSpeed's settings say what nearer's say: bf16",
            where=str(path),
            rule="one place for it: precision; here only whether the optimizer's states are in bf16",
            way_out=f"precision: bf16; and nothing here, or {both}",
        )
    if len({bool(asked.get(key)) for key in _BF16_STATES}) > 1:
        raise InputError(
            "only one of weights and moments in bf16",
            where=str(path),
            rule="both or none: half of it needs an optimizer of DeepSpeed's own",
            way_out=both,
        )
    if has_bf16_states(own) and own["zero_optimization"].get("offload_optimizer", {}).get("device") == "cpu":
        raise InputError(
            "the optimizer's states in bf16 and offload_optimizer",
            where=str(path),
            rule="one of the two: offloaded, they need an optimizer of DeepSpeed's own",
            way_out='leave "bf16" out, or "offload_optimizer"',
        )
