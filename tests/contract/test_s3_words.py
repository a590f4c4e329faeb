"""What a store's refusals, read from real answers over a real socket, become for the user."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading

import pytest
from s3_machine import quick, self_signed, space_at

from nearer.errors import InputError, NoPermission, OutOfReach
from nearer.store.s3 import wire

KEY = "s3://lake/models/m/manifest.json"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIACANARYACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "canary/secret+access",
    "AWS_SESSION_TOKEN": "canary-session-token",
}


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request alike."""

    protocol_version = "HTTP/1.1"
    status, code, headers_too = 403, "AccessDenied", ()

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("X-Amz-Security-Token", "")
        said = self.headers.get("Authorization", "")
        # Stores repeat what they were sent: nothing of it may reach a log.
        body = f"<Error><Code>{self.code}</Code><Message>{said} {token}</Message><Token-0>{token}</Token-0></Error>".encode()
        body = body if self.code else b""
        self.send_response(self.status)
        for name, value in self.headers_too:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_args):
        pass


@pytest.fixture
def refusing(monkeypatch):
    """A store that refuses everything; gives its class, to be told how."""
    quick(monkeypatch)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    handler = type("Bound", (Refusing,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    handler.server_itself, handler.address = server, f"http://127.0.0.1:{server.server_address[1]}"
    yield handler
    server.shutdown()
    server.server_close()


ACTIONS = {
    "read": lambda space, file: space.read(KEY),
    "put": lambda space, file: space.put(KEY, b"x"),
    "create": lambda space, file: space.create(KEY, b"x"),
    "list": lambda space, file: space.list("s3://lake/models/m"),
    "delete": lambda space, file: space.delete(KEY),
    "clear": lambda space, file: space.clear("s3://lake/models/m"),
    "head": lambda space, file: space.head(KEY),
    "copy": lambda space, file: space.copy(KEY, "s3://lake/models/n/manifest.json"),
    "upload": lambda space, file: space.upload(file, KEY),
    "remains": lambda space, file: space.remains("s3://lake/models"),
}


def refused(space, tmp_path, action, kind):
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    with pytest.raises(kind) as caught:
        ACTIONS[action](space, file)
    assert type(caught.value) is kind
    text = "".join([str(caught.value), repr(caught.value), repr(caught.value.__cause__)])
    assert not [secret for secret in SECRETS.values() if secret in text]
    assert caught.value.__suppress_context__
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "words", "way_out"),
    [
        (404, "NoSuchBucket", "there is no bucket 'lake'", "create it"),
        (400, "ExpiredToken", "the AWS credentials have expired", "get new ones"),
        (403, "RequestExpired", "the AWS credentials have expired", "get new ones"),
        (403, "InvalidAccessKeyId", "does not accept the credentials (InvalidAccessKeyId)", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "does not accept the credentials (SignatureDoesNotMatch)", "AWS_SECRET_ACCESS"),
        (403, "RequestTimeTooSkewed", "this machine's clock and the store's are too far apart", "NTP"),
        (301, "PermanentRedirect", "the bucket 'lake' is in another region, eu-north-1", "store.s3.region"),
        (400, "AuthorizationHeaderMalformed", "the bucket 'lake' is in another region, eu-north-1", "AWS_REGION"),
        (501, "NotImplemented", "the store does not know PutObject as nearer needs it", "newer version"),
        (400, "EntityTooStrange", "the store refuses PutObject: EntityTooStrange (HTTP 400)", "settings of `store`"),
    ],
)
def test_a_refusal_is_told_in_words(refusing, tmp_path, status, code, words, way_out):
    """What is wrong with bucket, credentials, clock, region or store: exit 2, the thing, and the way out."""
    refusing.status, refusing.code = status, code
    refusing.headers_too = [("x-amz-bucket-region", "eu-north-1")]
    error = refused(space_at(refusing.address), tmp_path, "put", InputError)
    assert words in error.what
    assert way_out in error.way_out
    assert error.where == KEY
    assert error.code == 2


PERMISSIONS = {
    "read": ("s3:GetObject and s3:ListBucket", KEY),
    "put": ("s3:PutObject", KEY),
    "create": ("s3:PutObject", KEY),
    "upload": ("s3:PutObject", KEY),
    "list": ("s3:ListBucket", "s3://lake/models/m/"),
    "delete": ("s3:DeleteObject", KEY),
    "head": ("s3:GetObject and s3:ListBucket", KEY),
    "copy": ("s3:GetObject and s3:PutObject", "s3://lake/models/n/manifest.json"),
    "clear": ("s3:ListBucketMultipartUploads", "s3://lake/models/m"),
    "remains": ("s3:ListBucket", "s3://lake/models/"),
}


@pytest.mark.parametrize("code", ["AccessDenied", ""])
def test_a_missing_permission_names_action_and_key(refusing, tmp_path, code):
    """Which permission, on which key; also when the answer has no body, as that of a HEAD."""
    refusing.code = code
    space = space_at(refusing.address)
    assert set(PERMISSIONS) == set(ACTIONS)
    for action, (permission, where) in PERMISSIONS.items():
        error = refused(space, tmp_path, action, NoPermission)
        assert (error.what, error.where, error.code) == (f"no permission for {permission}", where, 2)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (502, ""), (400, "RequestTimeout"), (400, "BadDigest")],
)
def test_a_store_that_stays_busy_is_out_of_reach(refusing, tmp_path, status, code):
    """After all attempts: exit 69."""
    refusing.status, refusing.code = status, code
    space = space_at(refusing.address, attempts=2)
    for action in ACTIONS:
        error = refused(space, tmp_path, action, OutOfReach)
        assert error.code == 69
        # A HEAD that is refused with 400 is asked again as a GET; its own answer has no code.
        assert str(status if action == "head" and status >= 500 else code or status) in error.what


def test_a_refused_head_says_why(refusing, tmp_path):
    """The answer to a HEAD has no reason in it, so a byte is asked for; a store that gives none then is told as it is."""
    refusing.status, refusing.code = 400, "ExpiredToken"
    assert refused(space_at(refusing.address), tmp_path, "head", InputError).what == "the AWS credentials have expired"
    refusing.code = ""
    error = refused(space_at(refusing.address), tmp_path, "head", InputError)
    assert error.what == "the store refuses HeadObject without a reason (HTTP 400)"
    assert "expired" in error.way_out


def test_a_dead_port_is_out_of_reach(refusing, tmp_path):
    """Nobody listens: exit 69."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        space = space_at(f"http://127.0.0.1:{taken.getsockname()[1]}", attempts=2)
        for action in ACTIONS:
            error = refused(space, tmp_path, action, OutOfReach)
            assert error.code == 69
            assert "the store does not answer (EndpointConnectionError" in error.what


def test_a_proxys_password_is_not_told(refusing, tmp_path, monkeypatch):
    """The error of an unreachable proxy does not repeat its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://user:canary-proxy@127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        error = refused(space_at("http://store.invalid:9000"), tmp_path, "put", OutOfReach)
    assert "canary-proxy" not in f"{error}{error!r}"


def test_without_credentials_the_chain_is_named(refusing, tmp_path, monkeypatch):
    """No key, no profile, no role: exit 2."""
    for name in SECRETS:
        monkeypatch.delenv(name)
    error = refused(space_at(refusing.address), tmp_path, "put", InputError)
    assert error.what == "no AWS credentials were found"


def test_an_untrusted_certificate_is_told(refusing, tmp_path):
    """A store with a certificate of its own: exit 2 and the setting, not "does not answer"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    refusing.server_itself.socket = context.wrap_socket(refusing.server_itself.socket, server_side=True)
    error = refused(space_at(refusing.address.replace("http:", "https:")), tmp_path, "put", InputError)
    assert error.what == "the store's certificate is not trusted"
    assert "store.s3.ca_bundle" in error.way_out


def test_a_conflict_is_tried_again_and_then_out_of_reach(refusing, tmp_path, monkeypatch):
    """409 says that another write of the key is under way."""
    refusing.status, refusing.code = 409, "ConditionalRequestConflict"
    pauses = []
    monkeypatch.setattr(wire, "pause", pauses.append)
    refused(space_at(refusing.address), tmp_path, "create", OutOfReach)
    assert pauses == [1, 2, 3]
