"""Whether a checkpoint holds all the weights of its model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from nearer.errors import InputError

# Unused by pooling over tokens, and absent from checkpoints that were trained as masked language models.
_POOLER = re.compile(r"(^|\.)pooler\.")


def require_weights(
    directory: Path, *, task: Literal["feature-extraction", "sequence-classification"], new_head: bool = False
) -> None:
    """Refuse a checkpoint that leaves weights out: transformers gives those random values, and goes on.

    Costs no memory: the model is built on PyTorch's meta device. Checkpoints whose model needs code of its own, and
    adapters, are not looked at.

    Args:
        directory: of config.json and weights.
        task: of the model that will be made of it.
        new_head: weights outside the encoder may be missing.

    Raises:
        InputError: names some of the missing weights, and some that are there under other names.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    if not (directory / "config.json").is_file() or (directory / "adapter_config.json").is_file():
        return
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    auto = AutoModel if task == "feature-extraction" else AutoModelForSequenceClassification
    if type(config) not in auto._model_mapping:  # noqa: SLF001 - encoder-decoders, whose encoder alone is loaded
        return
    if task == "sequence-classification":
        config.num_labels = 1
    model, info = auto.from_pretrained(
        directory, config=config, local_files_only=True, device_map="meta", output_loading_info=True
    )
    base = f"{model.base_model_prefix}."
    missing = sorted(
        name
        for name in info["missing_keys"]
        if not _POOLER.search(name) and not (new_head and not name.startswith(base))
    )
    if missing:
        others = sorted(info["unexpected_keys"])
        raise InputError(
            f"the checkpoint lacks {len(missing)} weights of {type(model).__name__}: {_some(missing)}",
            where=str(directory),
            rule="every weight of the model" + (f"; found beside are {_some(others)}" if others else ""),
            way_out="save the model again under its own names, or choose another",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
