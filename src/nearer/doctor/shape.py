"""What a dataset looks like: how long its texts are, how many there are of each kind, and in which language."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nearer.corpus.dataset import Dataset
from nearer.records import ORIGINS, Judgment

_BARS: Final = 24


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Numbers in bars: the lower edge and the count of each, and where a limit lies."""

    name: str
    unit: str
    bars: tuple[tuple[float, int], ...]
    least: float
    median: float
    p95: float
    most: float
    limit: float | None = None


def by_query(dataset: Dataset) -> tuple[dict[str, list[Judgment]], dict[str, list[Judgment]]]:
    """Judgments by query, of train and of test."""
    parts: tuple[dict[str, list[Judgment]], dict[str, list[Judgment]]] = ({}, {})
    for part, judgments in zip(parts, (dataset.train, dataset.test), strict=True):
        for judgment in judgments:
            part.setdefault(judgment.query_id, []).append(judgment)
    for query in dataset.positives:
        parts[0].setdefault(query, [])
    return parts


def histogram(name: str, unit: str, values: Sequence[int], limit: float | None) -> Histogram:
    """Up to 24 bars of equal width over the lower 99 %; the last one takes the rest."""
    numbers = np.asarray(values)
    low, high = float(numbers.min()), max(float(np.quantile(numbers, 0.99)), float(numbers.min()) + 1)
    bars = int(min(_BARS, high - low + 1))
    edges = np.linspace(low, high, bars + 1)
    counts, _ = np.histogram(np.minimum(numbers, high), bins=edges)
    return Histogram(
        name=name,
        unit=unit,
        bars=tuple((round(float(edge), 1), int(count)) for edge, count in zip(edges, counts, strict=False)),
        least=float(numbers.min()),
        median=float(np.median(numbers)),
        p95=float(np.quantile(numbers, 0.95)),
        most=float(numbers.max()),
        limit=limit,
    )


def counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """How many there are of everything that can be counted."""
    train, test = by_query(dataset)
    origins = {
        name: Counter(dataset.queries[id_].origin for id_ in part) for name, part in (("train", train), ("test", test))
    }
    return {
        "dataset": {
            "documents": len({passage.document_id for passage in dataset.passages.values()}),
            "groups of near-duplicates": len(set(dataset.groups.values())),
            "passages": len(dataset.passages),
            "train queries": len(train),
            "test queries": len(test),
            "hard negatives": sum(map(len, dataset.negatives.values())),
        },
        **{
            f"{name} queries by origin": {origin: found[origin] for origin in ORIGINS if found[origin]}
            for name, found in origins.items()
        },
        "ideal contexts of a train query": _numbers(
            len(judgments) + len(dataset.positives.get(id_, ())) for id_, judgments in train.items()
        ),
        "hard negatives of a train query": _numbers(len(dataset.negatives.get(id_, ())) for id_ in train),
        "hard negatives by miner": dict(
            Counter(negative.miner for found in dataset.negatives.values() for negative in found).most_common()
        ),
        "queries by language": _languages(query.text for query in dataset.queries.values()),
        "passages by language": _languages(passage.text for passage in dataset.passages.values()),
    }


def _numbers(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _languages(texts: Iterable[str]) -> dict[str, int]:
    return dict(Counter(map(language, texts)).most_common())


def language(text: str) -> str:
    """By script: `Korean` from a fifth of Hangul letters on, for technical Korean is full of Latin words."""
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return "no letters"
    scripts = Counter(unicodedata.name(character, "OTHER").split()[0] for character in letters)
    hangul, latin = scripts["HANGUL"] / len(letters), scripts["LATIN"] / len(letters)
    if hangul >= 1 / 5:
        return "Korean"
    if scripts["HIRAGANA"] + scripts["KATAKANA"]:
        return "Japanese"
    if scripts["CJK"] / len(letters) >= 1 / 2:
        return "Chinese characters"
    return "Latin script" if latin >= 1 / 2 else "other script"
