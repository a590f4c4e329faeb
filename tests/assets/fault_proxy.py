"""An HTTP proxy in front of a real S3 server that does to requests and answers what bad networks and stores do."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ANSWERS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "late-503": (503, "ServiceUnavailable"),
    "expired": (400, "ExpiredToken"),
    "wrong-body": (400, "BadDigest"),
}
FAULTS = (
    "500",  # refused
    "503",
    "late-503",  # refused, but the request took effect
    "reset-before",  # the connection is reset before the request is forwarded,
    "reset-body",  # in the middle of its body,
    "reset-after",  # or after it took effect
    "truncate",  # half of the answer's body
    "wrong-answer",  # a byte of the answer's body is another one
    "wrong-body",  # a byte of the request's body is another one
    "stall",  # no answer within the timeout; the request took effect
    "late",  # the request is forwarded when nobody waits for it any more
)
TELLS_WRONG_BYTES = frozenset({"truncate", "wrong-answer", "wrong-body"})


@dataclass
class Proxy:
    """Where requests go, and what is done to each: `plan` gets its number, from 1, and names a fault or None."""

    upstream: str
    stall_seconds: float = 0.5
    plan: object = staticmethod(lambda number, method: None)
    checks_md5: bool = True
    done: dict[str, int] = field(default_factory=dict)
    count: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, plan, *, seed=0, checks_md5=True):
        """Begin to count anew, with another plan."""
        with self.lock:
            self.plan, self.count, self.checks_md5, self.draw = plan, 0, checks_md5, random.Random(seed)

    def next(self, method):
        with self.lock:
            self.count += 1
            fault = self.plan(self.count, method)
            if fault:
                self.done[fault] = self.done.get(fault, 0) + 1
            return fault, self.draw.random()


class Handler(BaseHTTPRequestHandler):
    """One client's connection, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy
    upstream: http.client.HTTPConnection | None = None

    def log_message(self, *_args):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self):
        if self.upstream:
            self.upstream.close()
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _handle(self):  # noqa: C901, PLR0911
        fault, where = self.proxy.next(self.command)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "reset-before" or (fault == "reset-body" and not length):
            return self._cut()
        if fault == "reset-body":
            self.rfile.read(length // 2)
            return self._cut()
        body = self.rfile.read(length)
        if fault in ("500", "503", "expired"):
            return self._refuse(fault)
        if fault == "late":
            time.sleep(self.proxy.stall_seconds)
        if fault == "wrong-body" and body:
            # As S3 has it; without, only the ETag of the answer tells. A claim that was written wrong by a process
            # that then dies could not be healed by anybody.
            checked = self.proxy.checks_md5 or "If-None-Match" in self.headers
            if checked and "Content-MD5" in self.headers:
                return self._refuse(fault)
            body = flipped(body, where)
        status, headers, answer = self._forward(body)
        if fault == "stall":
            time.sleep(self.proxy.stall_seconds)
        if fault in ("stall", "late", "reset-after"):
            return self._cut()
        if fault == "late-503":
            return self._refuse(fault)
        if fault == "wrong-answer" and answer:
            answer = flipped(answer, where)
        sent = answer[: len(answer) // 2] if fault == "truncate" else answer
        self._answer(status, headers, sent)
        if sent is not answer:
            self.close_connection = True
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _forward(self, body):
        address = urlsplit(self.proxy.upstream)
        for retry in (True, False):
            fresh = self.upstream is None
            if fresh:
                self.upstream = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        self.upstream.putheader(name, value)
                self.upstream.endheaders(body or None)
                answer = self.upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except http.client.RemoteDisconnected:  # the server ended a connection that was idle
                self.upstream = None
                if fresh or not retry:
                    raise
        raise AssertionError

    def _answer(self, status, headers, body):
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in ("connection", "server")]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if self.command == "HEAD" else body))

    def _refuse(self, fault):
        status, code = ANSWERS[fault]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        self._answer(status, headers, body)

    def _cut(self):
        """Reset the connection: what is on its way is lost."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def flipped(data, where):
    """The data with one bit of one byte changed; `where` is from [0, 1)."""
    changed = bytearray(data)
    changed[int(where * len(data))] ^= 1
    return bytes(changed)


@contextlib.contextmanager
def proxied(upstream, *, certificate=None, **options):
    """A running proxy in front of a server, and its address; TLS with a certificate and its key."""
    proxy = Proxy(upstream, **options)
    handler = type("Bound", (Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.request_queue_size = 64
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy, f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
