"""What `nearer reindex` is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from nearer.settings.generate import ChunkSettings
from nearer.settings.section import Address, Section, Share, execution


class ReindexSettings(Section):
    """`nearer reindex`: the corpus encoded by the new embedder, as a generation behind an alias."""

    documents: str | None = execution(None, description="Documents; default: those of `generate`.")
    embedder: str | None = execution(None, description="Address of the model; default: output of `train.embedding`.")
    output_dir: Address = execution("indexes/docs", description="Where generations and the alias live.")
    sink: Literal["embedded"] = "embedded"
    """`embedded`: vector shards and a FAISS index in a directory."""
    alias: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = execution(
        "current", description="The name that queries use."
    )
    chunk: ChunkSettings | None = None
    """Only for a model whose contract names no chunker; otherwise the contract decides."""
    index: Literal["auto", "flat", "hnsw"] = "auto"
    """FAISS index. `auto`: exact (flat) below 200,000 passages, HNSW above."""
    min_index_recall: Share = 0.95
    """The index must find this share of the exact top 10, else the alias stays: exit 3."""
    check_samples: PositiveInt = 64
    """Passages that are encoded again and compared before the alias moves."""
    batch_tokens: PositiveInt = execution(8192, description="Padded tokens a forward pass.")
    shard_passages: PositiveInt = execution(
        4096,
        description="Passages a shard; a finished shard survives a kill. With a multiple of 2048, what `eval` has "
        "encoded on this machine is not encoded again.",
    )
    device: Literal["auto", "cpu", "cuda"] = execution("auto", description="Where to compute.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the model encodes in. `auto`: bf16 on a GPU that has it, else fp32."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
