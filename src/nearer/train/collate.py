"""Steps to tensors: texts tokenised once, batches cut into groups of like length so that little is padded.

Cutting a step into several forward passes changes neither its loss nor its gradient; on a CPU it saves the time that
padding would cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from nearer.models.encode import pad, tokenize
from nearer.train.loss import NEGATIVE, NEITHER, POSITIVE
from nearer.train.rows import Material
from nearer.train.schedule import Example, Schedule

_MIN_ROWS: Final = 8
"""A smaller forward pass costs more in overhead than its padding saved."""
_MAX_PADDING: Final = 0.15
"""A group is closed when its next row would be padded by more than this share. Measured, see docs/log.md."""


def length_groups(lengths: Sequence[int], *, min_rows: int = _MIN_ROWS) -> list[list[int]]:
    """Row numbers in groups of like length, longest first, each of at least `min_rows` rows if there are so many."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    groups: list[list[int]] = []
    for place, row in enumerate(order):
        left = len(order) - place
        fits = groups and lengths[row] >= (1 - _MAX_PADDING) * lengths[groups[-1][0]]
        if not groups or (not fits and len(groups[-1]) >= min_rows and left >= min_rows):
            groups.append([])
        groups[-1].append(row)
    return groups


@dataclass(kw_only=True)
class EmbedderCollator:
    """Steps of an embedder: one group of queries, groups of texts, and the relation of each query to each text."""

    valid_label_columns: list[str] = field(default_factory=lambda: ["label"], init=False)
    material: Material
    schedule: Schedule
    tokenizer: Any
    rows: int
    query_prefix: str
    passage_prefix: str
    max_query_tokens: int
    max_passage_tokens: int
    groups: bool
    _tokens: dict[str, dict[str, list[int]]] = field(default_factory=dict, init=False)

    def __call__(self, steps: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """The tensors of one step, under the names that SentenceTransformerTrainer takes apart again."""
        import torch

        examples = self.schedule.batch(steps[0]["step"], rows=self.rows)
        keys = [example.row.positive for example in examples]
        keys += [key for example in examples for key in example.negatives]
        queries = self._encode([f"query {example.row.query_id}" for example in examples])
        texts = self._encode([f"text {key}" for key in keys])
        lengths = [len(ids) for ids in texts["input_ids"]]
        groups = length_groups(lengths) if self.groups else [list(range(len(keys)))]
        batch = _named("query", pad(self.tokenizer, queries, range(len(examples))))
        for number, group in enumerate(groups):
            batch |= _named(f"passage{number}", pad(self.tokenizer, texts, group))
        order = [row for group in groups for row in group]
        batch["label"] = torch.from_numpy(relation_matrix(self.material, examples, keys)[:, order])
        return batch

    def _encode(self, names: Sequence[str]) -> dict[str, list[list[int]]]:
        missing = [name for name in dict.fromkeys(names) if name not in self._tokens]
        for side, prefix, longest in (
            ("query", self.query_prefix, self.max_query_tokens),
            ("text", self.passage_prefix, self.max_passage_tokens),
        ):
            new = [name for name in missing if name.startswith(f"{side} ")]
            if not new:
                continue
            source = self.material.queries if side == "query" else self.material.texts
            texts = [prefix + source[name.removeprefix(f"{side} ")] for name in new]
            encoded = tokenize(self.tokenizer, texts, max_tokens=longest)
            for place, name in enumerate(new):
                self._tokens[name] = {part: values[place] for part, values in encoded.items()}
        parts = self._tokens[names[0]]
        return {part: [self._tokens[name][part] for name in names] for part in parts}


@dataclass(kw_only=True)
class RerankerCollator:
    """Steps of a reranker: groups of pairs, and their labels."""

    valid_label_columns: list[str] = field(default_factory=lambda: ["label"], init=False)
    material: Material
    schedule: Schedule
    tokenizer: Any
    pairs: int
    query_prefix: str
    passage_prefix: str
    max_pair_tokens: int
    groups: bool

    def __call__(self, steps: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """The tensors of one step, each group a value of its own, as CrossEncoderTrainer passes them on."""
        import torch

        pairs = self.schedule.pairs(steps[0]["step"], count=self.pairs)
        encoded = tokenize(
            self.tokenizer,
            [self.query_prefix + self.material.queries[pair.query_id] for pair in pairs],
            [self.passage_prefix + self.material.texts[pair.key] for pair in pairs],
            max_tokens=self.max_pair_tokens,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        groups = length_groups(lengths, min_rows=_MIN_ROWS // 2) if self.groups else [list(range(len(pairs)))]
        batch: dict[str, Any] = {
            f"pairs{number}": pad(self.tokenizer, encoded, group) for number, group in enumerate(groups)
        }
        order = [row for group in groups for row in group]
        batch["label"] = torch.tensor([float(pairs[row].label) for row in order])
        return batch


def relation_matrix(material: Material, examples: Sequence[Example], keys: Sequence[str]) -> np.ndarray:
    """What each text of a step is to each query.

    Args:
        material: knows the relations.
        examples: of the step; query i's own answer is text i.
        keys: of the texts: the answers in the order of the examples, then all negatives.

    Returns:
        (examples, texts) int8 of POSITIVE (on the diagonal), NEGATIVE, NEITHER.
    """
    matrix = np.full((len(examples), len(keys)), NEGATIVE, dtype=np.int8)
    for line, example in enumerate(examples):
        query = example.row.query_id
        neither = [column for column, key in enumerate(keys) if not material.relations.is_negative(query, key)]
        matrix[line, neither] = NEITHER
        matrix[line, line] = POSITIVE
    return matrix


def _named(name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_{part}": tensor for part, tensor in tensors.items()}


def truncated_share(tokenizer: Any, texts: Sequence[str], *, max_tokens: int) -> float:
    """Share of the texts that are longer than `max_tokens`, special tokens counted."""
    return sum(length > max_tokens for length in _lengths(tokenizer, texts)) / len(texts) if texts else 0.0


def _lengths(tokenizer: Any, texts: Sequence[str]) -> Iterator[int]:
    for start in range(0, len(texts), 4096):
        encoded = tokenizer(list(texts[start : start + 4096]), truncation=False, verbose=False)
        yield from (len(ids) for ids in encoded["input_ids"])


def pair_truncated_share(tokenizer: Any, pairs: Sequence[tuple[str, str]], *, max_tokens: int) -> float:
    """Share of the pairs that are longer than `max_tokens`, special tokens counted."""
    if not pairs:
        return 0.0
    encoded = tokenizer([query for query, _ in pairs], [text for _, text in pairs], truncation=False, verbose=False)
    return sum(len(ids) > max_tokens for ids in encoded["input_ids"]) / len(pairs)
