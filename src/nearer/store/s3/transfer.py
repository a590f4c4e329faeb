"""Files up and down, in parts, many at once, taken up again where an earlier attempt ended."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import botocore.exceptions as boto

from nearer.errors import OutOfReach
from nearer.store.s3.failures import UNREACHABLE, code_of, in_words, is_missing, is_refused_condition
from nearer.store.s3.tags import PartTags, combined_tag
from nearer.store.s3.wire import Wire, pause, spoilt, tag_of
from nearer.store.space import AREA, Changed, Remains

T = TypeVar("T")
_MOST_PARTS: Final = 10_000  # S3's own limit
_MEBIBYTE: Final = 1 << 20
_COPY_WHOLE_BYTES: Final = 256 * _MEBIBYTE  # larger objects are copied in parts at once; S3 must from 5 GiB on
_COPY_PART_BYTES: Final = 128 * _MEBIBYTE  # a guess: a second or two of work for the store
_PIECE_BYTES: Final = 256 << 10  # stays in the processor's cache between reading and hashing or writing
_TRIES: Final = 3


class Transfer:
    """Moves bytes of whole objects.

    Args:
        wire: the requests.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._parts = ThreadPoolExecutor(wire.buckets.default.requests_at_once, thread_name_prefix="nearer-s3")

    def part_bytes(self, bucket: str, size: int) -> int:
        """Bytes a part of a file of this size: the same in every attempt, so that parts are recognised."""
        least = -(-size // _MOST_PARTS)
        return max(self.wire.options(bucket).part_bytes, -(-least // _MEBIBYTE) * _MEBIBYTE)

    def upload(self, source: Path, bucket: str, key: str, remains: Sequence[Remains] = ()) -> None:
        """Write a local file's bytes to a key.

        Args:
            source: the file.
            bucket: of the key.
            key: where it goes.
            remains: what earlier attempts left of a file of this name; used if its bytes are these.
        """
        size = source.stat().st_size
        part = self.part_bytes(bucket, size)
        with source.open("rb") as stream:
            handle = stream.fileno()
            if self._take_over(handle, bucket, key, remains, size=size, part=part):
                return
            with in_words("PutObject", bucket, key):
                if size <= part:
                    with self.wire.bodies:
                        self.wire.send(
                            "PutObject", bucket, key, os.pread(handle, size, 0), **self.wire.written_as(bucket)
                        )
                    return
            for _ in range(_TRIES):
                try:
                    self._finish_upload(handle, bucket, key, self._begin(bucket, key), {}, size=size, part=part)
                except Ended:
                    # Who took it up has finished it for us; or somebody aborted it.
                    if self.head_tag(bucket, key) == PartTags(handle, size=size, part=part).whole():
                        return
                else:
                    return
            raise OutOfReach(
                "somebody else keeps ending the upload",
                where=f"s3://{bucket}/{key}",
                rule=f"{AREA}/ is the store's own",
                way_out="look for what aborts multipart uploads (a lifecycle rule?); then run the same command again",
            )

    def download(self, bucket: str, key: str, target: Path, *, size: int, tag: str) -> str:
        """Read an object into a new file, as it was when it had this ETag; gives the sha256 of the bytes.

        The file is not synced to the disk: that is for those who will not compare its sha256 again.

        Raises:
            Changed: it is not there any more, or was written anew.
            OutOfReach: the wire is bad.
        """
        digest = hashlib.sha256()
        part = self.part_bytes(bucket, size)
        with target.open("xb+") as stream, in_words("GetObject", bucket, key):
            handle = stream.fileno()
            if size <= part:
                self._read_range(handle, Version(bucket, key, tag), 0, size)
                digest.update(os.pread(handle, size, 0))
            else:
                os.truncate(handle, size)
                version = Version(bucket, key, tag)
                work = [
                    self._parts.submit(self._read_range, handle, version, start, min(part, size - start))
                    for start in range(0, size, part)
                ]
                with _all_or_none(work):
                    for number, future in enumerate(work):
                        future.result()
                        for piece in _pieces(handle, number * part, min((number + 1) * part, size)):
                            digest.update(piece)
        return digest.hexdigest()

    def copy(self, source: tuple[str, str], bucket: str, key: str, *, size: int, tag: str = "") -> None:
        """Copy an object within the store.

        Args:
            source: bucket and key.
            bucket: of the copy.
            key: of the copy.
            size: of the object; 0: not known, and small.
            tag: if given, the ETag that the source must still have.

        Raises:
            FileNotFoundError: the source is gone, or has another ETag.
        """
        condition = {"CopySourceIfMatch": f'"{tag}"'} if tag else {}
        origin = {"CopySource": {"Bucket": source[0], "Key": source[1]}, **condition}
        with in_words("CopyObject", bucket, key):
            try:
                if size <= _COPY_WHOLE_BYTES:
                    self.wire.again(
                        lambda: self.wire.call("CopyObject", bucket, key, **origin, **self.wire.written_as(bucket)),
                        bucket=bucket,
                    )
                else:
                    self._copy_in_parts(origin, bucket, key, size=size)
            except boto.ClientError as error:
                if is_missing(error) or is_refused_condition(error) or code_of(error) == "NoSuchUpload":
                    raise FileNotFoundError(2, "No such key", f"s3://{source[0]}/{source[1]}") from None
                raise

    def _copy_in_parts(self, origin: dict[str, Any], bucket: str, key: str, *, size: int) -> None:
        upload_id = self._begin(bucket, key)
        count = -(-size // _COPY_PART_BYTES)

        def one(number: int) -> dict[str, Any]:
            start = (number - 1) * _COPY_PART_BYTES
            stop = min(start + _COPY_PART_BYTES, size) - 1
            answer = self.wire.again(
                lambda: self.wire.call(
                    "UploadPartCopy",
                    bucket,
                    key,
                    UploadId=upload_id,
                    PartNumber=number,
                    CopySourceRange=f"bytes={start}-{stop}",
                    **origin,
                ),
                bucket=bucket,
            )
            return {"PartNumber": number, "ETag": tag_of(answer["CopyPartResult"] if answer else {})}

        try:
            parts = for_each(self._parts, one, range(1, count + 1))
            self._complete(bucket, key, upload_id, parts, size=size)
        except BaseException:
            # What a copy has begun is no use to anybody: the next one begins anew.
            self._abort(bucket, key, upload_id)
            raise

    def _begin(self, bucket: str, key: str) -> str:
        answer = self.wire.told("CreateMultipartUpload", bucket, key, **self.wire.written_as(bucket))
        return str(answer["UploadId"])

    def _finish_upload(
        self, handle: int, bucket: str, key: str, upload_id: str, there: dict[int, str], *, size: int, part: int
    ) -> str:
        """Send the parts that are not there yet, then make the object of them; gives its ETag."""

        def one(number: int) -> dict[str, Any]:
            if number in there:
                return {"PartNumber": number, "ETag": f'"{there[number]}"'}
            with self.wire.bodies, _while_alive("UploadPart", bucket, key):
                body = os.pread(handle, part, (number - 1) * part)
                tag = self.wire.send("UploadPart", bucket, key, body, UploadId=upload_id, PartNumber=number)
            return {"PartNumber": number, "ETag": f'"{tag}"'}

        parts = for_each(self._parts, one, range(1, -(-size // part) + 1))
        with _while_alive("CompleteMultipartUpload", bucket, key):
            return self._complete(bucket, key, upload_id, parts, size=size)

    def _complete(self, bucket: str, key: str, upload_id: str, parts: list[dict[str, Any]], *, size: int) -> str:
        """Make the object. A lost answer, and somebody who finished the same upload, look alike: the ETag tells."""
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

    def _size_there(self, bucket: str, key: str) -> int:
        with in_words("HeadObject", bucket, key):
            return int(self.wire.call("HeadObject", bucket, key)["ContentLength"])

    def head_tag(self, bucket: str, key: str) -> str | None:
        """The ETag of an object; None: there is none."""
        try:
            return tag_of(self.wire.call("HeadObject", bucket, key))
        except boto.ClientError as error:
            if is_missing(error):
                return None
            raise

    def _abort(self, bucket: str, key: str, upload_id: str) -> None:
        try:
            self.wire.call("AbortMultipartUpload", bucket, key, UploadId=upload_id)
        except boto.ClientError as error:
            if code_of(error) != "NoSuchUpload" and not is_missing(error):
                with in_words("AbortMultipartUpload", bucket, key):
                    raise

    def _take_over(
        self, handle: int, bucket: str, key: str, remains: Sequence[Remains], *, size: int, part: int
    ) -> bool:
        """Use what an earlier attempt left, if its bytes are ours: copied within the store, or finished and copied.

        It may belong to a process that still lives. Nothing of it is changed but by adding the very bytes that its
        owner would add, and the copy is pinned to an ETag, so neither can spoil the other's object.
        """
        if not remains:
            return False
        ours = PartTags(handle, size=size, part=part)
        for left in remains:
            if left.upload_id or left.size != size or left.tag != ours.whole():
                continue
            if self._copied(bucket, left.key, key, size=size, tag=left.tag):
                return True
        for left in remains:
            if not left.upload_id or size <= part:
                continue
            there = self._parts_there(bucket, left)
            if there and all(ours.has(number, tag) for number, tag in there.items()):
                try:
                    tag = self._finish_upload(handle, bucket, left.key, left.upload_id, there, size=size, part=part)
                except Ended:
                    continue
                if left.key == key or self._copied(bucket, left.key, key, size=size, tag=tag):
                    return True
        return False

    def _copied(self, bucket: str, source: str, key: str, *, size: int, tag: str) -> bool:
        try:
            self.copy((bucket, source), bucket, key, size=size, tag=tag)
        except FileNotFoundError:
            return False
        return True

    def _parts_there(self, bucket: str, left: Remains) -> dict[int, str]:
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

    def _read_range(self, handle: int, version: Version, start: int, length: int) -> None:
        """Read some bytes to their place; a wire that breaks is taken up at the byte where it broke."""
        done, attempts = 0, self.wire.options(version.bucket).attempts
        for number in range(1, attempts + 1):
            with self.wire.bodies:
                came, error = self._read(handle, version, start + done, length - done)
            done += came
            if done == length:
                return
            if number < attempts:
                pause(number)
        raise error or boto.ResponseStreamingError(error=f"{done} of {length} bytes came")

    def _read(self, handle: int, version: Version, start: int, length: int) -> tuple[int, Exception | None]:
        """One request: how many bytes came, and what ended it early."""
        condition = {"IfMatch": f'"{version.tag}"'} if version.tag else {}
        if length:  # an empty object has no range
            condition["Range"] = f"bytes={start}-{start + length - 1}"
        try:
            answer = self.wire.call("GetObject", version.bucket, version.key, **condition)
        except boto.ClientError as error:
            if is_missing(error) or is_refused_condition(error) or code_of(error) == "InvalidRange":
                raise Changed(version.address) from None
            raise
        if answer["ContentLength"] != length:
            raise Changed(version.address)
        done = 0
        with answer["Body"] as body:
            try:
                while done < length and (piece := body.read(min(_PIECE_BYTES, length - done))):
                    os.pwrite(handle, piece, start + done)
                    done += len(piece)
            except UNREACHABLE as error:
                return done, error
        return done, None


class Ended(Exception):
    """Somebody else completed or aborted the multipart upload."""


@contextmanager
def _while_alive(action: str, bucket: str, key: str) -> Iterator[None]:
    """Failures in words, except that the upload is not there any more."""
    with in_words(action, bucket, key):
        try:
            yield
        except boto.ClientError as error:
            if code_of(error) == "NoSuchUpload":
                raise Ended from None
            raise


class Version(NamedTuple):
    """An object as it was when it had an ETag; "": as it is."""

    bucket: str
    key: str
    tag: str

    @property
    def address(self) -> str:
        """For people."""
        return f"s3://{self.bucket}/{self.key}"


def for_each(pool: ThreadPoolExecutor, work: Callable[[int], T], items: Iterable[int]) -> list[T]:
    """The work's results in order; after the first error nothing more is begun, and it is raised."""
    futures = [pool.submit(work, item) for item in items]
    with _all_or_none(futures):
        wait(futures, return_when=FIRST_EXCEPTION)
        return [future.result() for future in futures]


@contextmanager
def _all_or_none(futures: Sequence[Any]) -> Iterator[None]:
    """After an error, cancel what has not begun and wait for the rest: it writes to the caller's file."""
    try:
        yield
    except BaseException:
        for future in futures:
            future.cancel()
        wait(futures)
        raise


def _pieces(handle: int, start: int, stop: int) -> Iterator[bytes]:
    for place in range(start, stop, _PIECE_BYTES):
        yield os.pread(handle, min(_PIECE_BYTES, stop - place), place)
