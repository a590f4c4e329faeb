"""A language model that is none: an HTTP server of the OpenAI kind whose answers and faults follow a script.

What a call gets is decided by the seed and its own words, so that neither order nor number of threads change it. Faults
of the wire (429, 500, a reply that never comes) befall the first attempts of a call and then pass; faults of the model
(half a JSON, an empty reply, another language, the same question for everybody) are replies like any other.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

PASSAGE = re.compile(r'<passage n="(\d+)"[^>]*>\n(.*?)\n</passage>', re.DOTALL)
WORD = re.compile(r"[가-힣A-Za-z]{2,}")
KIND = re.compile(r"^\d+\. (natural|keyword|colloquial|multi_passage|comparison):", re.MULTILINE)
DUPLICATE = "고장이 나면 어디에 전화해야 하는지 알려 주세요"


@dataclass
class Script:
    """Shares of the calls (of those that are no repair) that a fault befalls; the rest is answered well."""

    seed: int = 0
    too_many: float = 0.0
    broken: float = 0.0
    silent: float = 0.0
    half: float = 0.0
    always_half: float = 0.0
    empty: float = 0.0
    foreign: float = 0.0
    duplicate: float = 0.0
    dependent: float = 0.0
    slow: float = 0.0
    retry_after: str = "0.02"
    slow_seconds: float = 0.05
    delay_seconds: float = 0.0
    refuse: dict[str, str] = field(default_factory=dict)
    """Name of a request's field → words of a 400 that refuses it."""
    status: int = 0
    """If set, every call gets it."""
    error: dict[str, object] = field(default_factory=dict)


class ScriptedLlm:
    """The server, while its context lasts."""

    def __init__(self, script: Script | None = None, *, key: str = "") -> None:
        self.script = script or Script()
        self.key = key
        self.calls: list[dict[str, object]] = []
        self.good: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.empty: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.now = 0
        self.most = 0
        self.paused_until = 0.0
        self.too_early = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.answered = threading.Condition(self.lock)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def wait_for(self, count: int, seconds: float = 60.0) -> None:
        """Until so many calls were answered well."""
        with self.lock:
            assert self.answered.wait_for(lambda: sum(self.good.values()) >= count, timeout=seconds)

    def repeated(self) -> int:
        """How many good answers were given more than once, counted each time."""
        with self.lock:
            return sum(count - 1 for count in self.good.values())

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        name = hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            attempt = self.attempts[name]
            self.attempts[name] += 1
            self.calls.append(body)
            self.too_early += time.monotonic() < self.paused_until
        try:
            self.reply(request, body, name, attempt)
        except (BrokenPipeError, ConnectionResetError):
            request.close_connection = True

    def leave(self, name: str = "") -> None:
        with self.lock:
            self.now -= 1
            if name:
                self.good[name] += 1
                self.answered.notify_all()

    def reply(self, request: BaseHTTPRequestHandler, body: dict, name: str, attempt: int) -> None:  # noqa: PLR0911
        script = self.script
        draw = random.Random(f"{script.seed} {name}")
        repair = len(body["messages"]) > 2
        wire, model = draw.random(), random.Random(f"{script.seed} {body['messages'][1]['content']}").random()
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            said = {"message": f"Incorrect API key provided: {request.headers.get('Authorization', '')[7:]}"}
            return self.send(request, 401, {"error": said})
        for field_, words in script.refuse.items():
            if field_ in body:
                return self.send(request, 400, {"error": {"message": words, "param": field_}})
        if script.status:
            said = script.error or {"message": "scripted"}
            return self.send(request, script.status, {"error": said})
        if wire < script.too_many and attempt < 2:
            return self.send(request, 429, {"error": {"message": "slow down"}}, {"Retry-After": script.retry_after})
        wire -= script.too_many
        if 0 <= wire < script.broken and attempt < 2:
            return self.send(request, 500, {"error": {"message": "scripted fault"}})
        wire -= script.broken
        if 0 <= wire < script.silent and attempt < 1:
            self.leave()
            self.closing.wait(30)
            request.close_connection = True
            return None
        wire -= script.silent
        if 0 <= wire < script.slow:
            self.closing.wait(script.slow_seconds)
        if script.delay_seconds:
            self.closing.wait(script.delay_seconds)
        with self.lock:
            repair = repair or self.empty[name] > 0
        text = self.words(body, draw, model, repair=repair)
        prompt = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text), "total_tokens": prompt + len(text)}
        message = {"role": "assistant", "content": text}
        self.send(
            request,
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            },
            good=name if text else "",
        )
        with self.lock:
            self.empty[name] += not text
        return None

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: dict, headers: dict | None = None, good: str = ""
    ) -> None:
        data = json.dumps(body, ensure_ascii=False).encode()
        self.leave(good)
        if headers and "Retry-After" in headers:
            with self.lock:
                self.paused_until = time.monotonic() + float(headers["Retry-After"])
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(data)

    def words(self, body: dict, draw: random.Random, fault: float, *, repair: bool) -> str:
        """The reply's text."""
        script = self.script
        user = body["messages"][1]["content"]
        passages = [text for _, text in PASSAGE.findall(user)]
        text = json.dumps(self.answer(user, passages, draw, fault, repair=repair), ensure_ascii=False)
        edges = [script.half, script.always_half, script.empty]
        if fault < edges[0] and not repair:
            return text[: len(text) // 2]
        if edges[0] <= fault < sum(edges[:2]):
            return text[: len(text) // 3]
        if sum(edges[:2]) <= fault < sum(edges) and not repair:
            return ""
        return text if draw.random() < 0.5 else f"다음과 같습니다.\n```json\n{text}\n```"

    def answer(self, user: str, passages: list[str], draw: random.Random, fault: float, *, repair: bool) -> dict:
        if "`answerable`" in user:
            return {"answerable": True}
        if "`relevant`" in user:
            query = set(WORD.findall(user.split("\n\n")[1]))
            hits = [len(query & set(WORD.findall(text))) for text in passages]
            best = max(hits, default=0)
            relevant = [number for number, count in enumerate(hits, 1) if count == best and best > 1]
            return {"relevant": relevant, "answer": "표시한 글에 따르면 그렇습니다." if relevant else ""}
        if "오답" in user:
            words = sorted(set(WORD.findall(passages[0])))
            return {"negatives": [" ".join(draw.sample(words, min(8, len(words)))) + " 이야기는 다루지 않는다."] * 2}
        kinds = KIND.findall(user)
        start = 1.0 - self.script.foreign - self.script.duplicate - self.script.dependent
        queries = []
        for number, kind in enumerate(kinds):
            words = list(dict.fromkeys(WORD.findall(" ".join(passages))))
            chosen = " ".join(sorted(draw.sample(words, min(5, len(words))), key=hash_of))
            text = {"natural": f"{chosen} 내용을 알고 싶은데 어떻게 되나요?", "colloquial": f"{chosen} 어케 해요"}.get(
                kind, chosen
            )
            if number == 0 and fault >= start:
                spot = fault - start
                if spot < self.script.foreign:
                    text = f"Where do I find the manual about topic {hash_of(user)[:6]} quickly?"
                elif spot < self.script.foreign + self.script.duplicate:
                    text = DUPLICATE
                else:
                    text = f"위 문서에서 {chosen} 설명한 것은 무엇인가요?"
            self.kinds[kind] += 1
            queries.append(
                {
                    "kind": kind,
                    "query": text,
                    "answer": f"{chosen}에 대한 답이다.",
                    "passages": list(range(1, len(passages) + 1)),
                }
            )
        return {"queries": queries}


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
