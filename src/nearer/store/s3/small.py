"""Small files over AWS's client in C, at a fraction of the processor time that boto3 takes for a request.

It is a short cut and nothing else: it tries a request once, and whatever it cannot do is done, tried again and put in
words by boto3. A wire on which it keeps failing is left to boto3 for good.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.httpsession import get_cert_path

from nearer.store.s3.client import Access, md5
from nearer.store.s3.options import S3Options

try:
    from awscrt import auth, exceptions, http, io
    from awscrt import s3 as crt
except ImportError:  # an extra
    crt = None

MOST_BYTES: Final = 1 << 20  # of a larger file, what a request costs is little; and on a slow wire these come in time
_MOST_FAILURES: Final = 3  # one after the other: it is not for this wire
_MOST_THREADS: Final = 4  # a guess: one moves some GB/s without TLS
_AHEAD: Final = 4  # so many times the requests at once are ready to go
_PROBE: Final = "k"
_AWS_GLOBAL: Final = {None, "", "aws-global"}


class Wanted(NamedTuple):
    """An object that is to become a file.

    `tag` is the ETag that it must have ("": any), `size` its bytes, `target` a path where nothing is.
    """

    key: str
    tag: str
    size: int
    target: Path


class SmallFiles:
    """Whole objects up and down, one request each. Safe to share between threads.

    Args:
        options: how the bucket is reached.
        access: boto3's, which knows addresses, region and credentials.
    """

    def __init__(self, options: S3Options, access: Access) -> None:
        self.options = options
        self._access = access
        self._process = os.getpid()
        self._failures = 0
        self._lock = threading.Lock()
        self._client: Any = None
        self._bases: dict[str, tuple[str, str]] = {}

    @staticmethod
    def serve(options: S3Options) -> bool:
        """Whether these options are met without boto3."""
        return (
            crt is not None
            and options.small_files == "auto"
            and options.checksums == "when_required"
            # ETags are no MD5s there: only boto3's way knows what else to believe.
            and options.encryption != "aws:kms"
            and not options.kms_key_id
        )

    def get(self, bucket: str, wanted: Sequence[Wanted]) -> Iterator[Wanted]:
        """Read objects into new files, many at once. Gives those that came, as they come; of others nothing is there.

        All is driven by one thread: a thread for each request costs more than the request.
        """
        done: SimpleQueue[int] = SimpleQueue()
        running: dict[int, Any] = {}
        begun = 0
        try:
            while True:
                while begun < len(wanted) and len(running) < _AHEAD * self.options.requests_at_once:
                    key, tag, _, target = wanted[begun]
                    headers = {"if-match": f'"{tag}"'} if tag else {}
                    request = self._begin("GetObject", bucket, key, headers, recv_filepath=str(target))
                    if request is None:
                        begun = len(wanted)
                        break
                    running[begun] = request
                    request.finished_future.add_done_callback(lambda _, number=begun: done.put(number))
                    begun += 1
                if not running:
                    return
                try:
                    number = done.get(timeout=self.options.read_timeout_seconds)
                except Empty:
                    self._failures = _MOST_FAILURES
                    return
                each = wanted[number]
                if self._ended(running.pop(number)) and each.target.stat().st_size == each.size:
                    self._failures = 0
                    yield each
                else:
                    each.target.unlink(missing_ok=True)
        finally:
            # It may take long until they end; what they write until then goes to a file without a name.
            for number, request in running.items():
                request.cancel()
                wanted[number].target.unlink(missing_ok=True)

    def put(self, bucket: str, key: str, source: Path, body: bytes) -> bool:
        """Write a file; True: the store says that it has these very bytes.

        Args:
            bucket: of the key.
            key: of the object.
            source: the file.
            body: its bytes, at least one.
        """
        hexadecimal, base64 = md5(body)
        headers = {"content-length": str(len(body)), "content-md5": base64}
        if self.options.encryption:
            headers["x-amz-server-side-encryption"] = self.options.encryption
        tags: list[str] = []

        def note(*, headers: list[tuple[str, str]], **_: Any) -> None:
            tags.extend(value.strip('"') for name, value in headers if name.lower() == "etag")

        request = self._begin("PutObject", bucket, key, headers, send_filepath=str(source), on_headers=note)
        if request is None:
            return False
        try:
            request.finished_future.result(self.options.read_timeout_seconds)
        except TimeoutError:
            self._failures = _MOST_FAILURES
            request.cancel()
            return False
        except exceptions.AwsCrtError:
            pass  # told below
        if not self._ended(request):
            return False
        if tags != [hexadecimal]:
            self._failures += 1  # a store whose ETags are no MD5s would get every file twice
            return False
        self._failures = 0
        return True

    def _begin(self, action: str, bucket: str, key: str, headers: Mapping[str, str], **more: Any) -> Any:
        """A request under way; None: nothing goes this way any more."""
        if self._failures >= _MOST_FAILURES or self._process != os.getpid():  # its threads are not in a forked process
            return None
        with self._lock:
            self._client = self._client or self._make()
            if self._client is None:
                self._failures = _MOST_FAILURES
                return None
            if bucket not in self._bases:
                self._bases[bucket] = self._base(bucket)
        host, prefix = self._bases[bucket]
        path = f"{prefix}/{quote(key, safe='/~')}"
        method = {"GetObject": "GET", "PutObject": "PUT"}[action]
        request = http.HttpRequest(method, path, http.HttpHeaders([("host", host), *headers.items()]))
        kind = crt.S3RequestType.DEFAULT
        return self._client.make_request(type=kind, operation_name=action, request=request, **more)

    def _ended(self, request: Any) -> bool:
        """Whether a request that has ended was done."""
        error = request.finished_future.exception()
        refused = isinstance(error, crt.S3ResponseError) and 400 <= error.status_code < 500
        self._failures += error is not None and not refused
        return error is None

    def _base(self, bucket: str) -> tuple[str, str]:
        """Host and path of a bucket, by boto3's own rules."""
        url = self._access.client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": _PROBE}, ExpiresIn=60
        )
        parts = urlsplit(url)
        return parts.netloc, parts.path.removesuffix(f"/{_PROBE}")

    def _make(self) -> Any:
        """The client; None: there are no credentials, or a proxy is in between."""
        endpoint = urlsplit(self._access.client.meta.endpoint_url)
        proxied = endpoint.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(
            endpoint.hostname or ""
        )
        if proxied or self._access.session.get_credentials() is None:
            return None
        region = self._access.client.meta.region_name
        region = "us-east-1" if region in _AWS_GLOBAL else region
        threads = io.EventLoopGroup(min(_MOST_THREADS, os.cpu_count() or 1))
        # Not a method of this object: the client would hold it, and it the client, for ever.
        provider = auth.AwsCredentialsProvider.new_delegate(partial(_credentials, self._access.session))
        secure = endpoint.scheme == "https"
        return crt.S3Client(
            bootstrap=io.ClientBootstrap(threads, io.DefaultHostResolver(threads)),
            region=region,
            signing_config=crt.create_default_s3_signing_config(region=region, credential_provider=provider),
            tls_mode=crt.S3RequestTlsMode.ENABLED if secure else crt.S3RequestTlsMode.DISABLED,
            tls_connection_options=self._tls() if secure else None,
            max_active_connections_override=self.options.requests_at_once,
            retry_config=crt.S3RetryConfig(retry_mode=crt.S3RetryMode.NONE),
            connect_timeout_ms=int(self.options.connect_timeout_seconds * 1000),
        )

    def _tls(self) -> Any:
        """Certificates are those that boto3 trusts."""
        chosen = self.options.ca_bundle or self._access.session.get_config_variable("ca_bundle")
        trusted = str(Path(chosen).expanduser()) if chosen else get_cert_path(True)
        options = io.TlsContextOptions()
        options.override_default_trust_store_from_path(None, trusted)
        return io.ClientTlsContext(options).new_connection_options()


def _credentials(session: Any) -> Any:
    frozen = session.get_credentials().get_frozen_credentials()
    return auth.AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)
