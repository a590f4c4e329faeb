"""Machines that work with one S3 root: stores, what they sent, and processes that are killed or paused at a request."""

from __future__ import annotations

import contextlib
import datetime  # noqa: ICN001
import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from botocore.httpsession import URLLib3Session

from nearer.errors import NearerError
from nearer.store import S3Buckets, S3Options
from nearer.store.cache import FileCache
from nearer.store.local import LocalStore
from nearer.store.s3.space import S3Space
from nearer.store.s3.store import S3Store


def space_at(endpoint, **options):
    """The primitives, one request after the other, all of them boto3's (`around_requests`), unless it is said otherwise."""
    options = {"attempts": 4, "requests_at_once": 1, "part_bytes": 5 << 20, "small_files": "boto3"} | options
    return S3Space(S3Buckets(default=S3Options(endpoint=endpoint, **options)))


def machine(root, space, directory, *, overwrite=False):
    """The store of a machine whose disk is the directory."""
    return S3Store(
        root,
        space=space,
        cache=FileCache(Path(directory, "cache"), limit_bytes=1 << 30, workers=space.workers),
        local=LocalStore(str(Path(directory, "local"))),
        overwrite=overwrite,
    )


class Request(NamedTuple):
    """What went over the wire."""

    method: str
    key: str
    query: str
    sent: int

    @property
    def is_file(self):
        """Whether it is a part or the whole of a file of an artifact or of a piece of work."""
        name = self.key.rpartition("/")[2]
        folders = ("/.nearer/staging/", "/bytes/")
        return self.method == "PUT" and any(f in self.key for f in folders) and name != "manifest.json"

    @property
    def is_fetch(self):
        """Whether it reads a file of an artifact or of a piece of work."""
        return self.method == "GET" and "list-type" not in self.query and self.key.rpartition("/")[2].endswith(".bin")


@contextlib.contextmanager
def around_requests(before=None, after=None) -> Iterator[list[Request]]:
    """All requests of this process in the order that they were begun; the functions get each one's number, from 1."""
    original, lock, seen = URLLib3Session.send, threading.Lock(), []

    def send(self, request):
        address = urlsplit(request.url)
        body = request.body
        sent = 0 if body is None else len(body) if isinstance(body, bytes | bytearray) else len(body.getbuffer())
        with lock:
            seen.append(Request(request.method, unquote(address.path), address.query, sent))
            number = len(seen)
        if before:
            before(number)
        answer = original(self, request)
        if after:
            after(number)
        return answer

    URLLib3Session.send = send
    try:
        yield seen
    finally:
        URLLib3Session.send = original


def forked(work, *, number=0, when="before", signal_number=signal.SIGKILL, answer=None):
    """A process that does the work and sends itself a signal at its n-th request; gives its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:

        def act(count):
            if count == number:
                os.kill(os.getpid(), signal_number)

        with around_requests(**{when: act}):
            work()
        code = 0
    except NearerError as error:
        if answer:
            Path(answer).write_text(f"{type(error).__name__}: {error}")
        code = 100 + error.code
    except BaseException as error:  # noqa: BLE001 - the child must not come back into pytest
        sys.stderr.write(repr(error))
    finally:
        os._exit(code)


def was_killed(process):
    """Whether the n-th request came at all before the work was done."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def self_signed(folder):
    """A certificate for 127.0.0.1 and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    return folder / "cert.pem", folder / "key.pem"


def quick(monkeypatch):
    """Waiting between attempts proves nothing."""
    from botocore.retries import adaptive, standard

    from nearer.store.s3 import wire

    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.002)
    monkeypatch.setattr(adaptive.ClientRateLimiter, "on_sending_request", lambda *_args, **_kw: None)
    monkeypatch.setattr(wire, "pause", lambda _number: None)
    if (transfer := sys.modules.get("nearer.store.s3.transfer")) and hasattr(transfer, "pause"):
        monkeypatch.setattr(transfer, "pause", lambda _number: None)
