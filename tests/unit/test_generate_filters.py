"""What a written query must be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.generate.filters import (
    copied_share,
    corpus_language,
    depends_on_passage,
    is_other_language,
    near_duplicates,
)

SOURCE = "VLOOKUP 함수는 첫째 열에서 값을 찾는다. Ctrl+Shift+F5를 누르면 이름 상자로 간다. LibreOffice Calc에서 쓴다."


@pytest.mark.parametrize(
    ("query", "other"),
    [
        ("VLOOKUP 함수로 값을 찾는 방법", False),
        ("Ctrl+Shift+F5", False),
        ("LibreOffice에서 VLOOKUP", False),
        ("How do I find a value in the first column?", True),
        ("第一列の値を探すには", True),
        ("VLOOKUP 값을 find하는 방법은 무엇인가요", False),
        ("VLOOKUP how to use the function 함수", True),
        ("2024년 12월 31일", False),
    ],
)
def test_korean_queries_may_hold_the_passages_own_terms(query: str, *, other: bool) -> None:
    """Words of other scripts that stand in the passage count for nothing."""
    assert is_other_language(query, source=SOURCE) is other


@pytest.mark.parametrize(
    "query",
    [
        "위 문서에서 설명하는 함수는?",
        "이 표의 둘째 열은 무엇입니까?",
        "다음 글의 주제는 무엇인가요",
        "본문에 나온 단축키",
        "주어진 지문을 요약하면?",
        "이 기능은 어떻게 켜나요?",
        "해당 옵션을 끄면 어떻게 되나요",
        "위의 그림에서 화살표가 뜻하는 것",
        "아래 목록에 있는 단축키를 모두 알려줘",
        "What does the passage say about VLOOKUP?",
        "글쓴이의 의도는 무엇인가요",
    ],
)
def test_queries_that_point_at_their_passage_are_found(query: str) -> None:
    """Nobody who has not seen it could ask this."""
    assert depends_on_passage(query)


@pytest.mark.parametrize(
    "query",
    [
        "문서를 PDF로 내보내는 방법",
        "표에서 행을 지우려면 어떻게 하나요?",
        "위치 이동 단축키",
        "이름 상자는 어디에 있나요?",
        "다음 페이지로 넘어가는 단축키는?",
        "본문 글꼴 바꾸기",
        "이메일 문서 첨부",
        "위키 문서 편집 방법",
        "목록 아래에 그림 넣기",
    ],
)
def test_ordinary_words_are_no_pointing(query: str) -> None:
    """The same words in a question of their own."""
    assert depends_on_passage(query) == ""


def test_a_copied_sentence_is_a_copy_and_search_words_are_not() -> None:
    """Long runs of the passage's own words; a rewording shares few of them."""
    assert copied_share("VLOOKUP 함수는 첫째 열에서 값을 찾는다", source=SOURCE) == 1.0
    assert copied_share("이름 상자로 이동", source=SOURCE) == 0.0
    assert copied_share("표의 맨 왼쪽에서 원하는 숫자를 어떻게 가져오나요?", source=SOURCE) < 0.3


def test_the_language_is_that_of_most_letters() -> None:
    """A Korean manual stays Korean with English terms in it."""
    assert corpus_language([SOURCE]) == "ko"
    assert corpus_language(["The function finds a value.", "함수"]) == "other"
    assert corpus_language(["123 456"]) == "other"


def test_the_first_of_near_duplicates_is_kept() -> None:
    """Spaces, punctuation and a particle make no other question."""
    queries = [
        ("a", "계산기에서 빈 셀을 지우는 방법은 무엇인가요?"),
        ("b", "계산기에서 빈셀을 지우는 방법은 무엇인가요"),
        ("c", "차트의 축 이름을 바꾸려면?"),
    ]
    assert near_duplicates(queries, threshold=0.7, seed=1) == {"b": "a"}


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_no_text_breaks_a_filter(query: str, source: str) -> None:
    """Whatever the model writes."""
    is_other_language(query, source=source)
    depends_on_passage(query)
    assert 0.0 <= copied_share(query, source=source) <= 1.0
