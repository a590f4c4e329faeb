"""The settings document: one pydantic model, one section a job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from nearer.settings.section import Address, OpenShare, Ranks, Section, Share, execution
from nearer.settings.store import StoreSettings


class ChunkSettings(Section):
    """How documents are cut into passages."""

    max_tokens: Annotated[int, Field(ge=8)] = 200
    """Longest passage, in tokens of the embedder's tokenizer, title and heading path not counted."""
    template: str = "{title}\n{path}\n{text}"
    """What the model is given for a passage: `{title}`, `{path}` (headings joined by ` > `), `{text}`; empty lines are
    dropped. The contract records it."""


class NegativesSettings(Section):
    """Hard negatives: two miners propose, one teacher judges."""

    per_query: Annotated[int, Field(ge=0, le=10)] = 5
    """At most so many hard negatives a query."""
    depth: PositiveInt = 50
    """How many candidates each miner proposes."""
    skip_top: NonNegativeInt = 0
    """Ranks that are skipped at the top of each miner's list."""
    max_share_of_positive: Annotated[float, Field(gt=0.0, le=1.5)] = 0.9
    """A candidate whose centred teacher score is above this share of the positive's is dropped as a false negative."""
    random_pairs: PositiveInt = 2000
    """Random query-passage pairs whose mean score is the teacher's zero."""


class GenerateSettings(Section):
    """`nearer generate`: documents (and queries) in, a dataset out."""

    documents: str = execution(
        "data/documents.jsonl", description="A file or folder of documents, or a BEIR directory."
    )
    queries: str | None = execution(
        None, description="The user's own queries: `eval.jsonl`, BEIR queries, FlagEmbedding or triplet lines."
    )
    enhanced: str | None = execution(
        None, description="An existing `eval_enhanced.jsonl`: query, ideal contexts and hard negatives, imported."
    )
    output_dir: Address = execution("datasets/dataset", description="Address of the dataset that is made.")
    sources: Literal["auto"] | list[Literal["queries", "hypothetical", "headings", "enhanced"]] = "auto"
    """Where queries come from. `auto`: the user's queries with judgments, the enhanced file and hypothetical questions
    as far as they are there; headings only when none of these is."""
    real_queries: Literal["auto", "test", "split"] = "auto"
    """`test`: all real queries are test, and the documents that they point to never train. `split`: real queries are
    split like the others. `auto`: `test` when another source can train, else `split`."""
    test_share: OpenShare = 0.2
    """Share of the queries that is held out, by group of near-duplicate documents."""
    near_duplicate: OpenShare = 0.7
    """Documents whose character-shingle Jaccard similarity is at least this are one group."""
    min_query_characters: PositiveInt = 2
    """Shorter queries are dropped, and counted."""
    chunk: ChunkSettings = ChunkSettings()
    negatives: NegativesSettings = NegativesSettings()
    embedder: str | None = execution(
        None,
        description="Model whose tokenizer counts tokens, that mines, and that judges as teacher; "
        "default: `train.embedding.base_model`.",
    )
    max_queries: PositiveInt | None = None
    """At most so many queries, drawn with the seed; null: all."""
    llm_model: str | None = execution(None, description="The guide's LLM; used by a later release only.")
    max_concurrent: PositiveInt = execution(2, description="LLM calls at once; used by a later release only.")
    request_delay: Annotated[float, Field(ge=0.0)] = execution(1.0, description="Seconds between LLM calls.")
    batch_tokens: PositiveInt = execution(8192, description="Padded tokens a forward pass of the embedder.")


class FreezeSettings(Section):
    """Parts of the encoder that do not train."""

    embeddings: bool = False
    """Token embeddings stay as they are."""
    layers: NonNegativeInt = 0
    """So many of the first layers stay as they are."""


class TrainSettings(Section):
    """What embedder and reranker training have in common."""

    dataset: str | None = execution(None, description="Address of the dataset; default: the output of `generate`.")
    epochs: PositiveFloat = 3.0
    """Passes over the training queries."""
    max_steps: PositiveInt | None = None
    """Ends training after so many optimizer steps even if the epochs are not over."""
    val_split: OpenShare = 0.1
    """Share of the training queries that validate, by group of near-duplicate documents; the same for both models."""
    learning_rate: PositiveFloat = 2e-5
    """Peak learning rate of AdamW, reached after warm-up, then falling linearly to zero."""
    warmup_share: Share = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient norm above which gradients are scaled down."""
    dropout: Share | None = None
    """Dropout probability in the model; null: as the model has it."""
    freeze: FreezeSettings = FreezeSettings()
    evaluations_per_epoch: PositiveInt = 2
    """Validations an epoch; the best checkpoint by nDCG@10 is the one that is published."""
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


class EmbeddingSettings(TrainSettings):
    """`nearer train embedding`: contrastive learning on query, ideal context, hard negatives."""

    base_model: Address = execution(
        "EleutherAI/polyglot-ko-1.3b", description="Artifact address, directory, s3://… or hub id."
    )
    output_dir: Address = execution("models/fine_tuned_embedding", description="Address of the model that is made.")
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Queries an optimizer step; each is the negative of all others."""
    scale: PositiveFloat = 20.0
    """Inverse temperature of the contrastive loss; similarities are multiplied by it."""
    negatives_per_query: Annotated[int, Field(ge=0, le=10)] = 1
    """Hard negatives a query that take part in a step."""
    max_query_tokens: PositiveInt = 64
    """Longer queries are cut in training."""
    max_passage_tokens: PositiveInt = 256
    """Longer passages are cut in training; the share of those is printed."""
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
    """Query-passage pairs an optimizer step."""
    hard_negatives: Annotated[int, Field(ge=0, le=10)] = 1
    """Mined hard negatives a positive pair."""
    random_negatives: Annotated[int, Field(ge=0, le=10)] = 2
    """Random passages a positive pair; hard negatives alone hold a fresh head on the constant-output plateau."""
    max_pair_tokens: Annotated[int, Field(ge=16)] = 256
    """Longest pair, query and passage together; the passage is cut."""


class TrainSections(Section):
    """The two models that can be trained."""

    embedding: EmbeddingSettings | None = None
    reranker: RerankerSettings | None = None


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


class ExportSettings(Section):
    """`nearer export-onnx`: the reranker as ONNX, fp32 and int8."""

    reranker: str | None = execution(None, description="Address of the model; default: the output of `train.reranker`.")
    dataset: str | None = execution(
        None, description="Dataset whose pairs prove parity; default: the output of `generate` if it is there."
    )
    output_dir: Address = execution("models/onnx_reranker", description="Address of the directory that is made.")
    opset: Annotated[int, Field(ge=14, le=20)] = 17
    """ONNX operator set; 20 is the newest that the tracing exporter writes."""
    int8: bool = True
    """Make the dynamically quantised variant as well."""
    parity_pairs: PositiveInt = 200
    """Real query-passage pairs that PyTorch and ONNX both score."""
    max_logit_difference: PositiveFloat = 1e-3
    """fp32 fails above this absolute difference: exit 3."""
    min_rank_agreement: Share = 0.9
    """int8 is withheld below this Spearman correlation with PyTorch, mean over queries."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""


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
    shard_passages: PositiveInt = execution(5000, description="Passages a shard; a finished shard survives a kill.")
    device: Literal["auto", "cpu", "cuda"] = execution("auto", description="Where to compute.")
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""


class Settings(Section):
    """The whole document."""

    artifacts: str = execution(".", description="Root of all addresses that are not literal: a directory or s3://….")
    seed: NonNegativeInt = 13
    """Seed of every draw."""
    store: StoreSettings = StoreSettings()
    generate: GenerateSettings = GenerateSettings()
    train: TrainSections = TrainSections()
    eval: EvalSettings = EvalSettings()
    export_onnx: ExportSettings = ExportSettings()
    reindex: ReindexSettings = ReindexSettings()
