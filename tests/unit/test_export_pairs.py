import pytest

from nearer.corpus.dataset import Dataset
from nearer.export.pairs import PER_QUERY, dataset_candidates, flat, vocabulary_candidates
from nearer.progress import Silent
from nearer.records import Judgment, Negative, Passage, Query
from nearer.testing import korean_documents

TEMPLATE = "{title}\n{text}"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """30 documents of one passage; the first ten are judged test, the rest train, one query is judged on a document."""
    documents = korean_documents(30, seed=2)
    passages = {
        f"{one['docid']}#0": Passage(
            id=f"{one['docid']}#0", document_id=one["docid"], title=one["title"], text=one["content"]
        )
        for one in documents
    }
    queries = {
        f"q{number}": Query(id=f"q{number}", text=one["hypothetical_questions"][0])
        for number, one in enumerate(documents)
    }
    judged = [
        Judgment(query_id=f"q{number}", target=f"{one['docid']}#0")
        for number, one in enumerate(documents)
        if number != 3
    ]
    judged.insert(3, Judgment(query_id="q3", target=documents[3]["docid"], level="document"))
    negatives = {"q0": (Negative(corpus_id=f"{documents[20]['docid']}#0", miner="bm25", score=1.0),)}
    return Dataset(
        passages=passages, queries=queries, train=tuple(judged[10:]), test=tuple(judged[:10]), negatives=negatives
    )


def candidates(dataset: Dataset, pairs: int = 100, seed: int = 1):
    return dataset_candidates(dataset, template=TEMPLATE, pairs=pairs, seed=seed, progress=Silent())


def test_pairs_are_of_test_queries_and_hold_the_judged_passage_first(dataset: Dataset) -> None:
    """Each list belongs to a test query and begins with the passage that answers it, document judgments included."""
    found = candidates(dataset)
    answers = {}
    for judgment in dataset.test:
        name = judgment.target if judgment.level == "passage" else f"{judgment.target}#0"
        passage = dataset.passages[name]
        answers[dataset.queries[judgment.query_id].text] = f"{passage.title}\n{passage.text}"
    assert {one.query: one.passages[0] for one in found} == answers


def test_each_list_has_ten_different_passages_with_the_mined_negative(dataset: Dataset) -> None:
    """Lists are as long as asked for, without repeats, and hold what was mined for the query."""
    found = candidates(dataset)
    assert {len(set(one.passages)) for one in found} == {PER_QUERY}
    mined = dataset.passages[dataset.negatives["q0"][0].corpus_id or ""]
    assert (
        f"{mined.title}\n{mined.text}" in next(one for one in found if one.query == dataset.queries["q0"].text).passages
    )


def test_the_same_seed_draws_the_same_pairs_and_no_more_than_asked_for(dataset: Dataset) -> None:
    """The draw is repeatable, and 25 pairs are three lists."""
    assert candidates(dataset) == candidates(dataset)
    assert len(candidates(dataset, pairs=25)) == 3
    assert len(flat(candidates(dataset, pairs=25))) == 3 * PER_QUERY


def test_without_a_dataset_words_come_from_the_vocabulary_and_lengths_vary() -> None:
    """Random pairs use real words of the tokenizer, repeatably, and are of unequal length."""
    vocabulary = {"▁가습기": 0, "##필터": 1, "[CLS]": 2, "보증": 3, "a": 4}
    found = vocabulary_candidates(vocabulary, pairs=20, seed=4)
    assert found == vocabulary_candidates(vocabulary, pairs=20, seed=4)
    assert {word for _, passage in flat(found) for word in passage.split()} == {"가습기", "필터", "보증"}
    assert len({len(passage) for _, passage in flat(found)}) > 5
