"""A language model behind an HTTP endpoint of the OpenAI kind: OpenAI itself, vLLM, Ollama, and many hosted ones."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from nearer.errors import InputError, NoPermission, OutOfReach
from nearer.llm.access import Access, without_password
from nearer.llm.pace import Pace
from nearer.llm.pool import Pool, StoppedError, UnansweredError
from nearer.llm.request import Reply, Request

_LONGEST_PAUSE_SECONDS: Final = 900.0
"""An endpoint that asks for a longer pause is out of reach: a Job's own retries cost less than a pod that waits."""
_MOST_BACKOFF_SECONDS: Final = 60.0
_SHORTEST_KEY: Final = 8  # shorter ones are words that stand for "no key" (`none`, `EMPTY`, `ollama`)


class Endpoint:
    """Calls at an endpoint, some at once.

    Calls that fail for a while (429, 408, 409, 5xx, timeouts, broken connections) are made again, with growing pauses;
    a `Retry-After` holds up all calls, not the refused one alone. A call that fails every time is set aside and tried
    once more at the end: as long as the endpoint answers others, one request that it cannot digest stops nothing.
    What an endpoint does not know (a JSON schema, `max_completion_tokens`, a temperature) is left out from then on.

    Args:
        model: the endpoint's name for it.
        access: address and key.
        concurrent: calls at once.
        delay_seconds: between the starts of two calls.
        timeout_seconds: of one attempt.
        attempts: of one call.
        backoff_seconds: before the second attempt, doubled before each further one, with jitter.
        warn: told what was left out, and that the endpoint is slow to answer.
    """

    def __init__(
        self,
        *,
        model: str,
        access: Access,
        concurrent: int,
        delay_seconds: float,
        timeout_seconds: float,
        attempts: int,
        backoff_seconds: float = 1.0,
        warn: Callable[[str], None],
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise InputError(
                "asking an endpoint needs the `openai` package",
                rule="the extra `llm` is installed",
                way_out="pip install 'nearer[llm]'",
            ) from error
        self._openai = openai
        self._model = model
        self._access = access
        self._concurrent = concurrent
        self._attempts = attempts
        self._backoff = backoff_seconds
        self._warn = warn
        self._pace = Pace(delay_seconds=delay_seconds)
        self._draw = random.Random()
        self._left_out: set[str] = set()
        self._lock = threading.Lock()
        self._client = openai.OpenAI(
            api_key=access.key, base_url=access.base_url, timeout=timeout_seconds, max_retries=0
        )

    @property
    def model(self) -> str:
        """The endpoint's name for the model."""
        return self._model

    def answer(self, requests: Sequence[Request], *, go_on: Callable[[], bool]) -> Iterator[tuple[int, Reply]]:
        """Answer requests, at most `concurrent` at once; see `Backend.answer`."""
        pool = Pool(
            requests,
            call=self._call,
            concurrent=self._concurrent,
            pace=self._pace,
            out_of_reach=self._out_of_reach,
        )
        return pool.run(go_on)

    def _call(self, request: Request) -> Reply:
        """One call, with all its attempts.

        Raises:
            UnansweredError: it failed every time.
            StoppedError: no further attempt is wanted.
            InputError: key, model or quota are refused.
        """
        problem = ""
        for attempt in range(self._attempts):
            if not self._pace.wait():
                raise StoppedError
            try:
                return self._attempt(request)
            except self._openai.RateLimitError as error:
                if error.code == "insufficient_quota":
                    raise self._refused(
                        error, "the account may not spend any more", "pay, or choose another"
                    ) from error
                problem = self._said(error)
                self._pace.pause(self._wanted(error) or self._pause_seconds(attempt))
            except (self._openai.APIConnectionError, self._openai.InternalServerError, _BrokenError) as error:
                problem = self._said(error)
                if attempt + 1 < self._attempts and not self._pace.sleep(self._pause_seconds(attempt)):
                    raise StoppedError from error
        raise UnansweredError(problem)

    def _attempt(self, request: Request) -> Reply:
        """One attempt; what the endpoint does not know is left out, and asked for again at once."""
        while True:
            fields = self._fields(request)
            try:
                done = self._client.chat.completions.create(**fields)
                return self._reply(done)
            except (self._openai.AuthenticationError, self._openai.PermissionDeniedError) as error:
                raise NoPermission(
                    f"the endpoint refuses the key ({error.status_code}): {self._said(error)}",
                    where=without_password(self._access.base_url),
                    rule="a key that may use this model",
                    way_out="give the right key in the environment; it is read from there alone",
                ) from error
            except self._openai.NotFoundError as error:
                raise self._refused(error, "a model that the endpoint serves", "correct generate.llm_model") from error
            except self._openai.APIStatusError as error:
                if error.status_code in {408, 409, 425} or error.status_code >= 500 or error.status_code == 429:
                    if isinstance(error, (self._openai.RateLimitError, self._openai.InternalServerError)):
                        raise
                    raise _BrokenError(self._said(error)) from error
                if unknown := self._unknown(error, fields):
                    self._leave_out(unknown)
                    continue
                return Reply(text="", problem=f"refused ({error.status_code}): {self._said(error)}")
            except self._openai.APIConnectionError:
                raise
            except (self._openai.APIError, ValueError, AttributeError, IndexError, TypeError) as error:
                raise _BrokenError(f"not a chat completion: {self._said(error)}") from error

    def _fields(self, request: Request) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": role, "content": text} for role, text in request.messages],
        }
        out = self._left_out
        fields["max_completion_tokens" if "max_tokens" in out else "max_tokens"] = request.max_tokens
        if "temperature" not in out:
            fields["temperature"] = request.temperature
        if request.schema and "json_schema" not in out:
            form = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
            fields["response_format"] = {"type": "json_schema", "json_schema": form}
        elif request.schema and "json_object" not in out:
            fields["response_format"] = {"type": "json_object"}
        return fields

    def _unknown(self, error: Any, fields: Mapping[str, Any]) -> str:
        """The name of what the endpoint does not know, if that is its reason to refuse."""
        said = f"{getattr(error, 'param', '') or ''} {error}"
        if error.status_code not in {400, 422}:
            return ""
        if "max_tokens" in fields and "max_completion_tokens" in said:
            return "max_tokens"
        if "temperature" in fields and "temperature" in said:
            return "temperature"
        if "response_format" in fields and any(
            word in said for word in ("response_format", "json_schema", "json_object", "guided", "schema")
        ):
            return str(fields["response_format"]["type"])
        return ""

    def _leave_out(self, name: str) -> None:
        with self._lock:
            if name in self._left_out:
                return
            self._left_out.add(name)
        words = {"max_tokens": "`max_completion_tokens` is sent instead of `max_tokens`"}
        self._warn(f"the endpoint does not know {name}: {words.get(name, 'left out from now on')}")

    def _reply(self, done: Any) -> Reply:
        message = done.choices[0].message
        text = message.content or ""
        usage = done.usage
        return Reply(
            text=text,
            prompt_tokens=int(usage.prompt_tokens) if usage else 0,
            completion_tokens=int(usage.completion_tokens) if usage else 0,
        )

    def _wanted(self, error: Any) -> float:
        """The pause that the endpoint asks for, in seconds; 0: it does not say.

        Raises:
            OutOfReach: longer than anybody should wait.
        """
        seconds: float = retry_after(error.response.headers)
        if seconds > _LONGEST_PAUSE_SECONDS:
            raise OutOfReach(
                f"the endpoint asks for a pause of {seconds:,.0f} s",
                where=without_password(self._access.base_url),
                rule=f"at most {_LONGEST_PAUSE_SECONDS:,.0f} s",
                way_out="run the same command again later: nothing that was answered is asked again",
            )
        return seconds

    def _pause_seconds(self, attempt: int) -> float:
        return min(_MOST_BACKOFF_SECONDS, self._backoff * float(2**attempt)) * self._draw.uniform(0.5, 1.0)

    def _said(self, error: Any) -> str:
        """The first line of an error's text, without the key."""
        body = getattr(error, "body", None)
        text = body.get("message") if isinstance(body, dict) else None
        lines = str(text or error).strip().splitlines()
        first = lines[0] if lines else type(error).__name__
        is_key = len(self._access.key) >= _SHORTEST_KEY
        return (first.replace(self._access.key, "…") if is_key else first)[:300]

    def _refused(self, error: Any, rule: str, way_out: str) -> InputError:
        return InputError(
            f"the endpoint refuses ({error.status_code}): {self._said(error)}",
            where=f"model {self._model} at {without_password(self._access.base_url)}",
            rule=rule,
            way_out=way_out,
        )

    def _out_of_reach(self, problem: str) -> OutOfReach:
        return OutOfReach(
            f"the endpoint does not answer after {self._attempts} attempts: {problem}",
            where=without_password(self._access.base_url),
            rule="an endpoint that answers",
            way_out="run the same command again when it does: nothing that was answered is asked again",
        )


class _BrokenError(Exception):
    """An answer that is none; it may be better the next time."""


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a reply asks to wait (RFC 9110, 10.2.3: seconds or a date); 0: it does not say."""
    from email.utils import parsedate_to_datetime

    if given := headers.get("retry-after-ms"):
        try:
            return max(0.0, float(given) / 1000)
        except ValueError:
            pass
    given = headers.get("retry-after", "")
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
