"""What a language model is asked and what it answers, whoever runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]
Message = tuple[Role, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call. Everything here changes the answer, and is part of its key.

    Args:
        messages: roles and texts, in order.
        max_tokens: most tokens of the reply.
        temperature: 0 is greedy.
        schema: JSON schema of the reply, as canonical JSON; "" for free text.
        attempt: from 1 on, the same words once more, because the reply was empty.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    schema: str = ""
    attempt: int = 0

    def key(self, model: str) -> str:
        """The sha256 of the model's name and all of the request: where a finished call is found again."""
        what = [model, self.messages, self.max_tokens, self.temperature, self.schema, self.attempt]
        return hashlib.sha256(json.dumps(what, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, with the tokens that it cost. `problem` says why there is none; then the text is empty."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str = ""

    @property
    def tokens(self) -> int:
        """What was paid for: prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class Backend(Protocol):
    """Somebody who runs a language model."""

    @property
    def model(self) -> str:
        """The model's name, as part of every key."""

    def answer(self, requests: Sequence[Request], *, go_on: Callable[[], bool]) -> Iterator[tuple[int, Reply]]:
        """Answer requests, each as soon as it is finished.

        Args:
            requests: to be answered.
            go_on: asked before each new call and at least once a second; once it says no, no call is started any more,
                and those that are under way are waited for.

        Yields:
            The position of a request, and its reply. The next call is started only when the caller comes back, so that
            what it has not written down is never more than what may be under way at once.

        Raises:
            InputError: the key, the model or the request is refused.
            OutOfReach: nothing answers.
        """
