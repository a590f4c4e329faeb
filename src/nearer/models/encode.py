"""Texts to vectors, as the model contract says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nearer import process
from nearer.errors import InputError
from nearer.models.contract import Contract
from nearer.models.precision import Precision
from nearer.progress import Progress, Silent

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_WINDOW = 4096  # texts that are tokenised and sorted by length at a time: bounds the memory of token ids


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A SentenceTransformer and the contract by which it is used."""

    contract: Contract
    model: SentenceTransformer
    precision: Precision = "fp32"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special tokens not counted, nothing cut."""
        if not texts:
            return []
        encoded = self.model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def encode_queries(
        self, texts: Sequence[str], *, batch_tokens: int = 8192, progress: Progress | None = None
    ) -> np.ndarray:
        """Vectors of queries; the contract's query prefix is written before each.

        Returns:
            (n, dimension) float32, in the order of the texts; of unit length if the contract says so.
        """
        return self._encode(
            texts,
            prefix=self.contract.query_prefix,
            max_tokens=self.contract.max_query_tokens,
            batch_tokens=batch_tokens,
            progress=progress,
            what="encoding queries",
        )

    def encode_passages(
        self, texts: Sequence[str], *, batch_tokens: int = 8192, progress: Progress | None = None
    ) -> np.ndarray:
        """Vectors of passages that the contract's template has rendered; its passage prefix is written before each.

        Returns:
            (n, dimension) float32, in the order of the texts; of unit length if the contract says so.
        """
        return self._encode(
            texts,
            prefix=self.contract.passage_prefix,
            max_tokens=self.contract.max_passage_tokens,
            batch_tokens=batch_tokens,
            progress=progress,
            what="encoding passages",
        )

    def _encode(
        self,
        texts: Sequence[str],
        *,
        prefix: str,
        max_tokens: int | None,
        batch_tokens: int,
        progress: Progress | None,
        what: str,
    ) -> np.ndarray:
        import torch

        use_all_cores()
        self.model.eval()
        vectors = np.zeros((len(texts), self.contract.dimension or 0), dtype=np.float32)
        prefixed = [prefix + text for text in texts]
        with torch.inference_mode():
            for start in (progress or Silent()).track(range(0, len(texts), _WINDOW), what=what):
                encoded = tokenize(self.model.tokenizer, prefixed[start : start + _WINDOW], max_tokens=max_tokens)
                for rows in batches([len(ids) for ids in encoded["input_ids"]], batch_tokens=batch_tokens):
                    process.STOP.check()
                    features = pad(self.model.tokenizer, encoded, rows)
                    moved = {name: tensor.to(self.model.device) for name, tensor in features.items()}
                    embedding = self.model(moved)["sentence_embedding"].float()
                    if self.contract.normalize:
                        embedding = torch.nn.functional.normalize(embedding, dim=-1)
                    vectors[[start + row for row in rows]] = embedding.cpu().numpy()
        return vectors


def tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_tokens: int | None
) -> Mapping[str, list[list[int]]]:
    """Token ids (and token types, where the model has them) of texts or text pairs, cut and not yet padded.

    Raises:
        InputError: the maximum leaves no place for text; the library would then cut nothing at all.
    """
    special = tokenizer.num_special_tokens_to_add(pairs is not None)
    if max_tokens is not None and max_tokens <= special:
        raise InputError(
            f"at most {max_tokens} tokens, of which {special} are special",
            rule="a maximum that leaves a place for text",
            way_out=f"{special + 1} or more, of passages some 256",
        )
    encoded: Mapping[str, list[list[int]]] = tokenizer(
        list(texts), None if pairs is None else list(pairs), truncation=True, max_length=max_tokens, padding=False
    )
    return encoded


def batches(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, longest first, of at most `batch_tokens` padded tokens (or one row)."""
    rows: list[int] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if rows and longest * (len(rows) + 1) > batch_tokens:
            yield rows
            rows = []
        if not rows:
            longest = max(1, lengths[row])
        rows.append(row)
    if rows:
        yield rows


def pad(tokenizer: Any, encoded: Mapping[str, list[list[int]]], rows: Sequence[int]) -> dict[str, torch.Tensor]:
    """Tensors (rows, longest) of some rows, on the CPU, padded on the tokenizer's side."""
    import torch

    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id, "attention_mask": 0}
    longest = max(len(encoded["input_ids"][row]) for row in rows)
    left = tokenizer.padding_side == "left"
    padded = {}
    for name, values in encoded.items():
        array = np.full((len(rows), longest), fill[name], dtype=np.int64)
        for line, row in enumerate(rows):
            ids = values[row]
            array[line, longest - len(ids) if left else 0 : longest if left else len(ids)] = ids
        padded[name] = torch.from_numpy(array)
    return padded


@cache
def use_all_cores() -> None:
    """Let PyTorch use the cores that this process may use (its own default ignores the container's quota), once."""
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(process.cpu_count())
