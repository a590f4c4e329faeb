"""Steps to tensors: texts tokenised once, batches cut into groups of like length so that little is padded.

Cutting a step into several forward passes changes neither its loss nor its gradient; on a CPU it saves the time that
padding would cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from nearer.models.encode import pad, tokenize
from nearer.train.longest import longest, stretch
from nearer.train.loss import NEGATIVE, NEITHER, POSITIVE
from nearer.train.rows import Material
from nearer.train.schedule import Example, Pair, Schedule
from nearer.train.world import ALONE, World

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


def even_groups(lengths: Sequence[int], *, count: int) -> list[list[int]]:
    """Row numbers in `count` groups of like length and, but for one, like size, longest first."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [group.tolist() for group in np.array_split(order, count)]


def group_count(rows: Sequence[int], *, chunk: int | None) -> int:
    """In how many groups of at most `chunk` rows every process cuts its rows: as many as the others, none empty.

    A forward pass under ZeRO-3, and a backward pass under each stage, is a collective.
    """
    return min(math.ceil(max(rows) / chunk), *rows) if chunk else 1


@dataclass(kw_only=True)
class EmbedderCollator:
    """Steps of an embedder: groups of queries, groups of texts, and the relation of each query to each text.

    A run of one process that is not cut into chunks has plain relations as labels. Else each process has its part of
    the step's queries with their texts, and the relations of these to the texts of all processes; every process knows
    the whole step, so nothing is exchanged.
    """

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
    world: World = ALONE
    chunk: int | None = None
    plain: bool = True
    longest: bool = False
    """Every text is made as long as the longest: to see whether that fits."""
    _tokens: dict[str, dict[str, list[int]]] = field(default_factory=dict, init=False)

    def __call__(self, steps: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """The tensors of one step, under the names that SentenceTransformerTrainer takes apart again."""
        import torch

        examples = self.schedule.batch(steps[0]["step"], rows=self.rows)
        if not self.plain:
            return self._part(examples)
        keys = [example.row.positive for example in examples]
        keys += [key for example in examples for key in example.negatives]
        queries = self._encode([f"query {example.row.query_id}" for example in examples])
        texts = self._encode([f"text {key}" for key in keys])
        batch: dict[str, Any] = {}
        orders = []
        for name, encoded in (("query", queries), ("passage", texts)):
            lengths = [len(ids) for ids in encoded["input_ids"]]
            groups = length_groups(lengths) if self.groups else [list(range(len(lengths)))]
            for number, group in enumerate(groups):
                batch |= _named(f"{name}{number}", self._pad(encoded, group, side=name))
            orders.append([row for group in groups for row in group])
        batch["label"] = torch.from_numpy(relation_matrix(self.material, examples, keys)[np.ix_(*orders)])
        return batch

    def _part(self, examples: Sequence[Example]) -> dict[str, Any]:
        """This process's part of a step; `label` is what `ContrastiveLoss.slopes` takes."""
        import torch

        parts = [[examples[place] for place in self.world.part(len(examples), rank)] for rank in range(self.world.size)]
        keys = [
            [example.row.positive for example in part] + [key for example in part for key in example.negatives]
            for part in parts
        ]
        own = parts[self.world.rank]
        queries = self._encode([f"query {example.row.query_id}" for example in own])
        texts = self._encode([f"text {key}" for key in keys[self.world.rank]])
        batch: dict[str, Any] = {}
        count = group_count([len(part) for part in parts], chunk=self.chunk)
        for number, part in enumerate(np.array_split(range(len(own)), count)):
            batch |= _named(f"query{number}", self._pad(queries, part.tolist(), side="query"))
        groups = even_groups(
            [len(ids) for ids in texts["input_ids"]], count=group_count([len(part) for part in keys], chunk=self.chunk)
        )
        for number, group in enumerate(groups):
            batch |= _named(f"passage{number}", self._pad(texts, group, side="passage"))
        shuffled = torch.tensor([row for group in groups for row in group])
        columns = [key for part in keys for key in part]
        positives = [sum(map(len, keys[: self.world.rank])) + line for line in range(len(own))]
        batch["label"] = {
            "query_groups": count,
            "rows": len(examples),
            "order": torch.argsort(shuffled),
            "relations": torch.from_numpy(relation_matrix(self.material, own, columns, positives=positives)),
        }
        return batch

    def _pad(self, encoded: Mapping[str, Any], group: Sequence[int], *, side: str) -> dict[str, Any]:
        features = pad(self.tokenizer, encoded, group)
        if not self.longest:
            return features
        texts, prefix, most = (
            (self.material.queries, self.query_prefix, self.max_query_tokens)
            if side == "query"
            else (self.material.texts, self.passage_prefix, self.max_passage_tokens)
        )
        return stretch(features, longest(self.tokenizer, texts.values(), prefix=prefix, most=most))

    def _encode(self, names: Sequence[str]) -> dict[str, list[list[int]]]:
        missing = [name for name in dict.fromkeys(names) if name not in self._tokens]
        for side, prefix, most in (
            ("query", self.query_prefix, self.max_query_tokens),
            ("text", self.passage_prefix, self.max_passage_tokens),
        ):
            new = [name for name in missing if name.startswith(f"{side} ")]
            if not new:
                continue
            source = self.material.queries if side == "query" else self.material.texts
            texts = [prefix + source[name.removeprefix(f"{side} ")] for name in new]
            encoded = tokenize(self.tokenizer, texts, max_tokens=most)
            for place, name in enumerate(new):
                self._tokens[name] = {part: values[place] for part, values in encoded.items()}
        parts = self._tokens[names[0]]
        return {part: [self._tokens[name][part] for name in names] for part in parts}


@dataclass(kw_only=True)
class RerankerCollator:
    """Steps of a reranker: groups of pairs, and their labels, as `PairLoss` takes them or, with `lists`, `ListLoss`."""

    valid_label_columns: list[str] = field(default_factory=lambda: ["label"], init=False)
    material: Material
    schedule: Schedule
    tokenizer: Any
    pairs: int
    query_prefix: str
    passage_prefix: str
    max_pair_tokens: int
    groups: bool
    lists: bool = False
    world: World = ALONE
    chunk: int | None = None
    plain: bool = True
    longest: bool = False
    """Every pair is made as long as the longest: to see whether that fits."""

    def __call__(self, steps: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """The tensors of one step, each group a value of its own, as CrossEncoderTrainer passes them on."""
        import torch

        every = self._units(self.schedule.pairs(steps[0]["step"], count=self.pairs))
        parts = [[every[place] for place in self.world.part(len(every), rank)] for rank in range(self.world.size)]
        # A process without a pair, in a step that has few, goes along with one that counts nothing.
        own = parts[self.world.rank] or every[:1]
        pairs = [pair for unit in own for pair in unit]
        encoded = tokenize(
            self.tokenizer,
            [self.query_prefix + self.material.queries[pair.query_id] for pair in pairs],
            [self.passage_prefix + self.material.texts[pair.key] for pair in pairs],
            max_tokens=self.max_pair_tokens,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if not self.plain:
            sizes = [sum(map(len, part or every[:1])) for part in parts]
            groups = even_groups(lengths, count=group_count(sizes, chunk=self.chunk))
        else:
            groups = length_groups(lengths, min_rows=_MIN_ROWS // 2) if self.groups else [list(range(len(pairs)))]
        batch: dict[str, Any] = {
            f"pairs{number}": pad(self.tokenizer, encoded, group) for number, group in enumerate(groups)
        }
        if self.longest:
            most = self._longest()
            batch = {name: stretch(features, most) for name, features in batch.items()}
        order = [row for group in groups for row in group]
        labels = torch.tensor([float(pair.label) for pair in pairs])
        if self.lists or not self.plain:
            share = 1 / len(every) if parts[self.world.rank] else 0.0
            labels = torch.stack([labels, torch.full_like(labels, share)], dim=1)
        if self.lists:
            numbers = [float(number) for number, unit in enumerate(own) for _ in unit]
            labels = torch.cat([labels, torch.tensor(numbers)[:, None]], dim=1)
        batch["label"] = labels[order]
        return batch

    def _longest(self) -> int:
        most = self.max_pair_tokens
        query = longest(self.tokenizer, self.material.queries.values(), prefix=self.query_prefix, most=most)
        text = longest(self.tokenizer, self.material.texts.values(), prefix=self.passage_prefix, most=most)
        return min(most, query + text)

    def _units(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """What a process takes as a whole: pairs, or lists, each an answer followed by its negatives."""
        if not self.lists:
            return [[pair] for pair in pairs]
        starts = [place for place, pair in enumerate(pairs) if pair.label]
        return [list(pairs[start:end]) for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True)]


def relation_matrix(
    material: Material, examples: Sequence[Example], keys: Sequence[str], *, positives: Sequence[int] | None = None
) -> np.ndarray:
    """What each text of a step is to each query.

    Args:
        material: knows the relations.
        examples: of the step.
        keys: of the texts.
        positives: number of each query's own answer among the texts; default: query i's is text i.

    Returns:
        (examples, texts) int8 of POSITIVE (once a row), NEGATIVE, NEITHER.
    """
    relations = material.relations
    by_text: dict[str, list[int]] = {}
    by_document: dict[str, list[int]] = {}
    for column, key in enumerate(keys):
        by_text.setdefault(relations.one(key), []).append(column)
        if key in relations.document_of:
            by_document.setdefault(relations.document_of[key], []).append(column)
    matrix = np.full((len(examples), len(keys)), NEGATIVE, dtype=np.int8)
    for line, example in enumerate(examples):
        query = example.row.query_id
        for answer in relations.answers[query]:
            matrix[line, by_text.get(answer, [])] = NEITHER
        for document in relations.judged_documents[query]:
            matrix[line, by_document.get(document, [])] = NEITHER
        matrix[line, line if positives is None else positives[line]] = POSITIVE
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
