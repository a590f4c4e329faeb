"""What generate works with, made ready: the models of this process, and whoever writes for the language model."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nearer.corpus.chunk import CHUNKER
from nearer.generate.author import Author
from nearer.generate.kinds import shard_of
from nearer.generate.prompts import Prompts
from nearer.generate.shards import Shard, earlier_replies, ledger_area
from nearer.llm.ask import Asker
from nearer.llm.ledger import Ledger
from nearer.llm.prices import Prices
from nearer.llm.request import Backend
from nearer.models.cache import encode_cached
from nearer.models.load import load_embedder, load_reranker
from nearer.models.precision import WantedPrecision
from nearer.models.source import ModelSource
from nearer.progress import Progress
from nearer.store import Store

if TYPE_CHECKING:
    import numpy as np

    from nearer.models.score import Reranker


class Models:
    """An embedder and, loaded when it is asked first, a reranker.

    Args:
        embedder: where the embedder is.
        reranker: where the reranker is; None where no pair will be scored.
        trust_remote_code: whether the embedder's own code may run.
        template: how title, headings and text make a passage.
        max_tokens: the longest passage.
        batch_tokens: tokens that pass through a model at once.
        vectors: the folder in which vectors are kept for the next run.
        progress: hears of it.

    Raises:
        InputError: the embedder cannot be loaded.
    """

    def __init__(
        self,
        *,
        embedder: ModelSource,
        reranker: ModelSource | None,
        trust_remote_code: bool,
        precision: WantedPrecision,
        template: str,
        max_tokens: int,
        batch_tokens: int,
        vectors: Path,
        progress: Progress,
    ) -> None:
        self._reranker_source, self._template, self._batch_tokens = reranker, template, batch_tokens
        self._precision: WantedPrecision = precision
        self._vectors, self._progress = vectors, progress
        self._embedder = load_embedder(
            embedder,
            trust_remote_code=trust_remote_code,
            precision=precision,
            passage_template=template,
            chunker=CHUNKER,
            chunk_tokens=max_tokens,
        )
        self.count_tokens = self._embedder.count_tokens
        self.tokenizer_sha256 = self._embedder.contract.tokenizer_sha256

    def encode(self, texts: Any, side: Literal["query", "passage"]) -> np.ndarray:
        """Vectors of the embedder, float32 of shape (texts, dimension)."""
        return encode_cached(
            self._embedder,
            texts,
            side=side,
            directory=self._vectors,
            batch_tokens=self._batch_tokens,
            progress=self._progress,
        )

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        """The reranker's score of each query and passage."""
        scores: list[float] = self._reranker.score(pairs, batch_tokens=self._batch_tokens).tolist()
        return scores

    @functools.cached_property
    def _reranker(self) -> Reranker:
        assert self._reranker_source  # noqa: S101 - who scores pairs has named it
        return load_reranker(self._reranker_source, passage_template=self._template, precision=self._precision)


@contextmanager
def open_author(
    backend: Backend,
    *,
    store: Store,
    address: str,
    shard: Shard,
    seeds: Sequence[Path],
    prompts: Prompts,
    prices: Prices,
    token_budget: int | None,
    temperature: float,
    max_tokens: int,
    repairs: int,
    progress: Progress,
) -> Iterator[Author]:
    """Who writes, with every reply that an earlier run has paid for.

    Args:
        backend: what answers.
        store: where replies are kept.
        address: the dataset's; its ledger is kept beside it.
        shard: the calls that are this process's.
        seeds: files of replies from other shards.
        prompts: what is asked.
        prices: of a million tokens.
        token_budget: most tokens of this run; None: no bound.
        temperature: of sampling.
        max_tokens: of a reply.
        repairs: attempts at a reply that cannot be read.
        progress: hears of it.
    """
    with store.work(ledger_area(store.resolve(address), shard)) as area:
        ledger = Ledger(area, seeds=(*seeds, *earlier_replies(store, address, shard)), progress=progress)
        try:
            yield Author(
                asker=Asker(
                    backend=backend, ledger=ledger, token_budget=token_budget, prices=prices, progress=progress
                ),
                prompts=prompts,
                temperature=temperature,
                max_tokens=max_tokens,
                repairs=repairs,
                mine=lambda id_: shard_of(id_, shards=shard.count) == shard.index,
            )
        finally:
            ledger.close()
