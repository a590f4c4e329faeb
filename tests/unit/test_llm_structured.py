"""Replies of language models, read leniently."""

import json

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.llm.structured import read_form, schema_of


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1)
    number: int


class Items(pydantic.BaseModel):
    items: list[Item] = pydantic.Field(min_length=1)


GOOD = {"items": [{"name": "하나", "number": 1}, {"name": "둘", "number": 2}]}
TEXT = json.dumps(GOOD, ensure_ascii=False)


@pytest.mark.parametrize(
    "reply",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"다음과 같습니다.\n{TEXT}\n도움이 되기를 바랍니다.",
        f"<think>{{아마}} [1] 그럴까</think>{TEXT}",
        f"{{}} {TEXT}",
        f"[참고] {TEXT}",
    ],
)
def test_what_stands_around_the_json_does_not_matter(reply: str) -> None:
    """Code fences, thoughts, and words before and after it."""
    assert read_form(reply, Items).model_dump() == GOOD


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("", "empty"),
        ("모르겠습니다.", "no JSON"),
        (TEXT[:-9], "not JSON"),
        ('{"items": []}', "items: List should have at least 1 item"),
        ('{"items": [{"name": "", "number": "x"}]}', "items.0.name"),
    ],
)
def test_what_is_not_the_form_says_why(reply: str, words: str) -> None:
    """In words that the model can be told."""
    with pytest.raises(ValueError, match=words):
        read_form(reply, Items)


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0, max_value=len(TEXT)))
def test_a_reply_that_was_cut_off_gives_its_whole_items_only(cut: int) -> None:
    """However far it came: never half an item."""
    try:
        found = read_form(TEXT[:cut], Items, partial=True).model_dump()["items"]
    except ValueError:
        return
    assert found == GOOD["items"][: len(found)]


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_no_reply_breaks_the_reader(reply: str) -> None:
    """Anything that is not the form is a ValueError, nothing else."""
    for partial in (False, True):
        with pytest.raises(ValueError):  # noqa: PT011
            read_form(reply, Items, partial=partial)


def test_the_schema_is_closed_and_everything_is_required() -> None:
    """As strict endpoints want it, in the parts as well."""
    schema = json.loads(schema_of(Items))
    for part in (schema, schema["$defs"]["Item"]):
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])
