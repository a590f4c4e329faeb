"""Multipart uploads: begun, filled with parts many at once, completed or aborted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import botocore.exceptions as boto

from nearer.store.s3.failures import code_of, in_words, is_missing
from nearer.store.s3.tags import combined_tag
from nearer.store.s3.wire import Wire, spoilt, tag_of
from nearer.store.space import Remains

T = TypeVar("T")


class Multipart:
    """The uploads of one process.

    Args:
        wire: the requests.
        pool: sends parts.
    """

    def __init__(self, wire: Wire, pool: ThreadPoolExecutor) -> None:
        self.wire = wire
        self.pool = pool

    def begin(self, bucket: str, key: str) -> str:
        """Begin an upload; gives its id."""
        answer = self.wire.told("CreateMultipartUpload", bucket, key, **self.wire.written_as(bucket))
        return str(answer["UploadId"])

    def finish(
        self, handle: int, bucket: str, key: str, upload_id: str, there: dict[int, str], *, size: int, part: int
    ) -> str:
        """Send the parts that are not there yet, then make the object of them; gives its ETag.

        Args:
            handle: of the local file.
            bucket: of the key.
            key: of the object.
            upload_id: of the upload.
            there: ETags of the parts that the store has, by number.
            size: of the file.
            part: bytes a part.

        Raises:
            Ended: somebody else ended the upload.
        """

        def one(number: int) -> dict[str, Any]:
            if number in there:
                return {"PartNumber": number, "ETag": f'"{there[number]}"'}
            with self.wire.bodies, while_alive("UploadPart", bucket, key):
                body = os.pread(handle, part, (number - 1) * part)
                tag = self.wire.send("UploadPart", bucket, key, body, UploadId=upload_id, PartNumber=number)
            return {"PartNumber": number, "ETag": f'"{tag}"'}

        parts = for_each(self.pool, one, range(1, -(-size // part) + 1))
        with while_alive("CompleteMultipartUpload", bucket, key):
            return self.complete(bucket, key, upload_id, parts, size=size)

    def complete(self, bucket: str, key: str, upload_id: str, parts: list[dict[str, Any]], *, size: int) -> str:
        """Make the object of its parts; gives its ETag.

        A lost answer, and somebody who finished the same upload, look alike: the ETag tells.
        """
        expected = combined_tag(part["ETag"].strip('"') for part in parts)
        try:
            answer = self.wire.again(
                lambda: self.wire.call(
                    "CompleteMultipartUpload", bucket, key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                ),
                bucket=bucket,
            )
        except boto.ClientError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            if self.head_tag(bucket, key) != expected:
                raise
            return expected
        if tag_of(answer) != expected and self._size_there(bucket, key) != size:
            # The list of parts has no checksum of its own. Not every store's ETag is made of the parts' MD5s.
            raise spoilt("CompleteMultipartUpload", bucket, key)
        return tag_of(answer)

    def parts_there(self, bucket: str, left: Remains) -> dict[int, str]:
        """The ETags of an upload's parts, by number; none when there is no such upload any more."""
        found: dict[int, str] = {}
        marker = 0
        while True:
            try:
                page = self.wire.call("ListParts", bucket, left.key, UploadId=left.upload_id, PartNumberMarker=marker)
            except boto.ClientError:
                return {}
            found |= {int(part["PartNumber"]): tag_of(part) for part in page.get("Parts", ())}
            if not page.get("IsTruncated"):
                return found
            marker = page["NextPartNumberMarker"]

    def head_tag(self, bucket: str, key: str) -> str | None:
        """The ETag of an object; None: there is none."""
        try:
            return tag_of(self.wire.head(bucket, key))
        except boto.ClientError as error:
            if is_missing(error):
                return None
            raise

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        """End an upload; nothing happens if it ended already."""
        try:
            self.wire.call("AbortMultipartUpload", bucket, key, UploadId=upload_id)
        except boto.ClientError as error:
            if code_of(error) != "NoSuchUpload" and not is_missing(error):
                with in_words("AbortMultipartUpload", bucket, key):
                    raise

    def _size_there(self, bucket: str, key: str) -> int:
        with in_words("HeadObject", bucket, key):
            return int(self.wire.head(bucket, key)["ContentLength"])


class Ended(Exception):
    """Somebody else completed or aborted the multipart upload."""


@contextmanager
def while_alive(action: str, bucket: str, key: str) -> Iterator[None]:
    """Failures in words, except that the upload is not there any more."""
    with in_words(action, bucket, key):
        try:
            yield
        except boto.ClientError as error:
            if code_of(error) == "NoSuchUpload":
                raise Ended from None
            raise


def for_each(pool: ThreadPoolExecutor, work: Callable[[int], T], items: Iterable[int]) -> list[T]:
    """The work's results in order; after the first error nothing more is begun, and it is raised."""
    futures = [pool.submit(work, item) for item in items]
    with all_or_none(futures):
        wait(futures, return_when=FIRST_EXCEPTION)
        return [future.result() for future in futures]


@contextmanager
def all_or_none(futures: Sequence[Any]) -> Iterator[None]:
    """After an error, cancel what has not begun and wait for the rest: it writes to the caller's file."""
    try:
        yield
    except BaseException:
        for future in futures:
            future.cancel()
        wait(futures)
        raise
