"""Texts traced back to the passages that they were taken from."""

import pytest

from nearer.corpus.link import Link, Linker
from nearer.records import Passage

FIRST = "휴일이나 야간에 미리 승인받고 일한 시간은 수당 대신 쉬는 시간으로 바꿀 수 있다."
SECOND = "적립한 시간은 발생월 다음 달 1일부터 4개월 안에 써야 하며 남은 시간은 급여 때 정산한다."
OTHER = "가습기의 물통은 이틀에 한 번 미지근한 물로 헹구고 그늘에서 말린 다음 끼운다."
PASSAGES = [
    Passage(id="a#0", document_id="a", text=FIRST),
    Passage(id="a#1", document_id="a", text=SECOND),
    Passage(id="b#0", document_id="b", text=OTHER),
    Passage(id="c#0", document_id="c", text="예"),
]


@pytest.mark.parametrize(
    ("text", "passages", "kind"),
    [
        (FIRST, ("a#0",), "exact"),
        ("야간에 미리 승인받고, 일한 시간은 수당 대신  쉬는 시간", ("a#0",), "exact"),
        (f"{FIRST}\n## 사용\n{SECOND}", ("a#0", "a#1"), "exact"),
        (FIRST.replace("승인받고", "승인을 받고") + " 그렇다.", ("a#0",), "shingles"),
        (FIRST[12:] + " " + SECOND[:30], ("a#0", "a#1"), "shingles"),
        ("예", ("c#0",), "exact"),
    ],
    ids=["whole", "inside", "several", "edited", "across", "short and equal"],
)
def test_a_text_is_linked_to_where_it_stands(text: str, passages: tuple[str, ...], kind: str) -> None:
    """Inside a passage, over several, edited, or across a boundary."""
    link = Linker(PASSAGES).link(text)
    assert link is not None
    assert (link.passages, link.kind) == (passages, kind)
    assert 0.7 <= link.containment <= 1.0


@pytest.mark.parametrize(
    "text",
    [
        "전혀 다른 이야기이며 어느 문서에도 서 있지 않은 문장이다.",
        "시간",
        "",
        "…",
        OTHER[:14] + "은 버리고 새것을 산다 아무 데서나",
    ],
)
def test_a_text_that_stands_nowhere_is_not_linked(text: str) -> None:
    """Neither strangers nor words that stand everywhere."""
    assert Linker(PASSAGES).link(text) is None


def test_the_same_text_in_two_documents_is_linked_to_both() -> None:
    """Both answer."""
    twin = [*PASSAGES, Passage(id="d#0", document_id="d", text=FIRST)]
    assert Linker(twin).link(FIRST) == Link(passages=("a#0", "d#0"), kind="exact", containment=1.0)


def test_nothing_to_link_to_links_nothing() -> None:
    """An empty corpus."""
    assert Linker([]).link(FIRST) is None
