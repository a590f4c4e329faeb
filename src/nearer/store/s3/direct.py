"""The bytes of files by boto3's own signer and connections, without the layers above them.

For each request boto3 resolves the endpoint, serialises, calls a dozen hooks and parses: about a millisecond of Python,
which no other thread can use. It limits what many small files take. Here it is asked once for a bucket where and how it
would send; then only what changes is made anew. What does not succeed at once is not judged here: the caller asks boto3
for the same thing, which tries again at its adaptive rate, follows a bucket to its region, and says what was refused.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import botocore.exceptions as boto
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.httpsession import URLLib3Session
from botocore.response import StreamingBody
from botocore.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from nearer.store.s3.options import S3Options

_READ: Final = "GetObject"
_TAKEN: Final = {
    _READ: {"IfMatch", "Range"},
    "PutObject": {"Body", "ContentMD5", "ServerSideEncryption", "SSEKMSKeyId"},
    "UploadPart": {"Body", "ContentMD5", "PartNumber", "UploadId"},
}
"""Arguments of what is sent directly; a request with any other, as a condition of a write, is boto3's."""
_ENCRYPTION: Final = "x-amz-server-side-encryption"
_HEADERS: Final = {
    "ContentMD5": "Content-MD5",
    "IfMatch": "If-Match",
    "Range": "Range",
    "ServerSideEncryption": _ENCRYPTION,
    "SSEKMSKeyId": f"{_ENCRYPTION}-aws-kms-key-id",
}
_QUERY: Final = {"PartNumber": "partNumber", "UploadId": "uploadId"}
_REST_SECONDS: Final = 10.0  # a guess: as long the rate is boto3's affair after the store said that it is busy
_ASKED: Final = "GetBucketTagging"  # neither nearer nor boto3 itself makes such a request


class _Route(NamedTuple):
    """Where the requests for a bucket go, and what signs them."""

    base: str
    headers: Mapping[str, str]
    context: Mapping[str, Any]
    signer: Any


class _Told(Exception):
    """What boto3 was about to sign."""

    def __init__(self, request: Any, signer: Any) -> None:
        super().__init__()
        self.route = _Route(
            request.url.partition("?")[0].rstrip("/"), dict(request.headers.items()), request.context, signer
        )


class Direct:
    """Requests of one client for the bytes of objects. Safe to share between threads.

    Args:
        client: of boto3.
        options: that it was made with.
        verify: file of certificates to trust; None: the default ones.
    """

    def __init__(self, client: Any, options: S3Options, *, verify: str | None) -> None:
        self._client = client
        self._writes = options.checksums == "when_required"  # a CRC32 is boto3's affair
        self._routes: dict[str, _Route] = {}
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._session = URLLib3Session(
            verify=verify or True,
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=(options.connect_timeout_seconds, options.read_timeout_seconds),
            max_pool_connections=options.requests_at_once + 2,
            socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        client.meta.events.register(f"before-sign.s3.{_ASKED}", _tell)

    def call(self, action: str, bucket: str, key: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer as boto3 would give it, with the fields that nearer reads; None: boto3 is to be asked.

        Args:
            action: boto3's name.
            bucket: of the key.
            key: of the object.
            arguments: boto3's.
        """
        if action not in _TAKEN or not _TAKEN[action].issuperset(arguments) or time.monotonic() < self._rests_until:
            return None
        if not ("Range" in arguments if action == _READ else self._writes):
            return None
        try:
            answer = self._send(action, self._route(bucket), key, arguments)
            if answer.status_code in {200, 206}:
                return _read(answer, is_body=action == _READ)
            if answer.status_code >= 500 or answer.status_code == 429:
                self._rests_until = time.monotonic() + _REST_SECONDS
            answer.raw.close()
        except (boto.BotoCoreError, boto.ClientError, HTTPError, ValueError):
            pass  # boto3 meets it as well, and says what it means
        return None

    def _send(self, action: str, route: _Route, key: str, arguments: Mapping[str, Any]) -> AWSResponse:
        request = AWSRequest(
            method="GET" if action == _READ else "PUT",
            url=f"{route.base}/{quote(key, safe='/~')}",
            headers={**route.headers, **{_HEADERS[name]: arguments[name] for name in arguments if name in _HEADERS}},
            data=arguments.get("Body"),
            params={_QUERY[name]: str(arguments[name]) for name in arguments if name in _QUERY},
            stream_output=action == _READ,
        )
        request.context = dict(route.context)
        route.signer.sign(action, request)
        return self._session.send(request.prepare())

    def _route(self, bucket: str) -> _Route:
        with self._lock:
            if bucket not in self._routes:
                try:
                    self._client.get_bucket_tagging(Bucket=bucket)  # ends in `_tell`: nothing is sent
                except _Told as told:
                    self._routes[bucket] = told.route
            return self._routes[bucket]


def _tell(request: Any, request_signer: Any, **_: Any) -> None:
    raise _Told(request, request_signer)


def _read(answer: AWSResponse, *, is_body: bool) -> dict[str, Any]:
    headers = answer.headers
    found: dict[str, Any] = {
        "ETag": headers.get("ETag", ""),
        "ServerSideEncryption": headers.get(_ENCRYPTION, ""),
    }
    if is_body:
        size = int(headers["Content-Length"])
        found |= {"ContentLength": size, "Body": StreamingBody(answer.raw, size)}
    return found
