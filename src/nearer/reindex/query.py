"""Searching an index with the model that made it, and with no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearer.errors import ArtifactCorrupt, ArtifactMissing, ContractMismatch
from nearer.models.contract import Contract
from nearer.models.encode import Embedder
from nearer.records import Hit, Passage
from nearer.reindex.aliases import StoreAliases
from nearer.reindex.embedded import EmbeddedSink
from nearer.reindex.shards import unit
from nearer.store import Store


@dataclass(frozen=True, kw_only=True)
class Index:
    """A generation, opened for queries."""

    generation: str
    contract: Contract
    sink: EmbeddedSink

    @classmethod
    def open(cls, store: Store, output_dir: str, alias: str = "current") -> Index:
        """Open the generation that an alias points to, its bytes verified.

        Args:
            store: that holds it.
            output_dir: `reindex.output_dir`.
            alias: `reindex.alias`.

        Raises:
            ArtifactMissing: there is no such alias, or its generation is gone.
            ArtifactCorrupt: bytes are not those of the manifest.
        """
        aliases = StoreAliases(store, output_dir)
        generation = aliases.current(alias)
        if generation is None:
            raise ArtifactMissing(
                f"no alias {alias!r}",
                where=store.resolve(output_dir),
                rule="an alias that `nearer reindex` has set",
                way_out="make an index: `nearer reindex`",
            )
        artifact = store.open(aliases.address(generation), kind="index")
        contract = Contract.load(artifact.path)
        if contract is None:
            raise ArtifactCorrupt("the index has no contract.json", where=artifact.address)
        return cls(generation=generation, contract=contract, sink=EmbeddedSink(artifact.path))

    def search(self, queries: Sequence[str], embedder: Embedder, k: int = 10) -> list[list[Hit]]:
        """The k nearest passages of each query, best first, ties by ascending id.

        Args:
            queries: texts without prefix.
            embedder: the model that made the index.
            k: at most so many hits a query.

        Raises:
            ContractMismatch: the embedder's contract is not the index's; shows both sides.
        """
        self.require(embedder)
        return self.search_vectors(embedder.encode_queries(queries), k)

    def search_vectors(self, vectors: np.ndarray, k: int = 10) -> list[list[Hit]]:
        """As `search`, for query vectors (m, dimension) that were made elsewhere by the index's own model.

        Raises:
            ContractMismatch: another number of dimensions, which is all that a vector tells of its model.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.contract.dimension:
            raise ContractMismatch(
                f"query vectors of shape {vectors.shape} do not fit the index of {self.contract.dimension} dimensions",
                rule=f"shape (queries, {self.contract.dimension})",
                way_out=f"encode queries with {self.contract.base_model}, the model that made the index",
            )
        return self.sink.search(unit(vectors) if self.contract.similarity == "cosine" else vectors, k)

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """The passages of these ids, in their order."""
        return self.sink.passages(ids)

    def require(self, embedder: Embedder) -> None:
        """Refuse any model but the one that made the index.

        How documents are cut and rendered is left out of the comparison where the model says nothing of it (a base
        model): that was decided when the index was made, and queries do not depend on it. So is the name of the base
        model where the weights are the same bytes.

        Raises:
            ContractMismatch: shows both sides of what differs.
        """
        contract, ours = embedder.contract, self.contract
        if contract.chunker is None:
            contract = replace(
                contract,
                chunker=ours.chunker,
                chunk_tokens=ours.chunk_tokens,
                passage_template=ours.passage_template,
            )
        if contract.weights_sha256 == ours.weights_sha256:
            contract = replace(contract, base_model=ours.base_model, base_revision=ours.base_revision)
        contract.require_same(self.contract, ours="the model", theirs=f"index generation {self.generation}")
