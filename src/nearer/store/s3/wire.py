"""One request after the other, made safe: clients by bucket, a bound on bodies in memory, bad wires tried again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import botocore.exceptions as boto

from nearer.errors import InputError, OutOfReach
from nearer.store.s3.answers import UnreadableAnswer, readable
from nearer.store.s3.client import Access, make_client, md5
from nearer.store.s3.failures import UNREACHABLE, in_words, is_conflict, is_spoilt, status_of
from nearer.store.s3.options import S3Buckets, S3Options
from nearer.store.s3.small import SmallFiles

T = TypeVar("T")
_FIRST_PAUSE_SECONDS: Final = 0.1  # a guess; doubled each time
_LONGEST_PAUSE_SECONDS: Final = 5.0
_WITHOUT_REASON: Final = {400, 403}
_OF_BUCKETS: Final = {"ListObjectsV2", "ListMultipartUploads", "DeleteObjects"}
"""Operations on a bucket; the key that is named for these is a prefix, for error messages only."""


def split(address: str) -> tuple[str, str]:
    """Bucket and key of a full address.

    Raises:
        InputError: it is not in S3.
    """
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket:
        raise InputError(f"{address!r} is not in S3", rule="s3://bucket/key")
    return bucket, key


class Wire:
    """Requests to any bucket. Safe to share between threads.

    Args:
        buckets: how each bucket is reached.
    """

    def __init__(self, buckets: S3Buckets) -> None:
        self.buckets = buckets
        self._accesses: dict[S3Options, Access] = {}
        self._small: dict[S3Options, SmallFiles] = {}
        self._lock = threading.Lock()
        self.bodies = threading.BoundedSemaphore(buckets.default.requests_at_once)

    def options(self, bucket: str) -> S3Options:
        """How the bucket is reached."""
        return self.buckets.of(bucket)

    def client(self, bucket: str) -> Any:
        """The client for a bucket; one for all buckets that are reached alike."""
        return self._access(bucket).client

    def small(self, bucket: str) -> SmallFiles | None:
        """The short cut for small files, where there is one."""
        options = self.options(bucket)
        if not SmallFiles.serve(options):
            return None
        access = self._access(bucket)
        with self._lock:
            if options not in self._small:
                self._small[options] = SmallFiles(options, access)
            return self._small[options]

    def _access(self, bucket: str) -> Access:
        options = self.options(bucket)
        with self._lock:
            if options not in self._accesses:
                self._accesses[options] = make_client(options, bucket=bucket)
            return self._accesses[options]

    def call(self, action: str, bucket: str, key: str = "", **arguments: Any) -> Any:
        """One operation on a bucket or key, by boto3's name (`PutObject`). What a refusal means, the caller knows.

        Raises:
            ClientError: the store's own answer.
            OutOfReach, InputError: there was none.
        """
        method = getattr(self.client(bucket), _snake(action))
        named = {} if action in _OF_BUCKETS else {"Key": key}
        attempts = self.options(bucket).attempts
        for number in range(1, attempts + 1):
            try:
                return readable(action, arguments, lambda: method(Bucket=bucket, **named, **arguments))
            except boto.ClientError:
                raise
            except boto.BotoCoreError as error:
                if isinstance(error, UnreadableAnswer) and number < attempts:
                    pause(number)
                    continue
                with in_words(action, bucket, key):
                    raise
        raise AssertionError

    def head(self, bucket: str, key: str) -> Any:
        """What HeadObject says. A refusal is that of reading a byte: the answer to a HEAD has no room for reasons.

        Raises:
            ClientError: as in `call`.
        """
        try:
            return self.call("HeadObject", bucket, key)
        except boto.ClientError as error:
            if status_of(error) in _WITHOUT_REASON:
                self.call("GetObject", bucket, key, Range="bytes=0-0")["Body"].close()
            raise

    def told(self, action: str, bucket: str, key: str = "", **arguments: Any) -> Any:
        """One operation whose every refusal is an error for the user, in words."""
        with in_words(action, bucket, key):
            return self.call(action, bucket, key, **arguments)

    def written_as(self, bucket: str) -> dict[str, str]:
        """The arguments that every write carries: server-side encryption."""
        options = self.options(bucket)
        arguments = {"ServerSideEncryption": options.encryption} if options.encryption else {}
        return arguments | ({"SSEKMSKeyId": options.kms_key_id} if options.kms_key_id else {})

    def send(self, action: str, bucket: str, key: str, body: bytes, **arguments: Any) -> str:
        """Send a body (`PutObject`, `UploadPart`) and give its ETag; the store says that it has these very bytes.

        Raises:
            ClientError: the store refuses it.
            OutOfReach: it got other bytes, again and again.
        """
        hexadecimal, base64 = md5(body)
        repaired: dict[str, str] = {}

        def once() -> str | None:
            answer = self.call(action, bucket, key, Body=body, ContentMD5=base64, **arguments, **repaired)
            tag = tag_of(answer)
            # Stores check Content-MD5; not all do. Under a KMS key the ETag is no MD5.
            is_md5 = (
                len(tag) == 32
                and not self.options(bucket).kms_key_id
                and "kms" not in str(answer.get("ServerSideEncryption", ""))
            )
            if not is_md5 or tag == hexadecimal:
                return tag
            if arguments.pop("IfNoneMatch", None) or arguments.pop("IfMatch", None) or repaired:
                repaired["IfMatch"] = f'"{tag}"'  # the condition held, and what is there now is ours, spoilt
            return None

        tag = self.again(once, bucket=bucket)
        if tag is None:
            raise spoilt(action, bucket, key)
        return tag

    def again(self, once: Callable[[], T | None], *, bucket: str) -> T | None:
        """Call until something comes back that is not None and no bad wire or conflict is in the way any more.

        Raises:
            ClientError, OutOfReach: the last attempt's.
        """
        attempts = self.options(bucket).attempts
        for number in range(1, attempts + 1):
            try:
                result = once()
                if result is not None or number == attempts:
                    return result
            except UNREACHABLE:
                if number == attempts:
                    raise
            except boto.ClientError as error:
                if number == attempts or not (is_conflict(error) or is_spoilt(error)):
                    raise
            pause(number)
        return None


def spoilt(action: str, bucket: str, key: str) -> OutOfReach:
    """The error for bytes that went wrong on their way to the store."""
    return OutOfReach(
        f"the store received other bytes than were sent ({action})",
        where=f"s3://{bucket}/{key}",
        rule="the ETag of the answer is the MD5 of the bytes",
        way_out="look for a broken proxy or network card; then run the same command again",
    )


def pause(number: int) -> None:
    """Wait before the next attempt: exponentially longer, with full jitter."""
    time.sleep(random.uniform(0, min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS)))


def tag_of(answer: Any) -> str:
    """The ETag of an answer, without its quotes."""
    return str(answer.get("ETag", "")).strip('"')


def _snake(action: str) -> str:
    """`ListObjectsV2` → `list_objects_v2`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action).lstrip("_")
