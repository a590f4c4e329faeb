"""Decoders as embedders: which models are causal, and how their tokenizer must be for last-token pooling.

A causal model's token sees only what stands before it, so the text is summarised by the last one. That must be the same
token for every text, hence an end-of-text token appended by the tokenizer itself (so that every reader of
`tokenizer.json` appends it too, and truncation keeps it), and padding on the right, where no real token sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearer.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def is_causal(config: Any) -> bool:
    """Whether a transformers config is of a decoder: known as causal language model and not as masked one."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    model_type = config.model_type
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def make_padding_explicit(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Give a tokenizer without pad token one: its own end token, which the attention mask hides.

    Raises:
        InputError: there is neither a pad nor an end token.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                "the model's tokenizer has neither a pad nor an end-of-text token",
                rule="batches of unequal texts need padding",
                way_out="set `pad_token` in its tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    config.pad_token_id = tokenizer.pad_token_id


def append_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the tokenizer append its end token to every text, unless it does so already.

    Raises:
        InputError: the tokenizer has no end token, or is not a fast one.
    """
    from tokenizers import processors

    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        raise InputError(
            "the model's tokenizer cannot append an end-of-text token",
            rule="last-token pooling needs a fast tokenizer with an `eos_token`",
            way_out="set `eos_token` in its tokenizer_config.json, or `pooling: mean`",
        )
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        return
    end = str(tokenizer.eos_token)
    template = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    backend = tokenizer.backend_tokenizer
    before = backend.post_processor
    backend.post_processor = template if before is None else processors.Sequence([before, template])
