"""What trains and what validates: nothing leaks, nothing ambiguous counts as a negative."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.corpus.dataset import Dataset
from nearer.errors import InputError
from nearer.records import Judgment, Negative, Origin, Passage, Query
from nearer.testing import korean_dataset
from nearer.train.collate import relation_matrix
from nearer.train.holdout import validation_queries
from nearer.train.loss import NEGATIVE, NEITHER, POSITIVE
from nearer.train.rows import Material, Row, prepare
from nearer.train.schedule import Example, Schedule

LIMITS = {"val_split": 0.2, "validation_queries_max": 200, "validation_passages_max": 1000}


def material_of(dataset: Dataset, *, seed: int = 1, **limits: float) -> Material:
    return prepare(dataset, seed=seed, **{**LIMITS, **limits})  # type: ignore[arg-type]


def documents_of(dataset: Dataset, judgments: tuple[Judgment, ...]) -> set[str]:
    return {
        dataset.passages[judgment.target].document_id if judgment.level == "passage" else judgment.target
        for judgment in judgments
    }


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), merged=st.integers(1, 6), val_split=st.floats(0.05, 0.6))
def test_nothing_leaks(seed: int, merged: int, val_split: float) -> None:
    """Rows, negatives and the pool hold nothing of a group that validates, and nothing at all is of a test group."""
    dataset = korean_dataset(20, seed)
    names = sorted(dataset.groups)
    draw = random.Random(seed)
    groups = {name: names[draw.randrange(len(names)) // merged * merged] for name in names}
    dataset = replace(dataset, groups=groups)
    try:
        material = material_of(dataset, seed=seed, val_split=val_split)
    except InputError:
        return
    tested = {groups[document] for document in documents_of(dataset, dataset.test)}
    validated = set(material.validation.queries)
    held_out = {
        groups[dataset.passages[judgment.target].document_id]
        for judgment in dataset.train
        if judgment.query_id in validated
    }
    schedule = Schedule(material=material, hard=2, random=2, seed=seed)
    trained = {key for step in range(6) for example in schedule.batch(step, rows=4) for key in example.negatives}
    trained |= {row.positive for row in material.rows} | set(material.pool)
    trained |= {key for keys in material.negatives.values() for key in keys}
    group_of = {passage.id: groups[passage.document_id] for passage in dataset.passages.values()}
    assert not {group_of[key] for key in trained} & (tested | held_out)
    assert not {group_of[key] for key in material.validation.passages} & tested
    assert not validated & set(material.queries)
    assert not {judgment.query_id for judgment in dataset.test} & (validated | set(material.queries))


def test_both_models_validate_on_the_same_queries() -> None:
    """The split depends on the dataset, the share and the seed alone."""
    dataset = korean_dataset(40, 0)
    one = validation_queries(dataset, val_split=0.2, seed=3)
    assert one == validation_queries(replace(dataset, negatives={}), val_split=0.2, seed=3)
    assert one != validation_queries(dataset, val_split=0.2, seed=4)
    trained = {judgment.query_id for judgment in dataset.train}
    assert 0.1 < len(one) / len(trained) < 0.25


@pytest.mark.parametrize(
    ("train", "test", "alike"),
    [("heading", "heading", True), ("real", "real", True), ("heading", "real", False), ("real", "heading", True)],
)
def test_validation_knows_whether_it_is_like_the_test(train: Origin, test: Origin, alike: bool) -> None:
    """Queries made from documents say less about real ones than about others that are made."""
    dataset = korean_dataset(40, 0)
    tested = {judgment.query_id for judgment in dataset.test}
    queries = {
        name: replace(query, origin=test if name in tested else train) for name, query in dataset.queries.items()
    }
    assert material_of(replace(dataset, queries=queries)).validation.alike is alike


def test_groups_that_a_query_ties_stay_together() -> None:
    """A query that is answered in two groups takes both, and all their queries, to its side."""
    dataset = korean_dataset(30, 0)
    tie = (Judgment(query_id="doc-0000?0", target="doc-0005#0"), Judgment(query_id="doc-0005?1", target="doc-0009#0"))
    dataset = replace(dataset, train=(*dataset.train, *tie))
    for seed in range(12):
        held_out = validation_queries(dataset, val_split=0.3, seed=seed)
        sides = {f"doc-{number:04d}?{turn}" in held_out for number in (0, 5, 9) for turn in range(3)}
        assert len(sides) == 1


def test_a_dataset_that_cannot_be_divided_is_refused() -> None:
    """With one group of documents there is nothing to validate on, and the error says so."""
    dataset = korean_dataset(4, 0)
    dataset = replace(dataset, test=(), groups=dict.fromkeys(dataset.groups, "one"))
    with pytest.raises(InputError, match="1 groups of documents"):
        material_of(dataset)


def passage(number: int, text: str, *, document: str | None = None) -> Passage:
    return Passage(id=f"p{number}", document_id=document or f"d{number}", text=text)


LONG = (
    "가습기의 물통은 매일 비우고 마른 수건으로 안쪽을 닦은 다음 뚜껑을 열어 그늘에서 완전히 말려야 냄새가 나지 않는다"
)


@pytest.fixture
def awkward() -> Dataset:
    """Near-identical passages, several answers, a document that answers as a whole, a query in two words."""
    passages = [
        passage(0, LONG),
        passage(1, LONG + "."),  # the same text but for a full stop
        passage(2, "두 번째 답은 설명서에 있다", document="d2"),
        passage(3, "문서 전체가 답이다", document="whole"),
        passage(4, "같은 문서의 다른 조각", document="whole"),
        passage(5, "아무 상관 없는 글이다"),
        passage(6, "또 다른 글이다"),
        passage(7, "검증에 쓰는 글"),
    ]
    queries = {"a": "물통 청소", "b": "물통  청소!", "c": "전체 문서", "d": "다른 것", "v": "검증"}
    train = [("a", "p0"), ("a", "p2"), ("b", "p5"), ("c", "p3"), ("d", "p6"), ("v", "p7")]
    return Dataset(
        passages={item.id: item for item in passages},
        queries={name: Query(id=name, text=text) for name, text in queries.items()},
        train=(
            *(Judgment(query_id=query, target=target) for query, target in train),
            Judgment(query_id="c", target="whole", level="document"),
        ),
        test=(),
        positives={"d": ("문서에 없는 답",)},
        negatives={
            "a": (
                Negative(miner="m", score=1.0, corpus_id="p1"),
                Negative(miner="m", score=0.9, corpus_id="p6"),
                Negative(miner="llm", score=0.8, text="지어낸 오답"),
            ),
            "c": (Negative(miner="m", score=1.0, corpus_id="p4"),),
        },
        groups={item.document_id: item.document_id for item in passages},
    )


def awkward_material(dataset: Dataset) -> Material:
    for seed in range(200):
        if validation_queries(dataset, val_split=0.2, seed=seed) == {"v"}:
            return material_of(dataset, seed=seed)
    raise AssertionError


def test_ambiguous_texts_are_no_negatives(awkward: Dataset) -> None:
    """A near-copy of an answer and a passage of a document that answers as a whole are dropped from the mined ones."""
    material = awkward_material(awkward)
    assert material.negatives["a"] == ("p6", "text:a:negative:2")
    assert material.negatives["c"] == ()
    assert material.texts["text:a:negative:2"] == "지어낸 오답"


def test_every_answer_is_a_row(awkward: Dataset) -> None:
    """Each judged passage and each text of no document trains with its query; the whole document itself does not."""
    rows = awkward_material(awkward).rows
    assert set(rows) == {
        Row(query_id="a", positive="p0"),
        Row(query_id="a", positive="p2"),
        Row(query_id="b", positive="p5"),
        Row(query_id="c", positive="p3"),
        Row(query_id="d", positive="p6"),
        Row(query_id="d", positive="text:d:positive:0"),
    }


def test_the_relation_matrix(awkward: Dataset) -> None:
    """Own answer, other answers, answers to a query of the same words, near-copies, and the rest of the document."""
    material = awkward_material(awkward)
    examples = [
        Example(row=Row(query_id="a", positive="p0"), negatives=("p6",)),
        Example(row=Row(query_id="b", positive="p5"), negatives=("p1",)),
        Example(row=Row(query_id="c", positive="p3"), negatives=("p4",)),
        Example(row=Row(query_id="a", positive="p2"), negatives=("p6",)),
    ]
    keys = ["p0", "p5", "p3", "p2", "p6", "p1", "p4", "p6"]
    one, no, out = POSITIVE, NEGATIVE, NEITHER
    assert relation_matrix(material, examples, keys).tolist() == [
        [one, out, no, out, no, out, no, no],  # a: p5 answers "b" of the same words, p2 answers it too, p1 is p0's copy
        [out, one, no, out, no, out, no, no],
        [no, no, one, no, no, no, out, no],  # c: p4 stands in the document that answers as a whole
        [out, out, no, one, no, out, no, no],
    ]


def test_random_negatives_are_distinct_and_sure(awkward: Dataset) -> None:
    """Random negatives repeat no text and hold no answer; a small pool gives fewer and does not hang."""
    material = awkward_material(awkward)
    draw = random.Random(0)
    found = material.relations.draw_negatives("a", 5, pool=material.pool, taken=["p6"], draw=draw)
    assert sorted(found) == ["p3", "p4"]
    assert material.relations.draw_negatives("a", 3, pool=(), taken=[], draw=draw) == []


def test_validation_ranks_answers_against_hard_negatives_and_a_sample() -> None:
    """All answers and hard negatives are in, the rest is a sample up to the limit; queries are drawn up to theirs."""
    dataset = korean_dataset(60, 0)
    full = material_of(dataset).validation
    assert set(full.passages) == {key for key in dataset.passages if int(key[4:8]) < 48}
    small = material_of(dataset, validation_queries_max=5, validation_passages_max=40).validation
    assert len(small.queries) == 5
    assert len(small.passages) == 40
    for query, keys in small.candidates.items():
        answers = {judgment.target for judgment in dataset.train if judgment.query_id == query}
        hard = {negative.corpus_id for negative in dataset.negatives[query]}
        assert answers | hard <= set(keys) <= set(small.passages)
        assert len(keys) == 6


def test_material_does_not_depend_on_the_order_of_the_files() -> None:
    """Records in another order give the same material."""
    dataset = korean_dataset(20, 0)
    shuffled = replace(
        dataset,
        passages=dict(reversed(dataset.passages.items())),
        queries=dict(reversed(dataset.queries.items())),
        train=dataset.train[::-1],
        negatives=dict(reversed(dataset.negatives.items())),
        groups=dict(reversed(dataset.groups.items())),
    )
    assert material_of(dataset) == material_of(shuffled)
