"""LoRA (Hu et al. 2021): small matrices train beside a model's weights, and become part of them at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nearer.errors import InputError

_DIRECTORY = "adapter"


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The adapters of one model, by PEFT."""

    tuner: Any
    config: Any

    def merge(self, directory: Path | None = None) -> None:
        """Make the adapters part of the weights; the model is a plain one again.

        Args:
            directory: where the adapters are kept beside, as `adapter/`, which `PeftModel.from_pretrained` reads.
        """
        if directory is not None:
            self._save(directory / _DIRECTORY)
        self.tuner.merge_and_unload(safe_merge=True)

    def _save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True)
        weights = {
            f"base_model.model.{name.replace('.default.', '.')}": weight.detach().cpu().contiguous()
            for name, weight in self.tuner.model.named_parameters()
            if "lora_" in name
        }
        save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        self.config.save_pretrained(str(directory))


def add_adapters(model: Any, *, rank: int, alpha: float, targets: Sequence[str] | None, base: str) -> Adapters:
    """Give a model adapters, in place; they and a fresh head alone train.

    Args:
        model: a SentenceTransformer or CrossEncoder.
        rank: of each adapter.
        alpha: scale; the update is multiplied by alpha / rank.
        targets: names of the layers that get one; None: what PEFT names for the architecture.
        base: name of the base model, for the adapter's config.

    Raises:
        InputError: PEFT is not installed, knows no targets for this architecture, or the model has none of them.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise InputError(
            f"PEFT cannot be used: {error}",
            where="lora",
            rule="the package `peft` is installed",
            way_out="pip install 'nearer[lora]'; or lora: null",
        ) from error
    transformer = model.transformers_model
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets) if targets else None,
        base_model_name_or_path=base,
    )
    try:
        tuner = LoraModel(transformer, {"default": config}, "default")
    except ValueError as error:
        layers = sorted({name.rpartition(".")[2] for name, part in transformer.named_modules() if _is_layer(part)})
        raise InputError(
            f"no adapters for {transformer.config.model_type!r}: {str(error).splitlines()[0]}",
            where="lora.targets",
            rule=f"names of its layers: {', '.join(layers)}",
            way_out="choose some of these",
        ) from error
    body = {id(weight) for weight in transformer.base_model.parameters()}
    for weight in transformer.parameters():
        if id(weight) not in body:
            weight.requires_grad_(True)
    return Adapters(tuner=tuner, config=config)


def _is_layer(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)
