"""The contract of a model that carries none, derived from what the model says of itself."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearer.models.contract import Contract
from nearer.models.source import ModelSource
from nearer.store.manifest import file_sha256

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

# Families whose configs name no prompts, known by their names; (query, passage) as their model cards say.
_FAMILIES = (
    # intfloat/e5-*-instruct: queries alone, with the task of their card's example, which is retrieval.
    (
        re.compile(r"(^|[/_-])e5([-_./].*)?instruct", re.IGNORECASE),
        ("Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ", ""),
    ),
    # intfloat/e5-* and multilingual-e5-*
    (re.compile(r"(^|[/_-])e5([-_./]|$)", re.IGNORECASE), ("query: ", "passage: ")),
    # BAAI/bge-*-en and -zh, with and without v1.5; bge-m3 and its Korean descendants have none.
    (
        re.compile(r"(^|[/_-])bge-(small|base|large)-en", re.IGNORECASE),
        ("Represent this sentence for searching relevant passages: ", ""),
    ),
    (re.compile(r"(^|[/_-])bge-(small|base|large)-zh", re.IGNORECASE), ("为这个句子生成表示以用于检索相关文章：", "")),
)
_ENDLESS = 1 << 20  # transformers' "no maximum" is 1e30


def derive_embedder_contract(source: ModelSource, model: SentenceTransformer) -> Contract:
    """The contract of an embedder that carries none: what its modules, prompts, tokenizer and name say."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    normalised = any(isinstance(module, Normalize) for module in model)
    query_prefix, passage_prefix = _prefixes(source, model)
    longest = model.max_seq_length if (model.max_seq_length or _ENDLESS) < _ENDLESS else None
    return Contract(
        **_identity(source, model.tokenizer),
        kind="embedder",
        pooling=pooling_of(model),  # type: ignore[arg-type]
        normalize=normalised,
        similarity="dot" if model.similarity_fn_name == "dot" and not normalised else "cosine",
        dimension=model.get_embedding_dimension(),
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        max_query_tokens=longest,
        max_passage_tokens=longest,
    )


def derive_reranker_contract(source: ModelSource, model: CrossEncoder) -> Contract:
    """The contract of a reranker that carries none."""
    longest = model.max_seq_length if (model.max_seq_length or _ENDLESS) < _ENDLESS else None
    return Contract(**_identity(source, model.tokenizer), kind="reranker", max_pair_tokens=longest)


def weights_sha256(directory: Path) -> str:
    """One sha256 of all weights of a model directory: names and contents, safetensors before pickled ones."""
    for pattern in ("*.safetensors", "*.bin"):
        files = sorted(file for file in directory.rglob(pattern) if file.is_file())
        if files:
            listing = [(str(file.relative_to(directory)), file_sha256(file)) for file in files]
            return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    return ""


def tokenizer_sha256(tokenizer: Any) -> str:
    """The sha256 of a tokenizer's definition, without padding and truncation, which belong to a call."""
    if tokenizer.is_fast:
        definition = json.loads(tokenizer.backend_tokenizer.to_str())
        definition.update(padding=None, truncation=None)
    else:
        definition = dict(sorted(tokenizer.get_vocab().items()))
    canonical = json.dumps(definition, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def pooling_module(model: SentenceTransformer) -> Any:
    """The module that makes one vector of many; None in a model that has none."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    return next((module for module in model if isinstance(module, Pooling)), None)


def pooling_of(model: SentenceTransformer) -> str | None:
    """Its mode; None where there is none, or several are put together."""
    module = pooling_module(model)
    return module.pooling_mode if module is not None and isinstance(module.pooling_mode, str) else None


def _identity(source: ModelSource, tokenizer: Any) -> dict[str, Any]:
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    special = {str(getattr(tokenizer, name)): getattr(tokenizer, f"{name}_id") for name in names}
    return {
        "base_model": source.name,
        "base_revision": source.revision,
        "weights_sha256": weights_sha256(source.path),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "special_tokens": {token: number for token, number in special.items() if number is not None},
        "padding_side": tokenizer.padding_side,
    }


def _prefixes(source: ModelSource, model: SentenceTransformer) -> tuple[str, str]:
    prompts = model.prompts or {}
    query = prompts.get("query") or ""
    passage = prompts.get("document") or prompts.get("passage") or ""
    if not query and not passage:
        names = (source.name, str(source.config().get("_name_or_path") or ""))
        for pattern, prefixes in _FAMILIES:
            if any(pattern.search(name) for name in names):
                return prefixes
    return query, passage
