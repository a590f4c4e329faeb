"""Models from a `ModelSource`: embedders and rerankers with their contract, whatever form the base model has."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from nearer import process
from nearer.errors import ArtifactCorrupt, InputError
from nearer.models.causal import append_end_token, end_token, is_causal, wants_end_token
from nearer.models.contract import Contract
from nearer.models.derive import (
    derive_embedder_contract,
    derive_reranker_contract,
    pooling_module,
    pooling_of,
    tokenizer_sha256,
    weights_sha256,
)
from nearer.models.encode import Embedder
from nearer.models.precision import WantedPrecision, choose, compute_in
from nearer.models.readable import readable, refuse_remote_code
from nearer.models.score import Reranker
from nearer.models.source import ModelSource
from nearer.models.tokenizer import (
    drop_single_token_type,
    follow_tokenizer_json,
    make_padding_explicit,
    require_rows,
    require_tokenizer,
)
from nearer.models.weights import require_weights

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Device = Literal["auto", "cpu", "cuda"]
PoolingChoice = Literal["auto", "mean", "cls", "lasttoken"]


def load_embedder(
    source: ModelSource,
    *,
    device: Device = "auto",
    trust_remote_code: bool = False,
    pooling: PoolingChoice = "auto",
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    passage_template: str | None = None,
    chunker: str | None = None,
    chunk_tokens: int | None = None,
    precision: WantedPrecision = "fp32",
) -> Embedder:
    """Load a sentence-transformers directory, or wrap a bare checkpoint.

    In any other precision than fp32 it is for encoding alone.

    The contract is the model's own `contract.json`, else derived from what the model says. Arguments that are not None
    (or `auto`) come before both. A bare encoder gets mean pooling; a bare decoder an explicit pad token, an appended
    end token and last-token pooling; both get normalisation.

    Raises:
        InputError: the model cannot be read, or needs its own code and `trust_remote_code` is false.
        ArtifactCorrupt: a plain directory whose bytes are not those that its contract names.
        DoesNotFit: no memory for it.
    """
    refuse_remote_code(source, trust_remote_code=trust_remote_code)
    _make_room()
    if is_cross_encoder(source):
        raise InputError(
            f"{source.name!r} is a reranker, not an embedder",
            where=str(source.path),
            rule="an embedder, or a bare checkpoint that becomes one",
        )
    known = Contract.load(source.path)
    bare = not (source.path / "modules.json").is_file()
    with readable(source):
        if bare:
            model = _wrap_checkpoint(source, device=device, trust_remote_code=trust_remote_code, pooling=pooling)
        else:
            model = _load_sentence_transformer(source, device=device, trust_remote_code=trust_remote_code)
        _prepare_tokenizer(model, source)
        if known is not None:
            _require_own_bytes(source, known, tokenizer=model.tokenizer)
        else:  # a model of ours says which side; on the right no text sees its padding, whatever the model
            model.tokenizer.padding_side = "right"
        if pooling != "auto":
            _set_pooling(model, pooling)
        asked = bare or pooling == "lasttoken" or (known is None and wants_end_token(source.path))
        if pooling_of(model) == "lasttoken" and asked:
            append_end_token(model.tokenizer, model.transformers_model.config)
        contract = known or derive_embedder_contract(source, model)
        ours = model.tokenizer
        contract = replace(contract, end_token=end_token(ours), tokenizer_sha256=tokenizer_sha256(ours))
    given: dict[str, Any] = {
        "query_prefix": query_prefix,
        "passage_prefix": passage_prefix,
        "passage_template": passage_template,
        "chunker": chunker,
        "chunk_tokens": chunk_tokens,
        "pooling": None if pooling == "auto" else pooling,
    }
    contract = replace(contract, **{name: value for name, value in given.items() if value is not None})
    model.prompts = {"query": contract.query_prefix, "document": contract.passage_prefix}
    model.default_prompt_name = None
    chosen = choose(precision, device=str(model.device))
    compute_in(model, chosen)
    return Embedder(contract=contract, model=model, precision=chosen)


def load_reranker(
    source: ModelSource,
    *,
    device: Device = "auto",
    trust_remote_code: bool = False,
    max_pair_tokens: int | None = None,
    passage_template: str | None = None,
    new_head: bool = False,
    precision: WantedPrecision = "fp32",
) -> Reranker:
    """Load a cross-encoder; with `new_head`, also make one of an encoder or embedder.

    A new head has random weights: seed PyTorch before. In any other precision than fp32 it is for scoring alone.

    Raises:
        InputError: it is no cross-encoder with one label and `new_head` is false, it cannot be read, or needs its own
            code and `trust_remote_code` is false.
        ArtifactCorrupt: a plain directory whose bytes are not those that its contract names.
        DoesNotFit: no memory for it.
    """
    from torch import nn

    refuse_remote_code(source, trust_remote_code=trust_remote_code)
    _make_room()
    ready = is_cross_encoder(source)
    if not ready and not new_head:
        raise InputError(
            f"{source.name!r} is not a reranker",
            where=str(source.path),
            rule="a sequence-classification model with one label",
            way_out="train one: `nearer train reranker`",
        )
    known = Contract.load(source.path) if ready else None
    with readable(source):
        model = _load_cross_encoder(source, device=device, trust_remote_code=trust_remote_code, new_head=not ready)
        _prepare_tokenizer(model, source)
        model.activation_fn = nn.Identity()
        contract = known or derive_reranker_contract(source, model)
    if known is not None:
        _require_own_bytes(source, known, tokenizer=model.tokenizer)
    if passage_template is not None:
        contract = replace(contract, passage_template=passage_template)
    if max_pair_tokens is not None:
        longest = min(max_pair_tokens, contract.max_pair_tokens or max_pair_tokens)
        contract = replace(contract, max_pair_tokens=longest)
    model.max_seq_length = contract.max_pair_tokens
    chosen = choose(precision, device=str(model.device))
    compute_in(model, chosen)
    return Reranker(contract=contract, model=model, precision=chosen)


def is_cross_encoder(source: ModelSource) -> bool:
    """Whether the model already scores pairs: one label, and a sequence-classification head."""
    if source.manifest is not None:
        return source.manifest.kind == "reranker"
    config = source.config()
    heads = config.get("architectures") or []
    labels = len(config.get("id2label") or {0: ""}) if "num_labels" not in config else config["num_labels"]
    return any(str(head).endswith("ForSequenceClassification") for head in heads) and labels == 1


def _make_room() -> None:
    """Free what the model before this one has left, once all modules are there."""
    import sentence_transformers  # noqa: F401 - the first release sets modules aside

    process.release_memory()


def device_name(device: Device) -> str:
    """What `auto` is here.

    Raises:
        InputError: `cuda` without a GPU.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device `cuda` is asked for and PyTorch sees no GPU", rule="`auto`, `cpu`, or a visible GPU")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _quiet() -> None:
    """Progress and warnings of loading are ours to show."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _load_sentence_transformer(source: ModelSource, *, device: Device, trust_remote_code: bool) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

    _quiet()
    if not trust_remote_code:
        first = json.loads((source.path / "modules.json").read_text(encoding="utf-8"))[0]
        require_weights(source.path / first.get("path", ""), task="feature-extraction")
    return SentenceTransformer(
        str(source.path),
        device=device_name(device),
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        model_kwargs={"dtype": torch.float32},
    )


def _wrap_checkpoint(
    source: ModelSource, *, device: Device, trust_remote_code: bool, pooling: PoolingChoice
) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    _quiet()
    if not trust_remote_code:
        require_weights(source.path, task="feature-extraction")
    transformer = _transformer(source, task="feature-extraction", trust_remote_code=trust_remote_code)
    mode = pooling if pooling != "auto" else "lasttoken" if is_causal(transformer.config) else "mean"
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), mode), Normalize()]
    model = SentenceTransformer(modules=modules, device=device_name(device), local_files_only=True)
    model.similarity_fn_name = "cosine"
    return model


def _load_cross_encoder(
    source: ModelSource, *, device: Device, trust_remote_code: bool, new_head: bool
) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    _quiet()
    if not trust_remote_code:
        require_weights(source.path, task="sequence-classification", new_head=new_head)
    transformer = _transformer(source, task="sequence-classification", trust_remote_code=trust_remote_code)
    return CrossEncoder(modules=[transformer], device=device_name(device), local_files_only=True)


def _transformer(source: ModelSource, *, task: str, trust_remote_code: bool) -> Any:
    import torch
    from sentence_transformers.base.modules import Transformer

    place = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    return Transformer(
        str(source.path),
        transformer_task=task,
        model_kwargs={**place, "dtype": torch.float32},
        processor_kwargs=dict(place),
        config_kwargs={**place, **({"num_labels": 1} if task == "sequence-classification" else {})},
    )


def _prepare_tokenizer(model: Any, source: ModelSource) -> None:
    """What embedders and rerankers have in common once their model is there."""
    tokenizer, transformer = model.tokenizer, model.transformers_model
    require_tokenizer(tokenizer, source.path)
    follow_tokenizer_json(tokenizer, source.path)
    _limit_length(model)
    make_padding_explicit(tokenizer, transformer.config)
    require_rows(tokenizer, rows=transformer.get_input_embeddings().weight.shape[0])
    drop_single_token_type(tokenizer, transformer.config)


def _limit_length(model: Any) -> None:
    """No text longer than there are positions: RoBERTa's family counts from its padding index, 514 rows hold 512."""
    from torch import nn

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            rows = module.num_embeddings - module.padding_idx - 1
            model.max_seq_length = min(model.max_seq_length or rows, rows)


def _set_pooling(model: SentenceTransformer, pooling: str) -> None:
    module = pooling_module(model)
    if module is None or not isinstance(module.pooling_mode, str):
        raise InputError(
            f"the model has no single pooling that {pooling!r} could replace",
            rule="`pooling: auto` for this model",
        )
    module.pooling_mode = pooling


def _require_own_bytes(source: ModelSource, contract: Contract, *, tokenizer: Any) -> None:
    """An artifact was verified when it was opened; a plain directory that carries a contract is checked here."""
    if source.origin == "artifact":
        return
    found = {"weights": weights_sha256(source.path), "tokenizer": tokenizer_sha256(tokenizer)}
    named = {"weights": contract.weights_sha256, "tokenizer": contract.tokenizer_sha256}
    different = [part for part in found if found[part] != named[part]]
    if different:
        raise ArtifactCorrupt(
            f"the {' and '.join(different)} of {source.name!r} are not those that its contract.json names",
            where=str(source.path),
            rule="a model and its contract belong together",
            way_out="fetch the model again; or remove contract.json, if it was changed on purpose",
        )
