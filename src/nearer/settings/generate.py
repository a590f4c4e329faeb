"""What `nearer generate` is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from nearer.settings.llm import LlmSettings
from nearer.settings.section import Address, OpenShare, Section, execution


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
    teacher: Literal["embedder", "reranker"] = "embedder"
    """Who scores candidates against the positive: the embedder, or `generate.reranker`, slower and closer."""


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
    sources: Literal["auto"] | list[Literal["queries", "hypothetical", "headings", "enhanced", "llm"]] = "auto"
    """Where queries come from. `auto`: the user's queries, the enhanced file and hypothetical questions as far as they
    are there; when none of these gives a query with an answer, the language model writes them, if `llm_model` names
    one, else headings. The user's queries without judgments are judged by the language model."""
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
    reranker: str | None = execution(
        None,
        description="A cross-encoder that judges in the embedder's place; see negatives.teacher, llm.answerable_by.",
    )
    llm_model: str | None = execution(
        None,
        description="The language model: the endpoint's name for it, or (`llm.backend: transformers`) where it is.",
    )
    max_concurrent: PositiveInt = execution(8, description="Calls of the language model at once.")
    request_delay: Annotated[float, Field(ge=0.0)] = execution(
        0.0, description="Seconds between the starts of two calls of the language model."
    )
    llm: LlmSettings = LlmSettings()
    batch_tokens: PositiveInt = execution(8192, description="Padded tokens a forward pass of the embedder.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the embedder encodes in, and a reranker scores in. `auto`: bf16 on a GPU that has it, else fp32."""
