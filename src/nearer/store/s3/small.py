"""Files of one part over AWS's client in C, at a fraction of the processor time that boto3 takes for a request.

It is a short cut and nothing else: it tries a request once, and whatever it cannot do is done, tried again and put in
words by boto3. A wire on which it keeps failing is left to boto3 for good.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from botocore.httpsession import get_cert_path

from nearer.store.s3.client import Access, md5
from nearer.store.s3.options import S3Options

try:
    from awscrt import auth, exceptions, http, io
    from awscrt import s3 as crt
except ImportError:  # an extra
    crt = None

_MOST_FAILURES: Final = 3  # one after the other: it is not for this wire
_MOST_THREADS: Final = 4  # a guess: one moves some GB/s without TLS
_PROBE: Final = "k"
_AWS_GLOBAL: Final = {None, "", "aws-global"}


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

    def get(self, bucket: str, key: str, target: Path, *, tag: str, size: int) -> bool:
        """Read an object into a new file; False: it could not, and nothing is there.

        Args:
            bucket: of the key.
            key: of the object.
            target: where nothing is.
            tag: the ETag that it must have; "": any.
            size: bytes that it must have.
        """
        headers = {"if-match": f'"{tag}"'} if tag else {}
        came = self._sent("GetObject", bucket, key, headers, recv_filepath=str(target)) is not None
        with suppress(FileNotFoundError):
            if came and target.stat().st_size == size:
                return True
            target.unlink()
        return False

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
        answer = self._sent("PutObject", bucket, key, headers, send_filepath=str(source))
        if answer is None:
            return False
        if answer.get("etag", "").strip('"') != hexadecimal:
            self._failures += 1  # a store whose ETags are no MD5s would get every file twice
            return False
        self._failures = 0
        return True

    def _sent(
        self, action: str, bucket: str, key: str, headers: Mapping[str, str], **files: str
    ) -> dict[str, str] | None:
        """The headers of the answer; None: it was not done."""
        if self._failures >= _MOST_FAILURES or self._process != os.getpid():  # its threads are not in a forked process
            return None
        with self._lock:
            client = self._client = self._client or self._make()
            if client is None:
                self._failures = _MOST_FAILURES
                return None
            if bucket not in self._bases:
                self._bases[bucket] = self._base(bucket)
            host, prefix = self._bases[bucket]
        path = f"{prefix}/{quote(key, safe='/~')}"
        named = http.HttpHeaders([("host", host), *headers.items()])
        method = {"GetObject": "GET", "PutObject": "PUT"}[action]
        answer: dict[str, str] = {}

        def note(*, headers: list[tuple[str, str]], **_: Any) -> None:
            answer.update((name.lower(), value) for name, value in headers)

        try:
            running = client.make_request(
                type=crt.S3RequestType.DEFAULT,
                operation_name=action,
                request=http.HttpRequest(method, path, named),
                on_headers=note,
                **files,
            )
            try:
                running.finished_future.result(self.options.read_timeout_seconds)
            except TimeoutError:
                running.cancel()
                with suppress(exceptions.AwsCrtError):
                    running.finished_future.result()
                self._failures = _MOST_FAILURES
                return None
        except exceptions.AwsCrtError as error:
            refused = isinstance(error, crt.S3ResponseError) and 400 <= error.status_code < 500
            self._failures += not refused
            return None
        if action == "GetObject":
            self._failures = 0
        return answer

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
        provider = auth.AwsCredentialsProvider.new_delegate(self._credentials)
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

    def _credentials(self) -> Any:
        frozen = self._access.session.get_credentials().get_frozen_credentials()
        return auth.AwsCredentials(frozen.access_key, frozen.secret_key, frozen.token)
