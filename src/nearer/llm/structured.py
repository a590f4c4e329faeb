"""Replies that must have a form: read leniently, asked for again a few times, and kept aside when all that fails."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

import pydantic
from pydantic_core import from_json

from nearer.llm.ask import Asker
from nearer.llm.request import Message, Reply, Request

M = TypeVar("M", bound=pydantic.BaseModel)

_THOUGHT: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_START: Final = re.compile(r"[{\[]")
_SHOWN: Final = 400


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[M]):
    """What a call came to: a value, or why there is none and what was said instead.

    `repairs`: how often it was asked for again.
    """

    value: M | None
    raw: str
    problem: str = ""
    repairs: int = 0


def schema_of(model: type[pydantic.BaseModel]) -> str:
    """The JSON schema of a form, closed and with every field required, as endpoints with strict schemas want it."""
    schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            part["additionalProperties"] = False
            part["required"] = list(part.get("properties", {}))
    return json.dumps(schema, ensure_ascii=False, sort_keys=True)


def ask_for(
    requests: Sequence[Request], form: type[M], *, asker: Asker, repairs: int, repair_prompt: str, what: str
) -> list[Answer[M]]:
    """Ask, and read the replies as the form.

    Args:
        requests: without schema; the form's is added.
        form: a pydantic model; its validators may refuse what is well formed and wrong.
        asker: asks.
        repairs: so many more times a reply that cannot be read is asked for again, with the error.
        repair_prompt: what is said then; `$error` stands for what was wrong.
        what: for the progress bar.

    Returns:
        One answer a request. A last reply that was cut off gives what was complete in it, if that is still the form.

    Raises:
        InputError, OutOfReach, Interrupted: see `Asker.ask`.
    """
    schema = schema_of(form)
    asked = [replace(request, schema=schema) for request in requests]
    answers: list[Answer[M] | None] = [None] * len(requests)
    open_ = list(range(len(requests)))
    for repair in range(repairs + 1):
        last = repair == repairs
        title = what if repair == 0 else f"{what}: unreadable replies, once more"
        replies = asker.ask([asked[place] for place in open_], what=title)
        again = []
        for place, reply in zip(open_, replies, strict=True):
            answer = _read(reply, form, partial=last, repairs=repair)
            answers[place] = answer
            if answer.value is None and not reply.problem and not last:
                asked[place] = _repaired(asked[place], reply, answer.problem, repair_prompt)
                again.append(place)
        open_ = again
        if not open_:
            break
    return [answer for answer in answers if answer is not None]


def read_form(text: str, form: type[M], *, partial: bool = False) -> M:
    """A reply as the form: thoughts, code fences and words around the JSON are passed over.

    Args:
        text: the reply.
        form: what it must be.
        partial: whether JSON that was cut off is read as far as it goes; its last text, if cut, is left out.

    Raises:
        ValueError: it is not, and why; `pydantic.ValidationError` is one.
    """
    text = _THOUGHT.sub("", text).strip()
    if not text:
        raise ValueError("the reply is empty")
    problem: ValueError | None = None
    for start in _START.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start.start())
        except ValueError as error:
            if not partial:
                problem = problem or ValueError(f"not JSON: {error}")
                continue
            try:
                value = from_json(text[start.start() :], allow_partial=True)
            except ValueError as broken:
                problem = problem or broken
                continue
            value = _complete(value)
        try:
            return form.model_validate(value)
        except pydantic.ValidationError as error:
            problem = problem or _told(error)
        if start.start() >= _SHOWN:
            break
    raise problem or ValueError("no JSON in the reply")


def _told(error: pydantic.ValidationError) -> ValueError:
    """The first few errors, without the links and repetitions of pydantic's own text."""
    shown = [f"{'.'.join(map(str, each['loc'])) or 'reply'}: {each['msg']}" for each in error.errors()[:3]]
    return ValueError("; ".join(shown))


def _complete(value: Any) -> Any:
    """A cut-off value without its last item where that has fewer keys than the first."""
    if isinstance(value, dict):
        return {key: _complete(item) for key, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        whole = len(value[-1]) >= len(value[0]) and len(value) > 1
        return value if whole else value[:-1]
    return value


def _read(reply: Reply, form: type[M], *, partial: bool, repairs: int) -> Answer[M]:
    if reply.problem:
        return Answer(value=None, raw=reply.text, problem=reply.problem, repairs=repairs)
    try:
        return Answer(value=read_form(reply.text, form), raw=reply.text, repairs=repairs)
    except ValueError as error:
        problem = str(error)
    if partial:
        try:
            return Answer(value=read_form(reply.text, form, partial=True), raw=reply.text, repairs=repairs)
        except ValueError:
            pass
    return Answer(value=None, raw=reply.text, problem=f"unreadable: {problem[:_SHOWN]}", repairs=repairs)


def _repaired(request: Request, reply: Reply, problem: str, prompt: str) -> Request:
    """The next asking: with the reply and what was wrong with it; an empty reply is asked for once more as it was."""
    if not reply.text.strip():
        return replace(request, attempt=request.attempt + 1)
    said: Message = ("assistant", reply.text)
    return replace(
        request,
        messages=(*request.messages, said, ("user", prompt.replace("$error", problem))),
    )
