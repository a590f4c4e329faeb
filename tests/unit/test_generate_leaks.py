"""No test document, near-duplicate or query in train, whatever the corpus: copies, reworded titles, other orders."""

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nearer.corpus.dataset import Chunking, Dataset
from nearer.corpus.sameness import jaccard, normal, shingles
from nearer.errors import InputError
from nearer.generate.author import WrittenQuery
from nearer.generate.build import build_dataset
from nearer.generate.kinds import Task
from nearer.generate.language_model import LanguageModel
from nearer.generate.negatives import Mining
from nearer.generate.written import Writing
from nearer.progress import Silent
from nearer.testing import korean_documents

NEAR = 0.7
BASE = korean_documents(24, seed=21)
TRANSLATED = ("Manual", "Guide", "안내서", "길잡이", "Handbook")


def encode(texts: Sequence[str], side: str) -> np.ndarray:
    vectors = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row, (shingles(text, size=2) % np.uint64(64)).astype(np.int64)] = 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class Parrot:
    """A language model at its worst: the same questions for like passages, and negatives out of other documents."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.asker = None
        self.failures: list[Any] = []

    def write(self, tasks: Sequence[Task]) -> list[tuple[Task, WrittenQuery]]:
        found = []
        for task in tasks:
            words = sorted(set(task.passages[0].text.split()))
            texts = [
                f"{words[0]} {words[-1]} 어떻게 하나요",
                "배송은 언제 오나요",
                f"{task.passages[0].title} 알려 줘요",
            ]
            found += [(task, WrittenQuery(kind="natural", query=text)) for text in self.draw.sample(texts, 2)]
        return found

    def answerable(self, pairs: Sequence[Any]) -> dict[str, bool]:
        return {id_: True for id_, _, _ in pairs}

    def negatives(self, pairs: Sequence[Any], *, count: int) -> dict[str, tuple[str, ...]]:
        texts = [row["content"].split("\n")[0] for row in BASE]
        return {id_: tuple(self.draw.sample(texts, count)) for id_, _, _ in pairs}

    def summary(self) -> dict[str, Any]:
        return {}


@st.composite
def corpora(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Documents, and adversaries made of them."""
    rows = [dict(row) for row in BASE[: draw(st.integers(min_value=8, max_value=24))]]
    for number in range(draw(st.integers(min_value=1, max_value=12))):
        row = dict(draw(st.sampled_from(rows)))
        row["docid"] = f"copy-{number}"
        parts = row["content"].split("\n## ")
        how = draw(st.sampled_from(["copy", "title", "order", "spaces", "question", "one more", "heading"]))
        if how == "title":
            row["title"] = draw(st.sampled_from(TRANSLATED))
        elif how == "order":
            sentences = row["content"].replace("\n", " ").split(". ")
            row["content"] = ". ".join(draw(st.permutations(sentences)))
        elif how == "spaces":
            row["content"] = row["content"].replace(" ", "  ").replace(".", ". ")
        elif how == "question":
            row["content"] = (
                f"{BASE[number]['content'][:20]} 그리고 {number}번째로 덧붙인 전혀 다른 문장이다. 새로운 내용이다."
            )
        elif how == "one more":
            row["content"] += " 끝에 붙은 짧은 문장."
        elif how == "heading":
            row["content"] = parts[0] + "\n## 다른 제목\n" + (parts[1].partition("\n")[2] if len(parts) > 1 else "")
        rows.insert(draw(st.integers(min_value=0, max_value=len(rows))), row)
    return rows


def build(directory: Path, rows: list[dict[str, Any]], *, source: str, seed: int) -> Dataset | None:
    path = directory / "documents.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    writing = Writing(
        shares={"natural": 1.0},
        queries_per_passage=2,
        at_most=None,
        max_query_characters=120,
        max_copied_share=1.0,
        near_duplicate_query=0.95,
        round_trip_depth=0,
        answerable_by="llm",
        mark_depth=3,
        negatives_per_query=1,
    )
    parrot: Any = Parrot(seed)
    model = LanguageModel(lambda: parrot, writing=writing, score_pairs=None, seed=seed, progress=Silent())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearer.generate.build.keep", lambda *_, **__: None)
        try:
            build_dataset(
                directory / "dataset",
                documents=path,
                queries=None,
                enhanced=None,
                sources=[source],
                real_queries="auto",
                test_share=0.3,
                near_duplicate=NEAR,
                min_query_characters=2,
                max_queries=None,
                chunking=Chunking(chunker="kiwi-sentences-v1", max_tokens=25),
                max_tokens=25,
                mining=Mining(
                    per_query=2,
                    depth=10,
                    skip_top=0,
                    max_share_of_positive=1.5,
                    random_pairs=50,
                    near_duplicate=0.7,
                    seed=seed,
                ),
                seed=seed,
                count_tokens=lambda texts: [len(text.split()) for text in texts],
                encode=encode,
                language_model=model,
                progress=Silent(),
            )
        except InputError:
            return None
    return Dataset.load(directory / "dataset")


def documents_of(dataset: Dataset, judgments: Sequence[Any]) -> set[str]:
    return {j.target if j.level == "document" else dataset.passages[j.target].document_id for j in judgments}


def assert_apart(dataset: Dataset) -> None:
    """By brute force over all pairs: nothing here asks what the maker of the dataset asked."""
    train, test = documents_of(dataset, dataset.train), documents_of(dataset, dataset.test)
    texts: dict[str, str] = {}
    for passage in dataset.passages.values():
        texts[passage.document_id] = texts.get(passage.document_id, "") + "\n" + passage.text
    sets = {id_: shingles(text) for id_, text in texts.items()}
    for one in train:
        for other in test:
            assert one != other
            assert jaccard(sets[one], sets[other]) < NEAR, (one, other)
    asked = [{normal(dataset.queries[j.query_id].text) for j in part} for part in (dataset.train, dataset.test)]
    assert not asked[0] & asked[1]
    held_out = [normal(p.text) for p in dataset.passages.values() if p.document_id in test]
    for negatives in dataset.negatives.values():
        for negative in negatives:
            if negative.corpus_id is not None:
                assert dataset.passages[negative.corpus_id].document_id not in test
            else:
                assert negative.text is not None
                assert normal(negative.text) not in held_out
    for text in (text for many in dataset.positives.values() for text in many):
        assert normal(text) not in held_out


HYPOTHESIS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=8, **HYPOTHESIS)
@given(rows=corpora(), source=st.sampled_from(["llm", "hypothetical", "headings"]), seed=st.integers(0, 99))
def test_nothing_of_the_test_part_is_in_train(rows: list[dict[str, Any]], source: str, seed: int) -> None:
    """Copies, reworded titles, reordered sentences, shared questions, and negatives written from test documents."""
    with tempfile.TemporaryDirectory() as directory:
        dataset = build(Path(directory), rows, source=source, seed=seed)
        if dataset is not None:
            assert_apart(dataset)


@pytest.mark.full
def test_nothing_of_the_test_part_is_in_train_in_many_more_corpora() -> None:
    """The same, at length."""
    covered = {"datasets": 0, "test queries": 0, "written negatives": 0}

    @settings(max_examples=400, **HYPOTHESIS)
    @given(rows=corpora(), source=st.sampled_from(["llm", "hypothetical", "headings"]), seed=st.integers(0, 9999))
    def look(rows: list[dict[str, Any]], source: str, seed: int) -> None:
        with tempfile.TemporaryDirectory() as directory:
            dataset = build(Path(directory), rows, source=source, seed=seed)
            if dataset is not None:
                assert_apart(dataset)
                covered["datasets"] += 1
                covered["test queries"] += len({judgment.query_id for judgment in dataset.test})
                covered["written negatives"] += sum(
                    negative.miner == "llm" for many in dataset.negatives.values() for negative in many
                )

    look()
    assert covered["datasets"] > 200
    assert covered["test queries"] > 1000
    print(covered)
