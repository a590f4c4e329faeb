"""What `nearer eval` is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from nearer.settings.section import Address, OpenShare, Ranks, Section, Share, execution


class VerdictSettings(Section):
    """How `ship`, `do not ship` or `inconclusive` is decided. Declare it before you look at a report."""

    measure: str = "nDCG@10"
    """The one measure that the verdict is about, named as ir_measures does: `nDCG@10`, `R@10`, `P@10`, `Success@10`,
    `RR@10`, `AP`, `Rprec`; K among `eval.ks`."""
    baseline: str = "incumbent"
    """The system to beat: `incumbent` (what is in use today) or the name of any other in the report."""
    candidate: str | None = None
    """The system that would be shipped; null: the incumbent with the tuned models in the place of its own."""
    queries: Literal["auto", "real", "synthetic", "all"] = "auto"
    """Which queries decide. `auto`: the real ones if there are 50 of them, or no others; else the synthetic ones. `all`
    pools both."""
    minimum_effect: Share = 0.01
    """The least gain that counts, in the unit of the measure (0.01 is one point of nDCG@10)."""
    detect_effect: Share = 0.03
    """The gain for which the report says how many queries it takes to find it; more than `minimum_effect`."""
    confidence: OpenShare = 0.95
    """Of the two-sided intervals; a model without effect is shipped in at most (1 - confidence) / 2 of the cases."""
    power: OpenShare = 0.8
    """Probability of finding an effect, in what the report says about the number of queries."""
    min_real_queries: NonNegativeInt = 0
    """With fewer real test queries the verdict is at best inconclusive; 0: synthetic ones are enough."""
    max_slice_loss: Share | None = 0.05
    """No slice of the queries (of 30 groups of documents or more) may surely lose more, in the unit of the measure;
    null: not looked at."""
    reranker_beats_none: bool = True
    """The candidate's reranker must beat its own list without reranking."""
    tuned_beats_bm25: bool = True
    """The tuned embedder alone must beat BM25."""
    leakage: bool = True
    """Nothing of the test part may be found in what trained the models."""
    score_collapse: bool = True
    """The tuned models' scores must tell passages apart."""
    max_forgetting: Share = 0.02
    """What may be lost on the general dataset, in the unit of the measure; the interval must lie above that loss."""

    @model_validator(mode="after")
    def _detectable(self) -> VerdictSettings:
        if self.detect_effect <= self.minimum_effect:
            raise ValueError("detect_effect must be greater than minimum_effect")
        return self


class EvalSettings(Section):
    """`nearer eval`: the systems side by side over the whole corpus, on the held-out queries."""

    dataset: str | None = execution(None, description="Address of the dataset; default: the output of `generate`.")
    base_embedder: str | None = execution(None, description="Model before; default: `train.embedding.base_model`.")
    embedder: str | None = execution(None, description="Model after; default: the output of `train.embedding`.")
    incumbent: str | None = execution(
        None,
        description="The embedder in use today; default: the base embedder. With BM25, weighted by `alpha`, and "
        "`incumbent_reranker` it is the system `incumbent`.",
    )
    incumbent_reranker: str | None = execution(None, description="The reranker in use today, if there is one.")
    base_reranker: str | None = execution(
        None,
        description="Reranker before; default: `train.reranker.base_model`, and only if it already is a cross-encoder.",
    )
    reranker: str | None = execution(None, description="Reranker after; default: the output of `train.reranker`.")
    models: list[Address] = execution(
        [],
        description="Further models to compare with, each shown by the last part of its name; a cross-encoder takes "
        "part as a reranker.",
    )
    general: str | None = execution(
        None,
        description="A second dataset, from another domain, to see what is forgotten: a dataset or a BEIR directory.",
    )
    output_dir: Address = execution("reports/report", description="Address of the report that is made.")
    gate: bool = False
    """End with exit code 3 unless the verdict is `ship`."""
    verdict: VerdictSettings = VerdictSettings()
    ks: Ranks = Field(default=[1, 3, 5, 10])
    """Ranks K of Recall@K, Precision@K and the hit rate."""
    rerank_depth: PositiveInt = 30
    """How many of the retrieved passages the reranker orders anew."""
    rerank_weight: Share | None = None
    """Weight of a reranker beside the scores of the list that it is given, both brought to [0, 1]; null: what its
    training has chosen, 1 (the reranker alone) where it has not."""
    reranked: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the retrievers whose lists are reranked (`tuned`, `tuned-hybrid`, ...); null: all of them, which is what
    a CPU may have no time for."""
    bm25: bool = True
    """Include BM25 over Korean morphemes, the floor, and hybrids with it."""
    alpha: Share = 0.8
    """Weight of the embedder in weighted hybrids, the incumbent's as well; BM25 has the rest. 1: embedder alone."""
    max_queries: PositiveInt | None = None
    """At most so many test queries, drawn with the seed; null: all."""
    speed_queries: NonNegativeInt = execution(
        20,
        description="So many queries are timed one at a time, for latency and throughput; 0: none, and the report has "
        "the same bytes every time.",
    )
    batch_tokens: PositiveInt = execution(8192, description="Padded tokens a forward pass.")
    device: Literal["auto", "cpu", "cuda"] = execution("auto", description="Where to compute.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the models encode and score in. `auto`: bf16 on a GPU that has it, else fp32."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Only for models whose code you have read."""
