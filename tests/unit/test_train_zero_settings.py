"""A user's own settings of DeepSpeed: what they come to, and what of them is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from nearer.errors import InputError
from nearer.train.zero_settings import Division, division_of, read_settings, require_bf16

BOTH = {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
CPU = {"device": "cpu"}


def write(directory: Path, **settings: Any) -> str:
    path = directory / "zero.json"
    path.write_text(json.dumps(settings))
    return str(path)


@pytest.mark.parametrize(
    ("zero", "more", "expected"),
    [
        ({"stage": 2}, {}, Division(method="zero2")),
        ({"stage": 1, "offload_optimizer": CPU}, {}, Division(method="zero1_offload")),
        (
            {"stage": 3, "offload_optimizer": {"device": "none"}, "offload_param": CPU},
            {},
            Division(method="zero3_offload"),
        ),
        ({"stage": 2}, {"bf16": BOTH, "optimizer": "auto"}, Division(method="zero2", state_bytes=2)),
        ({"stage": 3}, {"bf16": "auto"}, Division(method="zero3")),
    ],
)
def test_a_file_is_a_variant_of_a_method(
    tmp_path: Path, zero: dict[str, Any], more: dict[str, Any], expected: Division
) -> None:
    """Stage, offload and the states' precision are read from it, so that its memory can be planned."""
    assert division_of(write(tmp_path, zero_optimization=zero, **more)) == expected


def test_a_method_is_itself_and_auto_is_open() -> None:
    """`auto` depends on the machine."""
    assert division_of("zero1_offload") == Division(method="zero1_offload")
    assert division_of("auto") is None


def test_what_is_left_to_nearer_is_not_handed_on(tmp_path: Path) -> None:
    """`auto`, as transformers has it, means that nearer says it."""
    path = write(
        tmp_path, zero_optimization={"stage": 2}, train_batch_size="auto", bf16="auto", wall_clock_breakdown=True
    )
    assert read_settings(Path(path)) == {"zero_optimization": {"stage": 2}, "wall_clock_breakdown": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no settings of DeepSpeed ZeRO"),
        ({"zero_optimization": {"stage": 0}}, "stage"),
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Adam"}}, "learning_rate, weight_decay"),
        ({"zero_optimization": {"stage": 2}, "fp16": {"enabled": True}}, "precision"),
        ({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, "precision: bf16"),
        ({"zero_optimization": {"stage": 2}, "bf16": True}, "precision: bf16"),
        ({"zero_optimization": {"stage": 2}, "bf16": {"bf16_optimizer_states": True}}, "both or none"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": CPU}, "bf16": BOTH}, "offload_optimizer"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "nvme"),
    ],
)
def test_what_does_not_go_is_refused_with_the_way_out(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    """And with the file's name."""
    path = write(tmp_path, **settings)
    with pytest.raises(InputError) as raised:
        division_of(path)
    assert said in str(raised.value)
    assert path in str(raised.value)


def test_states_in_bf16_want_products_in_bf16() -> None:
    """A model that computes in fp32 has fp32 weights."""
    require_bf16("bf16", where="zero.json")
    with pytest.raises(InputError, match="precision: bf16"):
        require_bf16("fp32", where="zero.json")
