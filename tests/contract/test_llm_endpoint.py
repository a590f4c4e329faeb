"""Calls at a real HTTP server of the OpenAI kind that misbehaves by a script."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llm_server import Script, ScriptedLlm

from nearer import process
from nearer.errors import InputError, Interrupted, NearerError, NoPermission, OutOfReach
from nearer.llm.access import Access, find_access
from nearer.llm.ask import Asker
from nearer.llm.endpoint import Endpoint, retry_after
from nearer.llm.ledger import Ledger
from nearer.llm.prices import Prices
from nearer.llm.request import Reply, Request
from nearer.progress import Silent
from nearer.store.protocol import WorkArea


def request(number: int, schema: str = "") -> Request:
    passage = f"{number}번째 글은 춘천 서비스센터와 필터 교체 주기를 다룬다. 접수 번호는 원주-{number}이다."
    user = f'다음 글입니다.\n\n<passage n="1">\n{passage}\n</passage>\n1. natural: 질문'
    messages = (("system", "만드세요."), ("user", user))
    return Request(messages=messages, max_tokens=64, temperature=0.5, schema=schema)


def endpoint(server: ScriptedLlm, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "model": "scripted",
        "access": Access(base_url=server.url, key="secret-key-1234"),
        "concurrent": 4,
        "delay_seconds": 0.0,
        "timeout_seconds": 0.5,
        "attempts": 4,
        "backoff_seconds": 0.001,
        "warn": lambda _: None,
        **changes,
    }
    return Endpoint(**fields)


class Asking:
    """An asker over a ledger in a directory."""

    def __init__(self, directory: Path, backend: Any, *, budget: int | None = None) -> None:
        self.ledger = Ledger(WorkArea(path=directory))
        self.asker = Asker(
            backend=backend,
            ledger=self.ledger,
            token_budget=budget,
            prices=Prices(prompt=1.0, completion=2.0),
            progress=Silent(),
        )

    def __call__(self, requests: list[Request]) -> list[Reply]:
        try:
            return self.asker.ask(requests, what="test")
        finally:
            self.ledger.close()


def test_every_call_is_answered_once_through_all_faults_of_the_wire(tmp_path: Path) -> None:
    """429 with Retry-After, 500, replies that never come, a slow tail: each good reply exactly once, four at a time."""
    script = Script(seed=3, too_many=0.1, broken=0.15, silent=0.02, slow=0.1)
    requests = [request(number) for number in range(80)]
    with ScriptedLlm(script) as server:
        replies = Asking(tmp_path, endpoint(server))([*requests, requests[0]])
        assert all(reply.text and not reply.problem for reply in replies)
        assert len(server.good) == sum(server.good.values()) == 80
        assert server.most <= 4
        assert len(server.calls) > 90  # the faults did happen
        again = Asking(tmp_path, endpoint(server))([*reversed(requests)])
        assert sum(server.good.values()) == 80
    assert again == replies[:80][::-1]


def test_what_was_paid_is_accounted(tmp_path: Path) -> None:
    """Tokens of prompts and replies, their cost, and what the ledger saved."""
    requests = [request(number) for number in range(10)]
    with ScriptedLlm() as server:
        asking = Asking(tmp_path, endpoint(server))
        asking(requests)
        first = asking.asker.summary()
        second = Asking(tmp_path, endpoint(server))
        second(requests)
    assert first["calls"] == 10
    assert first["cost"] == round((first["prompt_tokens"] + 2 * first["completion_tokens"]) / 1e6, 6) > 0
    found = second.asker.summary()
    assert (found["calls"], found["calls_found_in_ledger"], found["cost"]) == (0, 10, 0.0)
    assert found["tokens_found_in_ledger"] == first["prompt_tokens"] + first["completion_tokens"]


def test_the_budget_stops_the_work_and_loses_nothing(tmp_path: Path) -> None:
    """Exit 2 with the way out; with a larger budget it goes on where it stopped."""
    requests = [request(number) for number in range(40)]
    with ScriptedLlm() as server:
        with pytest.raises(InputError, match="token budget is used up") as caught:
            Asking(tmp_path, endpoint(server, concurrent=2), budget=2000)(requests)
        assert "raise it" in str(caught.value)
        paid = sum(server.good.values())
        assert 0 < paid < 40
        Asking(tmp_path, endpoint(server))(requests)
        assert sum(server.good.values()) == 40


def test_sigterm_keeps_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 75: no new call starts, those under way are written down."""
    stop = process.StopFlag()
    monkeypatch.setattr(process, "STOP", stop)
    backend_calls = 0

    class Stopping(Endpoint):
        def answer(self, requests: Any, *, go_on: Callable[[], bool]) -> Any:
            nonlocal backend_calls
            for found in super().answer(requests, go_on=go_on):
                backend_calls += 1
                if backend_calls == 5:
                    stop.set()
                yield found

    requests = [request(number) for number in range(40)]
    with ScriptedLlm() as server:
        fields = {"model": "scripted", "access": Access(base_url=server.url, key="k"), "concurrent": 4}
        backend = Stopping(**fields, delay_seconds=0, timeout_seconds=5, attempts=2, warn=print)
        with pytest.raises(Interrupted):
            Asking(tmp_path, backend)(requests)
        paid = sum(server.good.values())
        assert 5 <= paid <= 9
        monkeypatch.setattr(process, "STOP", process.StopFlag())
        Asking(tmp_path, endpoint(server))(requests)
        assert sum(server.good.values()) == 40


@pytest.mark.parametrize(
    ("script", "key", "error", "code", "words"),
    [
        (Script(), "another", NoPermission, 2, ["refuses the key (401)", "Incorrect API key", "environment"]),
        (Script(status=403), "", NoPermission, 2, ["refuses the key (403)"]),
        (Script(status=404), "", InputError, 2, ["(404)", "scripted", "generate.llm_model"]),
        (
            Script(status=429, error={"message": "no money", "code": "insufficient_quota"}),
            "",
            InputError,
            2,
            ["no money", "may not spend"],
        ),
        (Script(status=400), "", InputError, 2, ["refuses every request", "scripted"]),
        (Script(status=500), "", OutOfReach, 69, ["after 4 attempts", "scripted", "nothing that was answered"]),
        (Script(status=429), "", OutOfReach, 69, ["after 4 attempts"]),
    ],
)
def test_an_endpoint_that_refuses_is_told_in_words(
    tmp_path: Path, script: Script, *, key: str, error: type[NearerError], code: int, words: list[str]
) -> None:
    """Key, model and money are the user's to put right, at once; an endpoint that is down is tried again later."""
    with ScriptedLlm(script, key=key) as server:
        with pytest.raises(error) as caught:
            Asking(tmp_path, endpoint(server))([request(number) for number in range(20)])
        assert len(server.calls) <= 4 * 8
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    assert "secret-key-1234" not in str(caught.value)


def test_nobody_listening_is_out_of_reach(tmp_path: Path) -> None:
    """A refused connection ends in exit 69."""
    with ScriptedLlm() as server:
        gone = endpoint(server)
    with pytest.raises(OutOfReach, match="does not answer"):
        Asking(tmp_path, gone)([request(1)])


def test_the_key_stands_nowhere(tmp_path: Path) -> None:
    """Neither in the ledger nor in what an object prints."""
    with ScriptedLlm() as server:
        backend = endpoint(server)
        Asking(tmp_path, backend)([request(1)])
    for file in tmp_path.rglob("*"):
        assert b"secret-key" not in file.read_bytes()
    assert "secret-key" not in repr(Access(base_url="http://user:pw@host/v1", key="secret-key"))
    assert "pw" not in repr(Access(base_url="http://user:pw@host/v1", key="secret-key"))


@pytest.mark.parametrize(
    ("field", "words", "sent"),
    [
        ("response_format", "response_format of type json_schema is not supported", "temperature"),
        ("temperature", "Unsupported value: 'temperature'", "response_format"),
        ("max_tokens", "Unsupported parameter: use 'max_completion_tokens' instead", "max_completion_tokens"),
    ],
)
def test_what_an_endpoint_does_not_know_is_left_out(tmp_path: Path, field: str, words: str, sent: str) -> None:
    """Once it has said so: no call fails for it, and the user is told."""
    heard: list[str] = []
    with ScriptedLlm(Script(refuse={field: words})) as server:
        backend = endpoint(server, concurrent=1, warn=heard.append)
        replies = Asking(tmp_path, backend)([request(number, json.dumps({"type": "object"})) for number in range(5)])
        assert all(reply.text for reply in replies)
        assert field not in server.calls[-1]
        assert sent in server.calls[-1]
        assert len(server.calls) <= 5 + 2
    assert any("does not know" in each for each in heard)


def test_one_request_that_nothing_answers_stops_nothing(tmp_path: Path) -> None:
    """It is set aside, tried again at the end, and reported; a later run asks for it again."""

    class Poisoned(Endpoint):
        def _attempt(self, request_: Request) -> Reply:
            if request_ == request(7):
                raise self._openai.APIConnectionError(message="it broke", request=None)
            return super()._attempt(request_)

    requests = [request(number) for number in range(30)]
    with ScriptedLlm() as server:
        fields = {"model": "scripted", "access": Access(base_url=server.url, key="k"), "concurrent": 3}
        pace = {"delay_seconds": 0, "timeout_seconds": 5, "attempts": 2, "backoff_seconds": 0.001}
        replies = Asking(tmp_path, Poisoned(**fields, **pace, warn=print))(requests)
        assert replies[7].problem == "unanswered: it broke"
        assert all(reply.text for number, reply in enumerate(replies) if number != 7)
        assert Asking(tmp_path, endpoint(server))(requests)[7].text


def test_calls_start_apart_and_a_pause_holds_all(tmp_path: Path) -> None:
    """request_delay is kept between starts; while one is asked to wait, no other call comes."""
    with ScriptedLlm(Script(too_many=0.3, retry_after="0.05", seed=1)) as server:
        begin = time.monotonic()
        Asking(tmp_path, endpoint(server, delay_seconds=0.01, concurrent=3, attempts=8))(
            [request(number) for number in range(20)]
        )
        assert time.monotonic() - begin >= 0.01 * (len(server.calls) - 1)
        assert server.too_early <= 2 * sum(count > 1 for count in server.attempts.values())  # those under way


def test_other_parameters_are_another_call() -> None:
    """Model, words, temperature, length and schema: each changes the key."""
    one = request(1)
    others = [
        replace(one, temperature=0.1),
        replace(one, max_tokens=65),
        replace(one, schema="{}"),
        replace(one, attempt=1),
        request(2),
    ]
    keys = {one.key("a"), one.key("b"), *(other.key("a") for other in others)}
    assert len(keys) == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "3"}, 3.0), ({"retry-after-ms": "250"}, 0.25), ({}, 0.0), ({"retry-after": "soon"}, 0.0)],
)
def test_the_wanted_pause_is_read(headers: dict[str, str], seconds: float) -> None:
    """Seconds, milliseconds, or nothing."""
    assert retry_after(headers) == seconds
    assert (
        retry_after({"retry-after": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3600))}) > 3000
    )


def test_access_comes_from_settings_and_environment() -> None:
    """An endpoint of one's own needs no key; neither is an error that says what to do."""
    found = find_access(model="m", base_url=None, key_variable="K", environment={"K": " k \n"})
    assert (found.base_url, found.key) == ("https://api.openai.com/v1", "k")
    assert find_access(model="m", base_url="http://x/v1", key_variable="K", environment={}).key == "none"
    own = find_access(model="m", base_url=None, key_variable="K", environment={"OPENAI_BASE_URL": "http://y/v1"})
    assert own.base_url == "http://y/v1"
    with pytest.raises(InputError, match="nothing says how to reach it"):
        find_access(model="m", base_url=None, key_variable="K", environment={"OPENAI_API_KEY": "k"})
    with pytest.raises(InputError, match="ftp://host") as caught:
        find_access(model="m", base_url="ftp://user:pw@host", key_variable="K", environment={})
    assert "pw" not in str(caught.value)
