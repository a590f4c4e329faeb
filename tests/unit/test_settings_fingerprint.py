"""Which fields are part of the fingerprint: adding a field means deciding, and this list is where it shows."""

from typing import Any

from pydantic import BaseModel

from nearer.settings.model import Settings
from nearer.settings.section import Section

EXECUTION = {
    "Settings": {"artifacts"},
    "StoreSettings": {"cache_dir", "cache_gibibytes", "buckets"},
    "S3Settings": {
        "endpoint", "region", "profile", "addressing", "checksums", "encryption", "kms_key_id", "ca_bundle", "attempts",
        "connect_timeout_seconds", "read_timeout_seconds", "requests_at_once", "part_mebibytes", "small_files",
    },
    "GenerateSettings": {
        "documents", "queries", "enhanced", "output_dir", "embedder", "reranker", "llm_model", "max_concurrent",
        "request_delay", "batch_tokens",
    },
    "LlmSettings": {
        "base_url", "api_key_variable", "prompts", "timeout_seconds", "attempts", "token_budget", "prompt_price",
        "completion_price", "batch_tokens", "trust_remote_code", "shards", "shard",
    },
    "EmbeddingSettings": {
        "dataset", "base_model", "output_dir", "device", "checkpoint_steps", "nodes", "gpus_per_node", "deepspeed",
        "activation_checkpointing", "chunk_size", "report_to",
    },
    "RerankerSettings": {
        "dataset", "base_model", "output_dir", "device", "checkpoint_steps", "nodes", "gpus_per_node", "deepspeed",
        "activation_checkpointing", "chunk_size", "report_to", "retriever",
    },
    "EvalSettings": {
        "dataset", "base_embedder", "embedder", "incumbent", "incumbent_reranker", "base_reranker", "reranker", "models",
        "general", "output_dir", "speed_queries", "batch_tokens", "device",
    },
    "ExportSettings": {"reranker", "dataset", "output_dir"},
    "ReindexSettings": {
        "documents", "embedder", "output_dir", "alias", "batch_tokens", "shard_passages", "device",
    },
}  # fmt: skip


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {model.__name__: model}
    for info in model.model_fields.values():
        options: list[Any] = [info.annotation, *getattr(info.annotation, "__args__", ())]
        for option in options:
            if isinstance(option, type) and issubclass(option, Section):
                found |= sections(option)
    return found


def test_the_execution_fields_are_exactly_these() -> None:
    """Everything else changes the result and is hashed."""
    marked = {
        name: {
            field
            for field, info in model.model_fields.items()
            if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("execution")
        }
        for name, model in sections(Settings).items()
    }
    assert {name: fields for name, fields in marked.items() if fields} == EXECUTION


def test_every_field_is_explained() -> None:
    """The schema is the documentation: no field without a sentence."""
    bare = [
        f"{name}.{field}"
        for name, model in sections(Settings).items()
        for field, info in model.model_fields.items()
        if not info.description
        and not (isinstance(info.annotation, type) and issubclass(info.annotation, Section))
        and "Settings" not in str(info.annotation)
    ]
    assert bare == []
