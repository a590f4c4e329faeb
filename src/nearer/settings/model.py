"""The settings document: one pydantic model, one section a job.

A field either changes the result, and is part of the fingerprint, or it only changes how the work is carried out; the
latter are declared with `execution(...)`. A golden test lists them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
)

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
Address = Annotated[str, Field(min_length=1)]
Ranks = Annotated[list[PositiveInt], Field(min_length=1)]


def execution(default: Any = ..., *, description: str, **limits: Any) -> Any:
    """A field that changes how the work is carried out, never its result."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **limits)


class Section(BaseModel):
    """A closed section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True, frozen=True)

    def result_fields(self) -> dict[str, Any]:
        """The fields that change the result, as plain JSON values: what the fingerprint hashes."""
        kept = {
            name
            for name, info in type(self).model_fields.items()
            if not (isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("execution"))
        }
        return self.model_dump(mode="json", include=kept)


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
    ks: Ranks = [1, 3, 5, 10]
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


_PLAIN_URL = r"^https?://[^@/\s]+(/\S*)?$"


def _plain_url(url: str) -> str:
    if not re.fullmatch(_PLAIN_URL, url):
        raise ValueError("http(s)://host:port; credentials stand in the environment, never in an address")
    return url


Url = Annotated[str, AfterValidator(_plain_url), WithJsonSchema({"type": "string", "pattern": _PLAIN_URL})]


class S3Settings(Section):
    """How S3, or a store that speaks its language, is reached.

    What is left out is left to boto3's own chain: the environment (AWS_*), profiles, a service account's role; proxies
    by HTTPS_PROXY and NO_PROXY. Secrets never stand here.
    """

    endpoint: Url | None = execution(None, description="Address of a store that is not AWS: http(s)://host:port.")
    region: str | None = execution(None, description="Region of the bucket.")
    profile: str | None = execution(None, description="Profile in the shared AWS configuration files.")
    addressing: Literal["auto", "path", "virtual"] = execution(
        "auto", description="Bucket in the path or in the host name."
    )
    checksums: Literal["when_supported", "when_required"] = execution(
        "when_required",
        description="`when_supported` adds boto3's CRC32, on which some stores choke; each body carries its "
        "Content-MD5 anyway, and each file of an artifact its sha256.",
    )
    encryption: Literal["AES256", "aws:kms"] | None = execution(
        None, description="Server-side encryption of what is written; null: as the bucket has it."
    )
    kms_key_id: str | None = execution(None, description="Key for `aws:kms`; null: the bucket's default key.")
    ca_bundle: str | None = execution(None, description="File of certificates to trust (PEM).")
    attempts: PositiveInt = execution(8, description="Attempts of a request, at an adaptive rate, before exit 69.")
    connect_timeout_seconds: PositiveFloat = execution(10.0, description="Until a connection stands.")
    read_timeout_seconds: PositiveFloat = execution(60.0, description="Without a byte from the store.")
    requests_at_once: Annotated[int, Field(ge=1, le=256)] = execution(
        16, description="Requests in flight of one process; those of `store.s3` hold for all buckets."
    )
    part_mebibytes: Annotated[int, Field(ge=5, le=1024)] = execution(
        8, description="Smallest part of an upload or ranged read; times `requests_at_once` is the memory it takes."
    )


class StoreSettings(Section):
    """Where artifacts are kept, as far as that is not this machine's own disk."""

    cache_dir: str | None = execution(
        None,
        description="Local copies of what comes from S3, and unfinished work that goes there; "
        "null: $XDG_CACHE_HOME/nearer or ~/.cache/nearer.",
    )
    cache_gibibytes: PositiveFloat = execution(
        100.0, description="Above it, what no process uses is evicted, longest unused first."
    )
    s3: S3Settings = S3Settings()
    buckets: dict[str, S3Settings] = execution({}, description="Instead of `s3`, for single buckets, by name.")


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
