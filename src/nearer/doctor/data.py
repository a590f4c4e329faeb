"""What is wrong with a dataset: leaks, suspicious negatives, what a model would not read.

Everything is looked for again in the finished files, so that a mistake of the maker does not hide itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nearer.corpus.dataset import Dataset
from nearer.corpus.group import group
from nearer.corpus.leak import find_leaks
from nearer.corpus.sameness import jaccard, normal, shingles
from nearer.doctor.shape import Histogram, by_query, counts, histogram
from nearer.records import Negative

_SAMPLES: Final = 5
_QUERY_SHINGLE: Final = 3
_NEAR_QUERY: Final = 0.8  # Jaccard of character 3-grams; as much alike as one particle or word ending apart. A guess.
_CLOSE: Final = 0.95  # of the share of the positive's score that the rule allows

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of trouble: how often, out of how many, and a few cases. `grave`: measurements cannot be trusted."""

    name: str
    meaning: str
    count: int
    of: int
    grave: bool = False
    samples: tuple[tuple[str, str], ...] = ()

    @property
    def state(self) -> str:
        """`good`, `look` (at it) or `bad`."""
        return "good" if not self.count else "bad" if self.grave else "look"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All of it, for the page and for the terminal."""

    dataset: str
    findings: tuple[Finding, ...]
    histograms: tuple[Histogram, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def leaks(self) -> int:
        """How many grave findings there are."""
        return sum(finding.count for finding in self.findings if finding.grave)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model would read the data: its tokenizer and its limits in tokens; None: not known."""

    count_tokens: CountTokens
    max_query_tokens: int | None
    max_passage_tokens: int | None
    render: Callable[[Any], str]


def diagnose(
    dataset: Dataset, *, name: str, near_duplicate: float, max_share: float, seed: int, reading: Reading | None
) -> Diagnosis:
    """Look at everything.

    Args:
        dataset: as it stands in the store.
        name: its address.
        near_duplicate: as `generate.near_duplicate`.
        max_share: as `generate.negatives.max_share_of_positive`.
        seed: of the MinHash permutations.
        reading: None where no tokenizer is at hand; then lengths are characters.
    """
    passages = [reading.render(each) if reading else each.text for each in dataset.passages.values()]
    queries = [query.text for query in dataset.queries.values()]
    unit = "tokens" if reading else "characters"
    count = reading.count_tokens if reading else lambda texts: [len(text) for text in texts]
    passage_lengths, query_lengths = count(passages), count(queries)
    findings = [
        *_leaks(dataset, near_duplicate=near_duplicate, seed=seed),
        _near_queries(dataset, seed=seed),
        *_suspects(dataset, near_duplicate=near_duplicate, max_share=max_share),
        *_bare(dataset),
        _repeated(dataset),
    ]
    limits: tuple[int | None, int | None] = (None, None)
    if reading:
        limits = (reading.max_query_tokens, reading.max_passage_tokens)
        findings.append(_cut("query", dataset.queries, query_lengths, limits[0]))
        findings.append(_cut("passage", dataset.passages, passage_lengths, limits[1]))
    per_document = Counter(passage.document_id for passage in dataset.passages.values())
    return Diagnosis(
        dataset=name,
        findings=tuple(findings),
        histograms=tuple(
            histogram(title, unit_, values, limit)
            for title, unit_, values, limit in (
                ("queries", unit, query_lengths, limits[0]),
                ("passages", unit, passage_lengths, limits[1]),
                ("passages of a document", "passages", list(per_document.values()), None),
            )
            if values
        ),
        counts=counts(dataset),
    )


def _leaks(dataset: Dataset, *, near_duplicate: float, seed: int) -> Iterable[Finding]:
    found = find_leaks(dataset, near_duplicate=near_duplicate, seed=seed)
    meanings = {
        "query": "a train query asks what a test query asks",
        "document": "one document answers train and test queries",
        "near-duplicate": "a train document nearly repeats a test document",
        "negative": "a hard negative is a passage of a test document",
        "text": "a training text stands in a test document",
    }
    of = len({judgment.query_id for judgment in dataset.test})
    for kind, meaning in meanings.items():
        cases = [leak for leak in found if leak.kind == kind]
        yield Finding(
            name=f"leak: {kind}",
            meaning=meaning,
            count=len(cases),
            of=of,
            grave=True,
            samples=tuple((f"{leak.train} / {leak.test}", str(leak)) for leak in cases[:_SAMPLES]),
        )


def _near_queries(dataset: Dataset, *, seed: int) -> Finding:
    train, test = by_query(dataset)
    texts = [(id_, dataset.queries[id_].text) for id_ in (*test, *train)]
    groups = group(texts, threshold=_NEAR_QUERY, seed=seed, size=_QUERY_SHINGLE)
    of_test = {groups[id_]: id_ for id_ in reversed(list(test))}
    same = {normal(dataset.queries[id_].text) for id_ in test}
    pairs = [
        (id_, of_test[groups[id_]])
        for id_ in train
        if groups[id_] in of_test and normal(dataset.queries[id_].text) not in same
    ]
    return Finding(
        name="near-duplicate queries",
        meaning="a train query asks nearly what a test query asks, about another document",
        count=len(pairs),
        of=len(train),
        samples=tuple(
            (f"{one} / {other}", f"{dataset.queries[one].text} / {dataset.queries[other].text}")
            for one, other in pairs[:_SAMPLES]
        ),
    )


def _suspects(dataset: Dataset, *, near_duplicate: float, max_share: float) -> Iterable[Finding]:
    """Hard negatives that may be answers after all."""
    train, _ = by_query(dataset)
    answers: dict[str, set[str]] = {}  # what answers a query of this text, by any of its queries
    for id_, judgments in train.items():
        answers.setdefault(normal(dataset.queries[id_].text), set()).update(each.target for each in judgments)
    repeats: list[tuple[str, str]] = []
    elsewhere: list[tuple[str, str]] = []
    close: list[tuple[str, str]] = []
    total = 0
    for id_, negatives in dataset.negatives.items():
        total += len(negatives)
        texts = [dataset.passages[j.target].text for j in train.get(id_, ()) if j.level == "passage"]
        positives = [shingles(text) for text in (*texts, *dataset.positives.get(id_, ()))]
        for negative in negatives:
            shown = (id_, _negative_text(dataset, negative)[:160])
            own = shingles(_negative_text(dataset, negative))
            if any(jaccard(own, positive) >= near_duplicate for positive in positives):
                repeats.append(shown)
            elif negative.corpus_id in answers.get(normal(dataset.queries[id_].text), ()):
                elsewhere.append(shown)
            elif negative.share is not None and negative.share > _CLOSE * max_share:
                close.append(shown)
    for name, meaning, cases in (
        ("false negative: repeats an answer", "a hard negative nearly repeats an ideal context of its query", repeats),
        ("false negative: judged an answer", "a hard negative answers another query of the same words", elsewhere),
        (
            "false negative: scored like one",
            "a hard negative scores within 5 % of the share of the positive's score that is allowed",
            close,
        ),
    ):
        yield Finding(name=name, meaning=meaning, count=len(cases), of=total, samples=tuple(cases[:_SAMPLES]))


def _negative_text(dataset: Dataset, negative: Negative) -> str:
    return dataset.passages[negative.corpus_id].text if negative.corpus_id is not None else negative.text or ""


def _bare(dataset: Dataset) -> Iterable[Finding]:
    train, test = by_query(dataset)
    without = [id_ for id_ in train if not dataset.negatives.get(id_)]
    yield Finding(
        name="no hard negative",
        meaning="a train query learns from random negatives alone",
        count=len(without),
        of=len(train),
        samples=tuple((id_, dataset.queries[id_].text) for id_ in without[:_SAMPLES]),
    )
    yield Finding(
        name="too few test queries",
        meaning="below 50, differences between models are mostly chance",
        count=max(0, 50 - len(test)),
        of=50,
    )


def _repeated(dataset: Dataset) -> Finding:
    texts = Counter(normal(passage.text) for passage in dataset.passages.values())
    cases = [passage for passage in dataset.passages.values() if texts[normal(passage.text)] > 1]
    return Finding(
        name="repeated passages",
        meaning="a passage whose text stands in the corpus more than once; of equals, only one can come first",
        count=len(cases),
        of=len(dataset.passages),
        samples=tuple((passage.id, passage.text[:160]) for passage in cases[:_SAMPLES]),
    )


def _cut(what: str, ids: Iterable[str], lengths: Sequence[int], limit: int | None) -> Finding:
    longer = [(id_, length) for id_, length in zip(ids, lengths, strict=True) if limit and length > limit]
    longest = sorted(longer, key=lambda case: -case[1])[:_SAMPLES]
    return Finding(
        name=f"cut {what}",
        meaning=f"a {what} has more than the {limit} tokens that training reads; the rest is never seen",
        count=len(longer),
        of=len(lengths),
        samples=tuple((id_, f"{length} tokens") for id_, length in longest),
    )
