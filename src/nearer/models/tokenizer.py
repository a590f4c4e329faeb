"""What a checkpoint's tokenizer must be before anything is encoded with it, and what is put right in it.

Raises InputError where a model and its tokenizer do not belong together: each of these cases otherwise ends in vectors
that mean nothing, or in an IndexError in the middle of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def require_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Refuse a model without one: transformers 5 makes an empty tokenizer of nothing, and every text is unknown.

    Raises:
        InputError: names the files that are missing.
    """
    names = {*getattr(tokenizer, "vocab_files_names", {}).values(), "tokenizer.json"}
    if not any(found.is_file() for name in names for found in directory.rglob(name)):
        raise InputError(
            "the model has no tokenizer",
            where=str(directory),
            rule=f"one of {', '.join(sorted(names))}",
            way_out="save the base model's tokenizer into the same directory",
        )


def follow_tokenizer_json(tokenizer: Any, directory: Path) -> None:
    """Do what tokenizer.json says: transformers 5 rebuilds some classes from their vocabulary and drops the rest."""
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    if not tokenizer.is_fast or not path.is_file():
        return
    written = Tokenizer.from_file(str(path))
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if str(getattr(tokenizer.backend_tokenizer, part)) != str(getattr(written, part)):
            setattr(tokenizer.backend_tokenizer, part, getattr(written, part))


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


def drop_single_token_type(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Ask for no token types where the model knows one only, as klue/roberta: BertTokenizer marks the passage with 1.

    The model would look up a row that is not there.
    """
    if getattr(config, "type_vocab_size", 2) <= 1 and "token_type_ids" in tokenizer.model_input_names:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]


def require_rows(tokenizer: PreTrainedTokenizerBase, *, rows: int) -> None:
    """Refuse special tokens for which the embedding has no row, as a pad token that a fork added to the tokenizer only.

    Raises:
        InputError: names them.
    """
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    beyond = [f"{token} ({number})" for token, number in ids.items() if number >= rows]
    if beyond:
        raise InputError(
            f"the model has no embedding for {', '.join(beyond)}",
            where="tokenizer_config.json",
            rule=f"special tokens below {rows}, the rows of the embedding",
            way_out="use the tokenizer that the weights were trained with, or resize_token_embeddings",
        )
