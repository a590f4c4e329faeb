"""Queries of every form that is read."""

import json
from pathlib import Path

import pytest

from nearer.corpus.read import query_parts, read_queries
from nearer.errors import InputError
from nearer.records import Judgment, Query


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def asked(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(contents)]


def test_the_guides_questions_are_the_last_user_messages(tmp_path: Path) -> None:
    """Several turns, integer ids, judgments that are absent, null, single or a list."""
    file = read_queries(
        write(
            tmp_path / "eval.jsonl",
            {"eval_id": 1, "msg": asked("안녕", "네", "연차는  며칠?\n"), "ground_truth_doc_id": "d1", "domain": "x"},
            {"eval_id": "q2", "msg": [*asked("언제?"), {"role": "assistant", "content": "답"}]},
            {"eval_id": "q3", "msg": asked("어디?"), "ground_truth_doc_id": None},
            {"eval_id": "q4", "msg": asked("누가?"), "ground_truth_doc_id": [4, "d5"]},
        )
    )
    assert file.form == "guide"
    assert [(query.id, query.text) for query in file.queries] == [
        ("1", "연차는 며칠?"),
        ("q2", "언제?"),
        ("q3", "어디?"),
        ("q4", "누가?"),
    ]
    assert file.judgments == tuple(
        Judgment(query_id=query, target=target, level="document")
        for query, target in [("1", "d1"), ("q4", "4"), ("q4", "d5")]
    )
    assert file.places["q3"].endswith("eval.jsonl:3")


def test_the_enhanced_form_brings_texts_and_answers(tmp_path: Path) -> None:
    """Empty texts are none, a single text is a list of one."""
    file = read_queries(
        write(
            tmp_path / "eval_enhanced.jsonl",
            {"eval_id": "a", "query": "며칠?", "ideal_context": ["열다섯 날", " "], "ideal_answer": "15일",
             "hard_negative_context": "스무 날"},
            {"eval_id": "b", "query": "왜?", "ideal_context": [], "hard_negative_context": []},
        )
    )  # fmt: skip
    assert file.form == "enhanced"
    assert file.positives == {"a": ("열다섯 날",)}
    assert file.negatives == {"a": ("스무 날",)}
    assert file.answers == {"a": "15일"}
    assert len(file.queries) == 2


def test_flagembedding_and_triplets_join_lines_of_one_query(tmp_path: Path) -> None:
    """They have no ids: the text is the query."""
    flag = read_queries(
        write(
            tmp_path / "f.jsonl",
            {"query": "가", "pos": ["p1"], "neg": ["n1"]},
            {"query": "가", "pos": ["p2", "p1"], "neg": []},
        )
    )
    assert flag.queries == (Query(id="pair-000001", text="가"),)
    assert flag.positives == {"pair-000001": ("p1", "p2")}
    assert flag.negatives == {"pair-000001": ("n1",)}
    triplets = read_queries(
        write(
            tmp_path / "t.jsonl",
            {"anchor": "가", "positive": "p", "negative": "n"},
            {"anchor": "나", "positive": "q", "negative_1": "m", "negative_2": "o"},
        )
    )
    assert triplets.positives == {"pair-000001": ("p",), "pair-000002": ("q",)}
    assert triplets.negatives == {"pair-000001": ("n",), "pair-000002": ("m", "o")}


@pytest.mark.parametrize("by", ["directory", "file"])
def test_beir_queries_bring_all_their_judgments(tmp_path: Path, by: str) -> None:
    """Every split is read, judgments of zero are none, headers are optional."""
    queries = write(
        tmp_path / "queries.jsonl", {"_id": "q1", "text": "가"}, {"_id": "q2", "text": "나", "metadata": {}}
    )
    write(tmp_path / "qrels/train.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t0")
    write(tmp_path / "qrels/test.tsv", "q2\td2\t2")
    path = tmp_path if by == "directory" else queries
    file = read_queries(path)
    assert {(judgment.query_id, judgment.target) for judgment in file.judgments} == {("q1", "d1"), ("q2", "d2")}
    assert file.places["q2", "d2"].endswith("test.tsv:1")
    assert query_parts(path) == (queries, tmp_path / "qrels")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["q1\td1"], "three columns"),
        (["q1\td1\tgood"], "must be an integer"),
        (["q9\td1\t1"], "'q9' that is not in queries.jsonl"),
        ([], "without judgments"),
    ],
)
def test_bad_judgments_are_told(tmp_path: Path, lines: list[str], words: str) -> None:
    """With file and line."""
    queries = write(tmp_path / "queries.jsonl", {"_id": "q1", "text": "가"})
    (tmp_path / "qrels").mkdir()
    if lines:
        write(tmp_path / "qrels/test.tsv", "query-id\tcorpus-id\tscore", *lines)
    with pytest.raises(InputError) as caught:
        read_queries(queries)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"eval_id": "b"}, "`msg` must be a list"),
        ({"eval_id": "b", "msg": [{"role": "assistant", "content": "x"}]}, "message of the user's"),
        ({"eval_id": "b", "msg": asked(" ")}, "`content` is empty"),
        ({"msg": asked("x")}, "no `eval_id`"),
        ({"eval_id": "a", "msg": asked("x")}, "duplicate id 'a', first at"),
        ({"eval_id": "b", "msg": asked("x"), "ground_truth_doc_id": {"a": 1}}, "an object"),
        ("oops", "not JSON"),
    ],
)
def test_bad_lines_of_queries_are_told(tmp_path: Path, row: object, words: str) -> None:
    """With file, line and the forms that are read."""
    path = write(tmp_path / "eval.jsonl", {"eval_id": "a", "msg": asked("가")}, row)
    with pytest.raises(InputError) as caught:
        read_queries(path)
    assert "eval.jsonl:2" in str(caught.value)
    assert words in str(caught.value)
    assert "FlagEmbedding" in str(caught.value.rule)


@pytest.mark.parametrize("text", ["", '{"foo": "bar"}\n', "{\n"])
def test_what_is_no_file_of_queries_is_told(tmp_path: Path, text: str) -> None:
    """Empty, another form, no JSON at all."""
    path = tmp_path / "eval.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_queries(path)
    assert "ground_truth_doc_id" in str(caught.value.rule)
