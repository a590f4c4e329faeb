"""The language model of a run: what it is asked, where it is, and how it is made ready. Plain values, no settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nearer.generate.inputs import find_raw
from nearer.generate.prompts import load_prompts
from nearer.generate.shards import Shard
from nearer.llm.access import Access, find_access
from nearer.llm.prices import Prices
from nearer.llm.request import Backend
from nearer.models.source import ModelSource
from nearer.progress import Progress
from nearer.store import InputEntry, Store

if TYPE_CHECKING:
    from nearer.generate.author import Author
    from nearer.generate.judges import ScorePairs
    from nearer.generate.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Fields of `generate.llm` under their own names, and what else of `generate` bears on calls."""

    model: str
    sources: Literal["auto"] | Collection[str]
    max_queries: int | None
    passage_tokens: int
    concurrent: int
    delay_seconds: float

    backend: Literal["endpoint", "transformers"]
    base_url: str | None
    api_key_variable: str
    prompts: str | None
    shares: Mapping[str, float]
    queries_per_passage: int
    max_tokens: int
    temperature: float
    repairs: int
    max_query_characters: int
    max_copied_share: float
    near_duplicate_query: float
    round_trip_depth: int
    answerable_by: Literal["llm", "reranker", "nobody"]
    mark_depth: int
    negatives_per_query: int
    timeout_seconds: float
    attempts: int
    token_budget: int | None
    prompt_price: float
    completion_price: float
    batch_tokens: int
    trust_remote_code: bool

    @property
    def prices(self) -> Prices:
        """Of a million tokens."""
        return Prices(prompt=self.prompt_price, completion=self.completion_price)

    def inputs(self, prompts: Path | None) -> dict[str, InputEntry]:
        """What replies depend on: the model's name at an endpoint, and the prompts by content.

        Args:
            prompts: the folder of the user's prompts on this disk; None: the shipped ones.
        """
        texts = InputEntry(address=self.prompts or "shipped", fingerprint=load_prompts(prompts).sha256)
        if self.backend == "transformers":
            return {"prompts": texts}
        name = hashlib.sha256(f"endpoint {self.model}".encode()).hexdigest()
        return {"prompts": texts, "llm": InputEntry(address=self.model, fingerprint=name)}

    def access(self) -> Access:
        """The endpoint.

        Raises:
            InputError: neither an endpoint nor a key is there.
        """
        return find_access(model=self.model, base_url=self.base_url, key_variable=self.api_key_variable)

    def require_access(self) -> None:
        """Before anything is read or loaded, where calls are certain: without an endpoint nothing can come of it.

        Raises:
            InputError: neither an endpoint nor a key is there.
        """
        if self.sources != "auto" and "llm" in self.sources and self.backend == "endpoint":
            self.access()

    def estimate(self, files: Mapping[str, str], store: Store) -> list[str]:
        """Lines that say what would be asked, as far as it can be told from the files alone.

        Args:
            files: addresses by name of the input.
            store: where they are looked for.
        """
        documents = find_raw(files["documents"], store)
        if documents is None:
            return []
        from nearer.generate.estimate import estimate_calls

        return estimate_calls(
            documents,
            queries=find_raw(files["queries"], store) if "queries" in files else None,
            enhanced="enhanced" in files,
            sources=self.sources,
            prompts=load_prompts(find_raw(files["prompts"], store) if "prompts" in files else None),
            model=self.model,
            shares=self.shares,
            queries_per_passage=self.queries_per_passage,
            max_queries=self.max_queries,
            passage_tokens=self.passage_tokens,
            answerable=self.answerable_by == "llm",
            mark_depth=self.mark_depth,
            negatives_per_query=self.negatives_per_query,
            prices=self.prices,
            token_budget=self.token_budget,
        )

    def language_model(
        self, author: Callable[[], Author], *, score_pairs: ScorePairs, seed: int, progress: Progress
    ) -> LanguageModel:
        """The language model, made ready when it is asked first.

        Args:
            author: makes who writes.
            score_pairs: the reranker, which is asked only where it decides whether a query is answered.
            seed: of the draws.
            progress: hears of it.
        """
        from nearer.generate.language_model import LanguageModel
        from nearer.generate.written import Writing

        writing = Writing(
            shares=self.shares,
            queries_per_passage=self.queries_per_passage,
            # Filters take some: a third more are asked for than may be kept.
            at_most=None if self.max_queries is None else self.max_queries + self.max_queries // 3,
            max_query_characters=self.max_query_characters,
            max_copied_share=self.max_copied_share,
            near_duplicate_query=self.near_duplicate_query,
            round_trip_depth=self.round_trip_depth,
            answerable_by=self.answerable_by,
            mark_depth=self.mark_depth,
            negatives_per_query=self.negatives_per_query,
        )
        return LanguageModel(
            author,
            writing=writing,
            score_pairs=score_pairs if self.answerable_by == "reranker" else None,
            seed=seed,
            progress=progress,
        )

    def author(
        self,
        store: Store,
        *,
        address: str,
        source: ModelSource | None,
        prompts: Path | None,
        shard: Shard,
        seeds: Sequence[Path],
        progress: Progress,
    ) -> AbstractContextManager[Author]:
        """Who writes, with every reply that an earlier run has paid for.

        Args:
            store: where replies are kept.
            address: the dataset's; its ledger is kept beside it.
            source: the model of this process; None: an endpoint is asked.
            prompts: the folder of the user's prompts on this disk; None: the shipped ones.
            shard: the calls that are this process's.
            seeds: files of replies from other shards.
            progress: hears of it.

        Raises:
            InputError: the model cannot be loaded, or no endpoint is there.
        """
        from nearer.generate.prepare import open_author

        return open_author(
            self._backend(source, progress),
            store=store,
            address=address,
            shard=shard,
            seeds=seeds,
            prompts=load_prompts(prompts),
            prices=self.prices,
            token_budget=self.token_budget,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            repairs=self.repairs,
            progress=progress,
        )

    def _backend(self, source: ModelSource | None, progress: Progress) -> Backend:
        """What answers: a model of this process, or an endpoint."""
        if source is not None:
            from nearer.models.causal_lm import load_causal_lm

            return load_causal_lm(source, trust_remote_code=self.trust_remote_code, batch_tokens=self.batch_tokens)
        from nearer.llm.endpoint import Endpoint

        return Endpoint(
            model=self.model,
            access=self.access(),
            concurrent=self.concurrent,
            delay_seconds=self.delay_seconds,
            timeout_seconds=self.timeout_seconds,
            attempts=self.attempts,
            warn=progress.warn,
        )
