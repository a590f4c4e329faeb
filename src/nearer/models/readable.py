"""Whether a model may be read, and words for one that cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearer.errors import DoesNotFit, InputError, NearerError
from nearer.models.source import ModelSource


def refuse_remote_code(source: ModelSource, *, trust_remote_code: bool) -> None:
    """Refuse a model that only runs with Python code of its own, unless that is trusted.

    A tokenizer with code of its own (KoBERT's) counts: transformers would put one of its own in its place, which gives
    other tokens.

    Raises:
        InputError: says so.
    """
    if trust_remote_code:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = source.config()
    own = []
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        own.append(f"model type {config.get('model_type')!r}")
    with readable(source):
        own += _own_tokenizer(source.path)
        modules = source.path / "modules.json"
        if modules.is_file():
            listed = json.loads(modules.read_text(encoding="utf-8"))
            own += [entry["type"] for entry in listed if not entry["type"].startswith("sentence_transformers.")]
    if own:
        raise InputError(
            f"model {source.name!r} needs Python code of its own ({', '.join(own)})",
            where=str(source.path),
            rule="no foreign code runs unless `trust_remote_code` is true",
            way_out="read that code, then set `trust_remote_code: true` in this section, or choose another model",
        )


def _own_tokenizer(directory: Path) -> list[str]:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = config.get("tokenizer_class")
    known = name is not None and any(map(tokenizer_class_from_name, (name, name.removesuffix("Fast"))))
    if known or (directory / "tokenizer.json").is_file() or not (name or "auto_map" in config):
        return []
    return [f"tokenizer {name or config['auto_map']}"]


@contextmanager
def readable(source: ModelSource) -> Iterator[None]:
    """Turn whatever the libraries raise over a model that they cannot read into words."""
    import torch

    try:
        yield
    except NearerError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise DoesNotFit(f"no memory for model {source.name!r}", where=str(source.path)) from error
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load model {source.name!r}: {first}",
            where=str(source.path),
            rule="a sentence-transformers directory or a transformers checkpoint, with weights and tokenizer",
            way_out="fetch or save the model again, or choose another",
        ) from error
