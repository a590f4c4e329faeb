"""What `nearer train` is told, for either model.

Where a default was measured, its docstring names the entry of docs/log.md; all of these were measured on an encoder,
multilingual-e5-small. The others are conventions, of BERT's fine-tuning (Devlin et al. 2019, appendix A.3), of
sentence-transformers or of LoRA (Hu et al. 2021), for decoders as for encoders.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from nearer.settings.section import Address, OpenShare, Section, Share, execution


class FreezeSettings(Section):
    """Parts of the encoder that do not train."""

    embeddings: bool = False
    """Token embeddings stay as they are."""
    layers: NonNegativeInt = 0
    """So many of the first layers stay as they are. With embeddings and four of twelve a step costs three quarters, and
    nDCG@10 came to .350 in place of .354 (docs/log.md, 2026-11-30, one seed)."""


class LoraSettings(Section):
    """Low-rank adapters train instead of the model's own weights, and are merged into them at the end."""

    rank: PositiveInt = 16
    """Rank of each adapter: the update of a weight (m, n) has rank x (m + n) parameters."""
    alpha: PositiveFloat = 32.0
    """The adapter's update is multiplied by alpha / rank."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the layers that get an adapter; null: the attention projections that PEFT names for the architecture."""


ZERO = ("zero1", "zero2", "zero3", "zero1_offload", "zero2_offload", "zero3_offload")
"""Stages of DeepSpeed ZeRO; `_offload`: optimizer (and in stage 3 weights) in the host's memory."""


class TrainSettings(Section):
    """What embedder and reranker training have in common."""

    dataset: str | None = execution(None, description="Address of the dataset; default: the output of `generate`.")
    epochs: PositiveFloat = 3.0
    """Passes over the training queries. On help pages an embedder gained more in three than in one (docs/log.md,
    2026-12-01), and a reranker more in two (2026-11-30), one seed each."""
    max_steps: PositiveInt | None = None
    """Ends training after so many optimizer steps even if the epochs are not over."""
    val_split: OpenShare = 0.1
    """Share of the training queries that validate, by group of near-duplicate documents; the same for both models."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of AdamW, reached after warm-up, then falling linearly to zero. Null: 2e-5, and 1e-4 with
    `lora`; both by convention. On an encoder 2e-5 and 8e-5 could not be told apart in 14 steps; with `lora`, 8e-4
    gained twice what 1e-4 did in 38 (docs/log.md, 2026-12-01, one seed)."""
    warmup_share: Share = 0.1
    """Share of the steps over which the learning rate rises; by convention."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW weight decay; by convention."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient norm above which gradients are scaled down; by convention."""
    dropout: Share | None = None
    """Dropout probability in the model; null: as the model has it. The recipes that were measured have 0."""
    freeze: FreezeSettings = FreezeSettings()
    evaluations_per_epoch: PositiveInt = 2
    """Validations an epoch. What is published is the last checkpoint whose nDCG@10 is not below the best one's by more
    than the standard error of the difference, query by query."""
    patience: PositiveInt = 3
    """Early stopping after so many validations without a better nDCG@10."""
    validation_passages: PositiveInt = 1000
    """Validation ranks among the positives, their hard negatives and a seeded sample, up to so many passages."""
    validation_queries: PositiveInt = 200
    """At most so many validation queries, drawn with the seed."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 where the hardware computes in it, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = execution("auto", description="Where to compute.")
    checkpoint_steps: PositiveInt = execution(50, description="Optimizer steps between checkpoints.")
    trust_remote_code: bool = False
    """Run Python code that comes with the base model. Only for models whose code you have read."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of the whole model; null: all weights that `freeze` leaves."""
    nodes: PositiveInt | None = execution(
        None, description="Machines that train together, one pod each; null: NNODES, or 1."
    )
    gpus_per_node: PositiveInt | None = execution(
        None, description="Processes on each machine, one a GPU; null: NPROC_PER_NODE, else all GPUs; 1 on a CPU."
    )
    deepspeed: Annotated[str, Field(pattern=rf"^(auto|none|{'|'.join(ZERO)}|.+\.json)$")] = execution(
        "auto",
        description="How several processes divide the model's states: `none` (each has all), `zero1`, `zero2`, "
        "`zero3`, each also `_offload`, or the path of a DeepSpeed JSON; `auto`: `none` where that fits the GPU.",
    )
    activation_checkpointing: bool = execution(
        False, description="Compute activations again in the backward pass instead of keeping them."
    )
    chunk_size: PositiveInt | None = execution(
        None,
        description="Texts (for a reranker: pairs) of a process that pass through the model at once; the loss stays "
        "that of the whole batch. Null: all, and half as many each time that they do not fit.",
    )

    report_to: list[Literal["tensorboard", "mlflow", "wandb"]] = execution(
        [],
        description="Where loss, learning rate and validations are shown while it trains. Each needs its package, and "
        "is told where by its own environment variables.",
    )

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, or what it is where it is null."""
        return self.learning_rate or (2e-5 if self.lora is None else 1e-4)

    def result_fields(self) -> dict[str, Any]:
        """As of any section; without `lora` where it is not used, so that work done before it existed stays done."""
        found = super().result_fields() | {"learning_rate": self.peak_learning_rate}
        return {name: value for name, value in found.items() if name != "lora" or value is not None}


class EmbeddingSettings(TrainSettings):
    """`nearer train embedding`: contrastive learning on query, ideal context, hard negatives."""

    base_model: Address = execution(
        "EleutherAI/polyglot-ko-1.3b", description="Artifact address, directory, s3://… or hub id."
    )
    output_dir: Address = execution("models/fine_tuned_embedding", description="Address of the model that is made.")
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Queries an optimizer step, over all processes; each is the negative of all others."""
    scale: PositiveFloat = 50.0
    """Inverse temperature of the contrastive loss; similarities are multiplied by it. With 20, sentence-transformers'
    own default, e5's nDCG@10 was 6 % lower on help pages' headings and 2 % (-5 to +1) on their first sentences; 100 was
    as good as 50 (docs/log.md, 2026-12-01, one seed). For other base models it was not compared."""
    negatives_per_query: Annotated[int, Field(ge=0, le=10)] = 1
    """Hard negatives a query that take part in a step. On help pages one was worth 8 % of nDCG@10, three no more than
    one (docs/log.md, 2026-12-01, one seed); on the demo none did as well, at half the cost (2026-11-28, one seed)."""
    max_query_tokens: PositiveInt = 64
    """Longer queries are cut in training."""
    max_passage_tokens: PositiveInt = 256
    """Longer passages are cut in training, and it is said when many are. Shorter steps are cheaper and can do harm: on
    Wikipedia paragraphs, 93 % of which were cut at 64, training cost 4.8 % of nDCG@10; on whole ones it cost nothing
    (docs/log.md, 2026-11-30)."""
    pooling: Literal["auto", "mean", "cls", "lasttoken"] = "auto"
    """`auto`: as the base model says; for a bare encoder mean, for a bare decoder the last token."""
    query_prefix: str | None = None
    """Written before each query; null: as the base model says (e5: `query: `)."""
    passage_prefix: str | None = None
    """Written before each passage; null: as the base model says (e5: `passage: `)."""


class RerankerSettings(TrainSettings):
    """`nearer train reranker`: binary classification of query-passage pairs."""

    base_model: Address = execution(
        "bert-base-multilingual-cased", description="Artifact address, directory, s3://… or hub id."
    )
    output_dir: Address = execution("models/fine_tuned_reranker", description="Address of the model that is made.")
    batch_size: PositiveInt = 8
    """Query-passage pairs an optimizer step, over all processes."""
    loss: Literal["binary", "listwise"] = "binary"
    """`binary`: each pair is an answer or none; `listwise`: the answer against its own negatives, which takes a
    batch_size of at least one answer with all of them; binary takes any. With six hard negatives and a random one, all
    else the same, listwise gained 12 % of nDCG@10 over the embedder on help pages, binary 8 %, surely less
    (docs/log.md, 2026-12-01, one seed)."""
    hard_negatives: Annotated[int, Field(ge=0, le=10)] = 1
    """Hard negatives a positive pair."""
    random_negatives: Annotated[int, Field(ge=0, le=10)] = 2
    """Random passages a positive pair; hard negatives alone hold a fresh head on the constant-output plateau."""
    negatives_from: Literal["auto", "dataset", "retriever"] = "auto"
    """Where hard negatives come from: those that `generate` mined, or the lists of the retriever, which the reranker
    will be given; `auto`: the latter where the retriever is known."""
    negatives_depth: PositiveInt = 100
    """Hard negatives from the retriever's lists come from so many first ranks at the beginning of the curriculum, and
    from the first `rerank_depth` at its end."""
    negatives_passages: PositiveInt = 10_000
    """Those lists are over so many passages: mined hard negatives first, then a seeded sample of the corpus."""
    curriculum: Share = 0.5
    """Share of the training over which hard negatives from the retriever's lists take the place of random ones.
    Nearly that of the first reranker that gained (docs/log.md, 2026-11-28); other shares were not compared."""
    max_pair_tokens: Annotated[int, Field(ge=16)] = 256
    """Longest pair, query and passage together; the passage is cut."""
    retriever: Address | None = execution(
        None,
        description="Embedder whose lists the reranker will be given: it learns from them, and on them its weight "
        "beside the embedder's own scores is chosen, with the validation queries. Null: the output of "
        "`train.embedding` if that is the base model; else no weight is chosen, and the reranker counts alone.",
    )
    validation_passages: PositiveInt = 10_000
    """What is put in order is taken from so many passages: the validation queries' answers, their hard negatives, and a
    seeded sample. As many as train, because among fewer the retriever is better than it will be, and the reranker's
    weight beside it comes out too small (docs/log.md, 2026-11-30)."""
    rerank_depth: PositiveInt = 10
    """So many passages of each list are scored to choose that weight, and to choose the best checkpoint;
    `eval.rerank_depth` where time allows: 20 were better than 10 (docs/log.md, 2026-11-28)."""

    @model_validator(mode="after")
    def _one_list_at_least(self) -> RerankerSettings:
        pairs = 1 + self.hard_negatives + self.random_negatives
        if self.loss == "listwise" and (pairs == 1 or self.batch_size < pairs):
            raise ValueError(
                f"with loss: listwise a step holds at least one answer with its negatives, here {pairs} pairs, and "
                f"batch_size is {self.batch_size}; batch_size: {max(pairs, 2)} or more"
            )
        return self


class TrainSections(Section):
    """The two models that can be trained."""

    embedding: EmbeddingSettings | None = None
    reranker: RerankerSettings | None = None
