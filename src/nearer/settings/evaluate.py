"""What `nearer eval` is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from nearer.settings.section import Address, Ranks, Section, execution


class EvalSettings(Section):
    """`nearer eval`: the systems side by side over the whole corpus, on the held-out queries."""

    dataset: str | None = execution(None, description="Address of the dataset; default: the output of `generate`.")
    base_embedder: str | None = execution(None, description="Model before; default: `train.embedding.base_model`.")
    embedder: str | None = execution(None, description="Model after; default: the output of `train.embedding`.")
    incumbent: str | None = execution(None, description="The embedder in use today, compared as `incumbent`.")
    base_reranker: str | None = execution(
        None,
        description="Reranker before; default: `train.reranker.base_model`, and only if it already is a cross-encoder.",
    )
    reranker: str | None = execution(None, description="Reranker after; default: the output of `train.reranker`.")
    output_dir: Address = execution("reports/report", description="Address of the report that is made.")
    ks: Ranks = Field(default=[1, 3, 5, 10])
    """Ranks K of Recall@K and Precision@K."""
    rerank_depth: PositiveInt = 30
    """How many of the retrieved passages the reranker orders anew."""
    bm25: bool = True
    """Include BM25 over Korean morphemes, the floor."""
    max_queries: PositiveInt | None = None
    """At most so many test queries, drawn with the seed; null: all."""
    batch_tokens: PositiveInt = execution(8192, description="Padded tokens a forward pass.")
    device: Literal["auto", "cpu", "cuda"] = execution("auto", description="Where to compute.")
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Only for models whose code you have read."""
