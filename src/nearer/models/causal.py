"""Decoders as embedders: which models are causal, and how their tokenizer must be for last-token pooling.

A causal model's token sees only what stands before it, so the text is summarised by the last one. That must be the same
token for every text, hence an end-of-text token appended by the tokenizer itself (so that every reader of
`tokenizer.json` appends it too, and truncation keeps it), and padding on the right, where no real token sees it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BIDIRECTIONAL = frozenset({"xlnet", "bert-generation"})
"""Known to transformers as causal language models, and not causal unless told so."""


def is_causal(config: Any) -> bool:
    """Whether a transformers config is of a decoder: known as causal language model and not as masked one.

    Decoders that were made to see both ways say so (`use_bidirectional_attention`, `is_causal: false`).
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "use_bidirectional_attention", None) or getattr(config, "is_causal", None) is False:
        return False
    model_type = config.model_type
    not_causal = {*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *_BIDIRECTIONAL}
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in not_causal


def wants_end_token(directory: Path) -> bool:
    """Whether tokenizer_config.json asks for an end token; transformers 5 drops that beside a tokenizer.json."""
    path = directory / "tokenizer_config.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("add_eos_token") is True


def append_end_token(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Make the tokenizer append its end token to every text, unless it ends texts with a special token already.

    What it puts before a text stays. The config's end token becomes the one that is appended: forks of polyglot-ko
    disagree on it.

    Raises:
        InputError: the tokenizer has no end token, or is not a fast one.
    """
    from tokenizers import processors

    before, after = _added(tokenizer)
    if after:
        return
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        raise InputError(
            "the model's tokenizer cannot append an end-of-text token",
            rule="last-token pooling needs a fast tokenizer with an `eos_token`",
            way_out="set `eos_token` in its tokenizer_config.json, or `pooling: mean`",
        )
    end = str(tokenizer.eos_token)
    front = [str(token) for token in tokenizer.convert_ids_to_tokens(before)]
    # One template and not a sequence of two: the second would take the first one's BOS for a text of its own, and end
    # that too; and texts would be cut one token too late.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*front, "$A", end],
        pair=[*front, "$A", end, "$B:1", f"{end}:1"],
        special_tokens=[*dict(zip(front, before, strict=True)).items(), (end, tokenizer.eos_token_id)],
    )
    config.eos_token_id = tokenizer.eos_token_id


def end_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that every text ends with; None if there is none."""
    _, after = _added(tokenizer)
    return str(tokenizer.convert_ids_to_tokens(after[-1])) if after else None


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and after a text."""
    text: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(text) + 1):
        if whole[start : start + len(text)] == text:
            return whole[:start], whole[start + len(text) :]
    raise InputError(
        "the model's tokenizer changes a text when it adds special tokens",
        rule="special tokens before and after a text only",
        way_out="choose another model",
    )
