"""What `nearer generate` is told about the language model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from nearer.settings.section import OpenShare, Section, Share, execution


class KindShares(Section):
    """Shares of the kinds among the queries that are asked for; together 1. Whoever names some leaves out the others.

    The defaults are a guess at what search logs hold: whole questions and search words, few that take several passages.
    """

    natural: Share = 0.4
    """Whole questions."""
    keyword: Share = 0.25
    """Search words without particles and endings."""
    colloquial: Share = 0.15
    """Short questions as in a messenger."""
    multi_passage: Share = 0.1
    """Questions that take two passages of a document."""
    comparison: Share = 0.1
    """Questions for the difference between two things."""

    @model_validator(mode="before")
    @classmethod
    def _others_are_zero(cls, given: Any) -> Any:
        return {**dict.fromkeys(cls.model_fields, 0.0), **given} if isinstance(given, dict) and given else given

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(self.model_dump().values())
        if abs(total - 1) > 0.01:
            raise ValueError(f"shares must be 1 together, they are {total:g}")
        return self


class LlmSettings(Section):
    """The language model that writes queries, judges passages and writes hard negatives.

    `generate.llm_model` names it.
    """

    backend: Literal["endpoint", "transformers"] = "endpoint"
    """`endpoint`: HTTP, of the OpenAI kind (OpenAI, vLLM, Ollama, …), with the extra `llm`. `transformers`: a causal
    language model in this process; `llm_model` is then an address, a directory or a hub id."""
    base_url: str | None = execution(
        None, description="Of the endpoint, e.g. http://localhost:8000/v1; default: OPENAI_BASE_URL, else OpenAI's own."
    )
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = execution(
        "OPENAI_API_KEY", description="The environment variable that holds the key. The key stands nowhere else."
    )
    prompts: str | None = execution(
        None,
        description="A folder of prompts that replace the shipped Korean ones of the same name; see docs/generate.md.",
    )
    shares: KindShares = KindShares()
    queries_per_passage: Annotated[int, Field(ge=1, le=10)] = 2
    """Queries asked for a passage."""
    max_tokens: PositiveInt = 1024
    """Most tokens of a reply."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    """Of writing. Judging is greedy."""
    repairs: Annotated[int, Field(ge=0, le=5)] = 2
    """So many more times a reply that cannot be read is asked for again."""
    max_query_characters: PositiveInt = 120
    """Longer written queries are dropped, and counted."""
    max_copied_share: Share = 0.8
    """Written queries are dropped when more than this share of their character 5-grams stands in their passage; search
    words (fewer than 15 characters) never."""
    near_duplicate_query: OpenShare = 0.7
    """Written queries whose character 3-gram Jaccard similarity to another query is at least this are dropped."""
    round_trip_depth: NonNegativeInt = 20
    """A written query's passage must be among so many that BM25 or the dense model finds for it; 0: not asked."""
    answerable_by: Literal["llm", "reranker", "nobody"] = "llm"
    """Who decides whether a written query is answered by its passages: the language model (a call a query), or
    `generate.reranker` (a positive score)."""
    mark_depth: Annotated[int, Field(ge=1, le=50)] = 10
    """So many retrieved passages are shown for each of the user's queries that has no judgment."""
    negatives_per_query: Annotated[int, Field(ge=0, le=5)] = 0
    """Hard negatives written for each training query that has none of its own. They train, and enter no corpus."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] = execution(120.0, description="Of one attempt at the endpoint.")
    attempts: Annotated[int, Field(ge=1, le=20)] = execution(
        6, description="Attempts of one call that fails for a while (429, 5xx, timeouts)."
    )
    token_budget: PositiveInt | None = execution(
        None,
        description="Most tokens of prompts and replies together; null: no limit. Then exit 2, and nothing is lost.",
    )
    prompt_price: Annotated[float, Field(ge=0.0)] = execution(
        0.0, description="Money for 1,000,000 prompt tokens, for the account."
    )
    completion_price: Annotated[float, Field(ge=0.0)] = execution(
        0.0, description="Money for 1,000,000 tokens of replies, for the account."
    )
    batch_tokens: PositiveInt = execution(
        16384, description="Tokens of a batch with `transformers`, prompts and replies, padding counted."
    )
    trust_remote_code: bool = execution(
        False,
        description="Whether a `transformers` model's own Python code may run.",
    )
    shards: PositiveInt | None = execution(
        None, description="Pods that share the calls; default: the number of nodes of an Indexed Job, else 1."
    )
    shard: NonNegativeInt | None = execution(
        None, description="This one's number from 0; default: JOB_COMPLETION_INDEX."
    )
