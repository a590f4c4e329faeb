"""A dataset from documents and queries, with character pairs in place of a model: fast, and it knows what is like what."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.corpus.dataset import Chunking, Dataset
from nearer.corpus.leak import find_leaks
from nearer.corpus.sameness import jaccard, normal, shingles
from nearer.errors import InputError
from nearer.generate.build import build_dataset
from nearer.generate.negatives import Mining
from nearer.progress import Silent
from nearer.testing import korean_documents

DIMENSION = 512


def encode(texts: Sequence[str], side: str) -> np.ndarray:
    """Unit vectors of hashed character pairs."""
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row, (shingles(text, size=2) % np.uint64(DIMENSION)).astype(np.int64)] = 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def count_tokens(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(id_: object, text: str, target: str | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"eval_id": id_, "msg": [{"role": "user", "content": text}]}
    return {**row, "ground_truth_doc_id": target} if target else row


class Maker:
    """Builds datasets in a directory and remembers the last one's audit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = 0

    def __call__(
        self,
        documents: list[dict[str, Any]] | Path,
        *,
        queries: list[dict[str, Any]] | Path | None = None,
        enhanced: list[dict[str, Any]] | None = None,
        per_query: int = 2,
        max_share: float = 1.2,
        depth: int = 20,
        **changes: Any,
    ) -> Dataset:
        self.runs += 1
        place = self.directory / str(self.runs)
        place.mkdir()
        fields: dict[str, Any] = {
            "sources": "auto",
            "real_queries": "auto",
            "test_share": 0.25,
            "near_duplicate": 0.7,
            "min_query_characters": 2,
            "max_queries": None,
            "max_tokens": 40,
            "seed": 13,
            **changes,
        }
        self.output = place / "dataset"
        self.summary = build_dataset(
            self.output,
            documents=documents if isinstance(documents, Path) else write(place / "documents.jsonl", documents),
            queries=write(place / "eval.jsonl", queries) if isinstance(queries, list) else queries,
            enhanced=None if enhanced is None else write(place / "enhanced.jsonl", enhanced),
            chunking=Chunking(chunker="kiwi-sentences-v1", max_tokens=fields["max_tokens"]),
            mining=Mining(
                per_query=per_query,
                depth=depth,
                skip_top=0,
                max_share_of_positive=max_share,
                random_pairs=200,
                near_duplicate=0.7,
                seed=fields["seed"],
            ),
            count_tokens=count_tokens,
            encode=encode,
            progress=Silent(),
            **fields,
        )
        dataset = Dataset.load(self.output)
        assert find_leaks(dataset, near_duplicate=0.7, seed=fields["seed"]) == []
        return dataset

    @property
    def audit(self) -> dict[str, Any]:
        return json.loads((self.output / "audit.json").read_text(encoding="utf-8"))

    def dropped(self, rule: str) -> int:
        return self.audit["dropped"].get(rule, {"count": 0})["count"]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def sides(dataset: Dataset) -> tuple[set[str], set[str]]:
    return {judgment.query_id for judgment in dataset.train}, {judgment.query_id for judgment in dataset.test}


def origins(dataset: Dataset, ids: set[str]) -> set[str]:
    return {dataset.queries[id_].origin for id_ in ids}


DOCUMENTS = korean_documents(40, seed=7)


def test_hypothetical_questions_are_split_by_group_and_judged_on_documents(make: Maker) -> None:
    """About the wanted share is test; a train question has its best passage, a test question only its document."""
    dataset = make(DOCUMENTS)
    train, test = sides(dataset)
    assert 0.15 <= len(test) / (len(train) + len(test)) <= 0.25
    assert {judgment.level for judgment in dataset.test} == {"document"}
    by_query: dict[str, dict[str, str]] = {}
    for judgment in dataset.train:
        by_query.setdefault(judgment.query_id, {})[judgment.level] = judgment.target
    for judged in by_query.values():
        assert set(judged) == {"passage", "document"}
        assert dataset.passages[judged["passage"]].document_id == judged["document"]
    assert not any(query.text[0].isdigit() for query in dataset.queries.values())
    assert make.summary["largest_group"] == 1


def test_the_best_passage_is_the_teachers_choice(make: Maker) -> None:
    """Of a document's passages, the one that says what was asked; without a model, BM25's."""
    far = korean_documents(30, seed=1)
    wanted = {
        "docid": "w",
        "content": "사내 식당은 열한 시에 연다.\n## 셋째\n주차 요금은 한 달에 삼만 원이다.\n## 넷째\n출입증은 총무팀이 준다.",
        "hypothetical_questions": ["1. 주차 요금은 한 달에 얼마입니까?", "2. 출입증은 누가 줍니까?"],
    }
    for per_query in (2, 0):
        held_out = [asked("r", f"{far[0]['title']} 알려 주세요", far[0]["docid"])]
        dataset = make([*far, wanted], queries=held_out, per_query=per_query)
        chosen = {judgment.query_id: judgment.target for judgment in dataset.train if judgment.level == "passage"}
        assert (chosen["w:h1"], chosen["w:h2"]) == ("w#1", "w#2")


def test_real_queries_are_all_test_when_something_else_trains(make: Maker) -> None:
    """Their documents, and near-duplicates of these, train nothing; what was left out is counted."""
    twin = {**DOCUMENTS[0], "docid": "twin", "content": DOCUMENTS[0]["content"] + " 끝."}
    queries = [asked(n, f"{DOCUMENTS[n]['title']} 알려 주세요", DOCUMENTS[n]["docid"]) for n in range(10)]
    dataset = make([*DOCUMENTS, twin], queries=queries)
    train, test = sides(dataset)
    assert test == {str(n) for n in range(10)}
    assert origins(dataset, train) == {"hypothetical"}
    held_out = {DOCUMENTS[n]["docid"] for n in range(10)} | {"twin"}
    assert not held_out & {judgment.target for judgment in dataset.train}
    used = [negative.corpus_id for found in dataset.negatives.values() for negative in found]
    assert used
    assert not held_out & {dataset.passages[id_].document_id for id_ in used if id_}
    assert make.dropped("answers-from-a-test-document") + make.dropped("duplicate") + make.dropped("ambiguous") >= 30
    assert make.summary["largest_group"] == 2


def test_real_queries_alone_are_split(make: Maker) -> None:
    """Nothing else can train, so they do."""
    bare = [{key: row[key] for key in ("docid", "title", "content")} for row in DOCUMENTS]
    queries = [asked(f"q{n}", f"{row['title']} 알려 주세요", row["docid"]) for n, row in enumerate(DOCUMENTS)]
    train, test = sides(make(bare, queries=[*queries, asked("none", "아무도 모르는 것")]))
    assert len(test) == 10
    assert len(train) == 30
    assert make.dropped("no-judgment") == 1


def test_an_enhanced_file_trains_and_its_negatives_stay_out_of_the_corpus(make: Maker) -> None:
    """Ideal contexts are linked; unlinked ones and written negatives are texts; rows join the questions of their id."""
    queries = [asked(n, f"{row['title']} 알려 주세요", row["docid"]) for n, row in enumerate(DOCUMENTS[:30])]
    enhanced = [
        {
            "eval_id": n,
            "query": f"{row['title']} 알려 주세요",
            "ideal_context": [
                row["content"].replace("\n", " "),
                "어디에도 없는 글을 모델이 지어서 적어 두었다. 정말로 없다.",
            ],
            "ideal_answer": f"답 {n}",
            "hard_negative_context": [
                f"{row['title']}은 사실 화성에서만 된다고 지어낸 글이다.",
                row["content"].split("\n")[0],
            ],
        }
        for n, row in enumerate(DOCUMENTS[:30])
    ]
    bare = [{key: row[key] for key in ("docid", "title", "content")} for row in DOCUMENTS]
    dataset = make(bare, queries=queries, enhanced=enhanced)
    train, test = sides(dataset)
    assert (len(train), len(test)) == (23, 7)
    assert make.audit["ideal_contexts"]["enhanced"] == {"exact": 30, "shingles": 0, "unlinked": 30}
    assert set(dataset.positives) == train
    written = [negative for found in dataset.negatives.values() for negative in found if negative.miner == "enhanced"]
    assert len(written) == 23
    assert all(negative.text and negative.corpus_id is None for negative in written)
    assert make.audit["mining"]["given"] == {"allowed": 23, "dropped": {"same-text": 23}}
    corpus = (make.output / "corpus.jsonl").read_text(encoding="utf-8")
    assert "지어낸" not in corpus
    assert "지어서" not in corpus
    rows = [json.loads(line) for line in (make.output / "enhanced.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["eval_id"] for row in rows} == train
    assert all(row["ideal_answer"] and len(row["ideal_context"]) == 3 for row in rows)
    assert set(rows[0]) == {"eval_id", "query", "ideal_context", "ideal_answer", "hard_negative_context"}
    assert {judgment.level for judgment in dataset.test} == {"document"}


def test_flagembedding_pairs_train_and_the_linked_ones_test(make: Maker) -> None:
    """A pair whose positive stands in no document can only train."""
    bare = [{key: row[key] for key in ("docid", "title", "content")} for row in DOCUMENTS]
    rows = [
        {"query": f"{row['title']} 질문", "pos": [row["content"].split("\n")[0]], "neg": []} for row in DOCUMENTS[:20]
    ]
    rows += [
        {
            "query": f"없는 것 {n}",
            "pos": [f"이 글은 어느 문서에도 서 있지 않은 {n}번째 긴 글이다. 정말이다."],
            "neg": [],
        }
        for n in range(4)
    ]
    dataset = make(bare, queries=rows)
    train, test = sides(dataset)
    assert (len(train), len(test)) == (15, 5)
    assert {judgment.level for judgment in dataset.test} == {"passage"}
    assert len(dataset.positives) == 4
    assert not set(dataset.positives) & (train | test)


def test_a_beir_directory_gives_documents_and_queries(make: Maker, tmp_path: Path) -> None:
    """Judgments of all splits count; nearer makes its own split."""
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    write(beir / "corpus.jsonl", [{"_id": r["docid"], "title": r["title"], "text": r["content"]} for r in DOCUMENTS])
    write(beir / "queries.jsonl", [{"_id": f"q{n}", "text": f"{r['title']} 질문"} for n, r in enumerate(DOCUMENTS)])
    lines = [f"q{n}\t{row['docid']}\t1\n" for n, row in enumerate(DOCUMENTS)]
    (beir / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines[:20]))
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines[20:]))
    train, test = sides(make(beir, queries=beir))
    assert (len(train), len(test)) == (30, 10)


PAGES = [
    {
        "docid": f"page-{n}",
        "title": row["title"],
        "content": (
            f"## {row['title']}\n{row['content'].split(chr(10))[0]}\n"
            f"## 담당 부서의 연락 방법\n{row['content'].split(chr(10))[2]}\n"
            + ("## 보관\n보관은 서늘한 곳에 한다. 보관 기간은 정해져 있지 않다.\n" if n < 3 else "")
            + (
                f"## 특이 사항 {n} 기록부\n그날의 온도와 습도를 {n}번 칸에 적어 두고 다음 사람에게 넘긴다.\n"
                if n < 30
                else ""
            )
        ),
    }
    for n, row in enumerate(korean_documents(36, seed=3))
]


def test_headings_are_queries_that_stand_nowhere_in_their_passages(make: Maker) -> None:
    """Not in title, path or text; a heading of every page and one that its text repeats are none."""
    dataset = make(PAGES)
    train, test = sides(dataset)
    assert origins(dataset, train | test) == {"heading"}
    assert len(train | test) >= 50
    for judgment in (*dataset.train, *dataset.test):
        asked_for = normal(dataset.queries[judgment.query_id].text)
        passage = dataset.passages[judgment.target]
        for field in (passage.title, *passage.path, passage.text):
            assert asked_for not in normal(field)
    assert make.dropped("recurs-on-many-pages") == 36
    assert make.dropped("heading-in-text") == 3
    used = {(id_.split(":")[0], normal(dataset.queries[id_].text)) for id_ in train | test}
    for passage in dataset.passages.values():
        for step in passage.path:
            assert (passage.document_id, normal(step)) not in used


def test_a_heading_of_several_pages_is_told_apart_by_their_titles(make: Maker) -> None:
    """The page's title comes before it; without titles it is left out."""
    pages = [
        {
            "docid": f"p{n}",
            "title": f"{row['title']}",
            "content": f"## 처음에 할 일\n{row['content'].split(chr(10))[0]}",
        }
        for n, row in enumerate(korean_documents(8, seed=9))
    ]
    dataset = make(pages, depth=8, per_query=1, max_share=1.5)
    assert {query.text for query in dataset.queries.values()} == {f"{page['title']}: 처음에 할 일" for page in pages}
    with pytest.raises(InputError, match="no query is left"):
        make([{**page, "title": ""} for page in pages])


def test_a_question_that_recurs_is_merged_qualified_or_left_out(make: Maker) -> None:
    """Same answer: once. Another answer: the real one stands, invented ones get their title, real ones cancel out."""
    documents = [dict(row) for row in DOCUMENTS]
    for number in (1, 2, 3):
        documents[number]["hypothetical_questions"] = ["1. 이것은 언제 하나요?"]
    queries = [
        asked("same", "그것은 어떻게 하나요", documents[20]["docid"]),
        asked("again", "그것은  어떻게 하나요?", documents[20]["docid"]),
        asked("either", "얼마예요?", documents[21]["docid"]),
        asked("or", "얼마예요", documents[22]["docid"]),
        asked("wins", "이것은 언제 하나요", documents[3]["docid"]),
    ]
    dataset = make(documents, queries=queries)
    texts = [query.text for query in dataset.queries.values()]
    assert {"same", "wins"} == {id_ for id_, query in dataset.queries.items() if query.origin == "real"}
    assert {f"{documents[n]['title']}: 이것은 언제 하나요?" for n in (1, 2)} <= set(texts)
    assert len({normal(text) for text in texts}) == len(texts)
    assert make.dropped("ambiguous") == 2


def test_negatives_keep_every_rule(make: Maker) -> None:
    """At most so many, never a positive, its document, its text, a near-duplicate's passage or a test document's."""
    copies = [{**row, "docid": f"copy-{row['docid']}", "hypothetical_questions": []} for row in DOCUMENTS[:6]]
    dataset = make([*DOCUMENTS, *copies], per_query=3)
    test_groups = {dataset.groups[judgment.target] for judgment in dataset.test}
    positives: dict[str, set[str]] = {}
    for judgment in dataset.train:
        if judgment.level == "passage":
            positives.setdefault(judgment.query_id, set()).add(judgment.target)
    assert len(dataset.negatives) > len(positives) / 2
    for query, found in dataset.negatives.items():
        assert 0 < len(found) <= 3
        scores = [negative.score for negative in found]
        assert scores == sorted(scores, reverse=True)
        own = {dataset.groups[dataset.passages[id_].document_id] for id_ in positives[query]}
        for negative in found:
            assert negative.corpus_id is not None
            group = dataset.groups[dataset.passages[negative.corpus_id].document_id]
            assert group not in own
            assert group not in test_groups
    assert {"known-positive", "near-duplicate", "test-document"} <= set(make.audit["mining"]["dropped"])
    assert all(make.audit["mining"]["samples"][rule] for rule in make.audit["mining"]["dropped"])


def test_a_passage_that_nearly_repeats_an_answer_is_no_negative(make: Maker) -> None:
    """Pages that have a paragraph in common, but for a number, are no near-duplicates; their paragraphs are."""
    common = (
        "환불은 구매하신 날부터 {} 일 안에 고객 상담실로 신청하시면 되고 영수증과 상품을 함께 보내 주셔야 처리됩니다"
    )
    documents = [
        {
            **row,
            "content": f"{row['content']}\n\n## 환불 {number}\n{common.format(number)}",
            "hypothetical_questions": [],
        }
        for number, row in enumerate(DOCUMENTS[:24])
    ]
    enhanced = [
        {
            "eval_id": number,
            "query": f"{row['title']} 환불은 며칠 안에 해야 하나요",
            "ideal_context": [common.format(number)],
            "hard_negative_context": [common.format(99), "배송은 주문하신 다음 날에 시작되고 문자로 알려 드립니다"],
        }
        for number, row in enumerate(documents)
    ]
    dataset = make(documents, enhanced=enhanced, per_query=4, max_share=1.5)
    answers = {query: [] for query in dataset.negatives}
    for judgment in dataset.train:
        if judgment.level == "passage" and judgment.query_id in answers:
            answers[judgment.query_id].append(shingles(dataset.passages[judgment.target].text))
    assert answers
    for query, found in dataset.negatives.items():
        for negative in found:
            text = negative.text or dataset.passages[negative.corpus_id or ""].text
            own = [*answers[query], *(shingles(text) for text in dataset.positives.get(query, ()))]
            assert max(jaccard(shingles(text), answer) for answer in own) < 0.7
    mining = make.audit["mining"]
    assert mining["dropped"]["near-duplicate"] > len(answers)
    assert mining["given"]["dropped"]["near-duplicate"] == len(answers)
    assert mining["given"]["allowed"] == len(answers)


def test_mining_stops_with_words_when_most_queries_lose_everything(make: Maker) -> None:
    """A share that no candidate passes."""
    with pytest.raises(InputError) as caught:
        make(DOCUMENTS, max_share=0.001, depth=3)
    for words in ("lost all their candidates", "false-negative", "max_share_of_positive", "per_query to 0"):
        assert words in str(caught.value)


def test_without_negatives_nothing_is_encoded(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """`per_query: 0` needs the tokenizer only."""
    monkeypatch.setitem(globals(), "encode", lambda texts, side: pytest.fail("encoded"))
    dataset = make(DOCUMENTS, per_query=0)
    assert dataset.negatives == {}
    assert dataset.train


def test_at_most_so_many_queries_are_drawn_with_the_seed(make: Maker) -> None:
    """The rest is counted."""
    one, again, other = (make(DOCUMENTS, max_queries=50, seed=seed) for seed in (1, 1, 2))
    assert len(one.queries) == 50
    assert one == again
    assert one.queries != other.queries
    assert make.dropped("not-drawn") > 0


def test_the_same_input_gives_the_same_bytes(make: Maker) -> None:
    """Every file."""
    make(DOCUMENTS)
    first = make.output
    make(DOCUMENTS)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 14
    for file in files:
        assert (first / file).read_bytes() == (make.output / file).read_bytes()


BARE = [{"docid": f"d{n}", "content": f"{n}번째 글이다. 아무 제목도 없다."} for n in range(12)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["nothing gives a query", "hypothetical_questions", "generate.sources: [headings]"]),
        ({"sources": ["llm"]}, ["asks for 'llm'", "generate.llm_model names none"]),
        (
            {"queries": [asked(n, f"{n}번은 왜?") for n in range(7)]},
            ["no query has a judgment", "'0', '1'", "and 2 more"],
        ),
        ({"queries": [asked("a", "왜 그런가", "d99")]}, ["eval.jsonl:1", "'d99'", "judged"]),
        ({"sources": ["queries"]}, ["generate.queries names no file"]),
        ({"sources": ["enhanced", "headings"]}, ["generate.enhanced names no file"]),
        ({"queries": [asked("d1:h1", "왜 그런가", "d1")], "sources": ["queries", "hypothetical"]}, ["id 'd1:h1'"]),
    ],
)
def test_what_gives_no_query_is_told(make: Maker, changes: dict[str, Any], words: list[str]) -> None:
    """What is missing, and what would help."""
    documents = [dict(row) for row in BARE]
    if changes.get("sources") == ["queries", "hypothetical"]:
        documents[1]["hypothetical_questions"] = ["무엇이 문제인가?"]
    with pytest.raises(InputError) as caught:
        make(documents, **changes)
    for word in words:
        assert word in str(caught.value)


def test_an_endless_sentence_is_refused_by_name_and_length(make: Maker) -> None:
    """Broken extraction, not a sentence."""
    with pytest.raises(InputError) as caught:
        make([*BARE, {"docid": "broken", "content": "가나다 " * 12_500}])
    for word in ("'broken'", "50,000 characters", "20,000"):
        assert word in str(caught.value)
