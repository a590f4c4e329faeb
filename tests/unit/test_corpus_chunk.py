"""Documents cut into passages."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.corpus.chunk import chunk, chunk_all, longest_unbroken, sections
from nearer.records import Document, Passage


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def syllables(texts: list[str]) -> list[int]:
    """A token for every two characters, and one for every line break, as some byte-level tokenizers have it."""
    return [(len(text) + 1) // 2 + text.count("\n") for text in texts]


def cut(text: str, max_tokens: int, count=words) -> list[Passage]:
    return chunk(Document(id="d", title="제목", text=text), max_tokens=max_tokens, count_tokens=count)


def test_passages_keep_title_heading_path_and_number() -> None:
    """The path holds the headings above a passage, outermost first; a heading of the same level replaces its like."""
    text = "머리말이다.\n# 휴가\n## 연차\n열다섯 날이다.\n## 병가\n예순 날이다.\n# 급여 #\n매달 준다."
    assert [(passage.id, passage.path, passage.text) for passage in cut(text, 50)] == [
        ("d#0", (), "머리말이다."),
        ("d#1", ("휴가", "연차"), "열다섯 날이다."),
        ("d#2", ("휴가", "병가"), "예순 날이다."),
        ("d#3", ("급여",), "매달 준다."),
    ]
    assert {passage.title for passage in cut(text, 50)} == {"제목"}


def test_sentences_stay_whole_and_fill_the_budget() -> None:
    """Korean sentences without a full stop end where they end; as many as fit go together."""
    text = "오늘은 날이 맑다 내일은 비가 온다고 합니다. 모레는 눈이 온다. 글피는 모른다."
    assert [passage.text for passage in cut(text, 8)] == [
        "오늘은 날이 맑다 내일은 비가 온다고 합니다.",
        "모레는 눈이 온다. 글피는 모른다.",
    ]


def test_a_hard_line_break_inside_a_sentence_is_no_boundary() -> None:
    """Text that was wrapped at a column stays in sentences."""
    text = "휴일에 일한 시간은 쉬는 시간으로 바꿀\n수 있다. 남은 시간은 다음 달에\n정산한다."
    assert [passage.text for passage in cut(text, 8)] == [
        "휴일에 일한 시간은 쉬는 시간으로 바꿀\n수 있다.",
        "남은 시간은 다음 달에\n정산한다.",
    ]


def test_a_sentence_over_the_budget_is_cut_between_lines_then_words_then_characters() -> None:
    """Each way only where the one before is not enough."""
    lines = cut("사과\n배와 감\n귤", 3)
    assert [passage.text for passage in lines] == ["사과\n배와 감", "귤"]
    assert [passage.text for passage in cut("하나 둘 셋 넷 다섯", 2)] == ["하나 둘", "셋 넷", "다섯"]
    assert [passage.text for passage in cut("가나다라마바사", 2, lambda texts: [len(text) for text in texts])] == [
        "가나",
        "다라",
        "마바",
        "사",
    ]


def test_fifty_thousand_characters_without_a_break_end_well_defined() -> None:
    """Chunking itself can cut anything."""
    passages = cut("가나다라마" * 10_000, 100, syllables)
    assert "".join(passage.text for passage in passages) == "가나다라마" * 10_000
    assert max(syllables([passage.text for passage in passages])) == 100


def test_headings_inside_code_are_code() -> None:
    """A comment in a fenced block starts no section."""
    found = sections("# 설치\n```bash\n# 주석이다\nmake\n```\n## 다음\n끝.")
    assert [(section.path, "주석" in section.text) for section in found] == [
        (("설치",), True),
        (("설치", "다음"), False),
    ]


def test_what_only_looks_like_a_heading_is_text() -> None:
    """Tags, issue numbers and seven marks."""
    assert [section.path for section in sections("#태그 하나\n####### 일곱\n본문 # 아님")] == [()]


def test_a_document_of_headings_alone_does_not_vanish() -> None:
    """Its headings are its text."""
    assert [(passage.text, passage.path) for passage in cut("# 하나\n## 둘", 50)] == [("하나\n둘", ())]


def test_documents_cut_together_are_cut_as_alone() -> None:
    """Blocks are an economy, not a rule."""
    documents = [Document(id=f"d{n}", text="문장이다. " * (n % 5 + 1)) for n in range(300)]
    together = list(chunk_all(documents, max_tokens=3, count_tokens=words))
    alone = [chunk(document, max_tokens=3, count_tokens=words) for document in documents[:7]]
    assert len(together) == 300
    assert together[:7] == alone


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("짧다. 끝", 2),
        ("가" * 30, 30),
        ("가" * 10 + "\n" + "나" * 12, 12),
        ("값은 3.14이다", 9),
        ("", 0),
    ],
)
def test_the_longest_stretch_without_an_end_is_measured(text: str, longest: int) -> None:
    """A decimal point ends no sentence; a line break does."""
    assert longest_unbroken(text) == longest


LINES = st.lists(
    st.one_of(
        st.text(alphabet="가나다한글 abc.?!\t😀é1#", max_size=60),
        st.sampled_from(["# 제목", "## 작은 제목", "오늘은 날이 맑다. 내일은 비가 온다.", "", "```", "가" * 200]),
    ),
    max_size=12,
)
_HEADING_LINE = re.compile(r"#{1,6}[ \t]+\S")


@given(lines=LINES, budget=st.integers(1, 40), ends=st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None, max_examples=120)
def test_no_text_is_lost_and_no_passage_is_over_the_budget(lines: list[str], budget: int, ends: str) -> None:
    """Joined, the passages are the document apart from whitespace and headings; only a lone character may be over."""
    text = ends.join(lines)
    passages = cut(text, budget, syllables) if text.strip() else []
    for passage in passages:
        assert passage.text == passage.text.strip() != ""
        assert syllables([passage.text])[0] <= budget or len(passage.text) == 1
    fenced = list(itertools.accumulate((line.lstrip(" \t").startswith("```") for line in lines), initial=0))
    body = [line for line, fences in zip(lines, fenced, strict=False) if fences % 2 or not _HEADING_LINE.match(line)]
    if any(line.strip() for line in body):
        assert "".join("".join(passage.text for passage in passages).split()) == "".join("".join(body).split())
