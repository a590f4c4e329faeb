"""Models to disk, in the form that the widest range of readers understands.

sentence-transformers 6 and transformers 5 write names that older releases, TEI and vLLM do not know (pooling modes,
module paths, tokenizer classes, `special_tokens_map.json`); what is written here loads in both.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearer.models.contract import Contract
from nearer.models.derive import tokenizer_sha256, weights_sha256
from nearer.models.encode import Embedder
from nearer.models.score import Reranker

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_OLD_MODULES = {
    "sentence_transformers.base.modules.transformer.Transformer": "sentence_transformers.models.Transformer",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling": "sentence_transformers.models.Pooling",
    "sentence_transformers.base.modules.normalize.Normalize": "sentence_transformers.models.Normalize",
    "sentence_transformers.base.modules.dense.Dense": "sentence_transformers.models.Dense",
}


def save_embedder(embedder: Embedder, directory: Path) -> Contract:
    """Write an embedder so that plain `SentenceTransformer(directory)` gives the same vectors, old releases included.

    Returns:
        The contract as written: with the sha256 of the weights and the tokenizer that were saved.
    """
    _prepare(embedder.model.tokenizer)
    embedder.model.save(str(directory), create_model_card=False)
    modules = _read(directory / "modules.json")
    for entry in modules:
        entry["type"] = _OLD_MODULES.get(entry["type"], entry["type"])
        if entry["type"].endswith(".Pooling"):
            _write_old_pooling(directory / entry["path"] / "config.json")
        elif entry["type"].endswith(".Normalize"):
            # Old releases' Normalize takes no arguments; without a file both use the defaults.
            (directory / entry["path"] / "config.json").unlink(missing_ok=True)
    _write(directory / "modules.json", modules)
    settings = {"max_seq_length": embedder.model.max_seq_length, "do_lower_case": False}
    _write(directory / "sentence_bert_config.json", settings)
    _write_old_tokenizer(embedder.model.tokenizer, directory)
    _write_old_config(directory / "config.json")
    return _write_contract(embedder.contract, directory, embedder.model.tokenizer)


def save_reranker(reranker: Reranker, directory: Path) -> Contract:
    """Write a reranker as a plain sequence-classification checkpoint: `CrossEncoder(directory)` gives raw logits.

    Returns:
        The contract as written: with the sha256 of the weights and the tokenizer that were saved.
    """
    reranker.model.transformers_model.save_pretrained(directory)
    save_reranker_config(reranker, directory)
    return _write_contract(reranker.contract, directory, reranker.model.tokenizer)


def save_reranker_config(reranker: Reranker, directory: Path) -> None:
    """Write a reranker's config and tokenizer alone: what must stand beside its weights in whatever format they are."""
    identity = "torch.nn.modules.linear.Identity"
    _prepare(reranker.model.tokenizer)
    transformer = reranker.model.transformers_model
    # The first name is read by sentence-transformers from 4.0 on, the second by older ones.
    transformer.config.sentence_transformers = {"activation_fn": identity}
    transformer.config.sbert_ce_default_activation_function = identity
    transformer.config.architectures = [type(transformer).__name__]
    transformer.config.save_pretrained(directory)
    reranker.model.tokenizer.save_pretrained(directory)
    _write_old_tokenizer(reranker.model.tokenizer, directory)
    _write_old_config(directory / "config.json")


def _prepare(tokenizer: Any) -> None:
    if tokenizer.is_fast:  # what the last call cut and padded to would be written into tokenizer.json
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()


def _write_contract(contract: Contract, directory: Path, tokenizer: Any) -> Contract:
    weights = weights_sha256(directory)
    written = replace(contract, weights_sha256=weights, tokenizer_sha256=tokenizer_sha256(tokenizer))
    written.save(directory)
    return written


def _write_old_pooling(path: Path) -> None:
    config = _read(path)
    mode = config["pooling_mode"]
    modes = {mode} if isinstance(mode, str) else set(mode)
    old = {"word_embedding_dimension": config.pop("embedding_dimension")}
    old |= {flag: name in modes for name, flag in _POOLING_FLAGS.items()}
    old["include_prompt"] = config["include_prompt"]
    if isinstance(mode, str):
        old["pooling_mode"] = mode
    _write(path, old)


def _write_old_tokenizer(tokenizer: Any, directory: Path) -> None:
    if not tokenizer.is_fast:
        return
    _write_old_merges(directory / "tokenizer.json")
    path = directory / "tokenizer_config.json"
    config = _read(path)
    for name in ("backend", "is_local", "local_files_only"):
        config.pop(name, None)
    # Under this class every release reads tokenizer.json as it stands; the model's own classes rebuild it in version 5,
    # and `TokenizersBackend` is unknown before.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_input_names"] = list(tokenizer.model_input_names)
    extra = config.pop("extra_special_tokens", None)
    if isinstance(extra, list):  # version 4 expects a mapping under this name
        config["additional_special_tokens"] = extra
    elif extra:
        config["extra_special_tokens"] = extra
    special = {name: str(getattr(tokenizer, name)) for name in _SPECIAL if getattr(tokenizer, name) is not None}
    _write(path, {**config, **special})
    if isinstance(extra, list) and extra:
        _write(directory / "special_tokens_map.json", {**special, "additional_special_tokens": extra})
    else:
        _write(directory / "special_tokens_map.json", special)


def _write_old_merges(path: Path) -> None:
    """BPE merges as `a b`: tokenizers before 0.20 reads nothing else, later ones read both."""
    definition = _read(path)
    merges = definition["model"].get("merges")
    pairs = isinstance(merges, list) and all(isinstance(merge, list) for merge in merges)
    if pairs and not any(" " in part for merge in merges for part in merge):
        definition["model"]["merges"] = [" ".join(merge) for merge in merges]
        _write(path, definition)


def _write_old_config(path: Path) -> None:
    config = _read(path)
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    config |= _old_rope(config)
    config.pop("_name_or_path", None)
    _write(path, config)


def _old_rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions under the names of version 4, which otherwise takes its class's defaults: wrong, and silent."""
    rope = config.get("rope_parameters")
    if not rope:
        return {}
    kind = config.get("model_type")
    if kind == "gpt_neox":
        return {"rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": rope["rope_theta"]}
    whole, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    if kind == "modernbert":
        return {"global_rope_theta": whole["rope_theta"], "local_rope_theta": local.get("rope_theta")}
    found = {"rope_theta": whole["rope_theta"]} if "rope_theta" in whole else {}
    if "rope_theta" in local:
        found["rope_local_base_freq"] = local["rope_theta"]
    if "partial_rotary_factor" in whole:
        found["partial_rotary_factor"] = whole["partial_rotary_factor"]
    if whole.get("rope_type", "default") != "default":
        found["rope_scaling"] = {name: value for name, value in whole.items() if name != "rope_theta"}
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
