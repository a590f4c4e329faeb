"""Files up and down, in parts, many at once, taken up again where an earlier attempt ended."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import botocore.exceptions as boto

from nearer.errors import OutOfReach
from nearer.store.manifest import file_sha256
from nearer.store.s3.failures import UNREACHABLE, code_of, in_words, is_missing, is_refused_condition
from nearer.store.s3.multipart import Ended, Multipart, all_or_none, for_each
from nearer.store.s3.small import MOST_BYTES, Wanted
from nearer.store.s3.tags import PartTags
from nearer.store.s3.wire import Wire, pause, tag_of
from nearer.store.space import AREA, Changed, Remains

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
        self.multipart = Multipart(wire, self._parts)

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
                    self._upload_whole(source, handle, bucket, key, size=size)
                    return
            for _ in range(_TRIES):
                try:
                    self.multipart.finish(
                        handle, bucket, key, self.multipart.begin(bucket, key), {}, size=size, part=part
                    )
                except Ended:
                    # Who took it up has finished it for us; or somebody aborted it.
                    if self.multipart.head_tag(bucket, key) == PartTags(handle, size=size, part=part).whole():
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
                with all_or_none(work):
                    for number, future in enumerate(work):
                        future.result()
                        for piece in _pieces(handle, number * part, min((number + 1) * part, size)):
                            digest.update(piece)
        return digest.hexdigest()

    def download_small(self, bucket: str, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, str]]:
        """Read the small ones among objects into new files, as far as there is a short cut to them.

        Gives each that came and the sha256 of its bytes, as they come. Of the others nothing is there.
        """
        if small := self.wire.small(bucket):
            ready = [each for each in wanted if 0 < each.size <= MOST_BYTES]
            for each in small.get(bucket, ready):
                yield each, file_sha256(each.target)

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
        upload_id = self.multipart.begin(bucket, key)
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
            self.multipart.complete(bucket, key, upload_id, parts, size=size)
        except BaseException:
            # What a copy has begun is no use to anybody: the next one begins anew.
            self.multipart.abort(bucket, key, upload_id)
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
            there = self.multipart.parts_there(bucket, left)
            if there and all(ours.has(number, tag) for number, tag in there.items()):
                try:
                    tag = self.multipart.finish(handle, bucket, left.key, left.upload_id, there, size=size, part=part)
                except Ended:
                    continue
                if left.key == key or self._copied(bucket, left.key, key, size=size, tag=tag):
                    return True
        return False

    def _upload_whole(self, source: Path, handle: int, bucket: str, key: str, *, size: int) -> None:
        with self.wire.bodies:
            body = os.pread(handle, size, 0)
            small = self.wire.small(bucket) if 0 < size <= MOST_BYTES else None
            if not small or not small.put(bucket, key, source, body):
                self.wire.send("PutObject", bucket, key, body, **self.wire.written_as(bucket))

    def _copied(self, bucket: str, source: str, key: str, *, size: int, tag: str) -> bool:
        try:
            self.copy((bucket, source), bucket, key, size=size, tag=tag)
        except FileNotFoundError:
            return False
        return True

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
        done = 0
        with answer["Body"] as body:
            if answer["ContentLength"] != length:
                raise Changed(version.address)
            try:
                while done < length and (piece := body.read(min(_PIECE_BYTES, length - done))):
                    os.pwrite(handle, piece, start + done)
                    done += len(piece)
            except UNREACHABLE as error:
                return done, error
        return done, None


class Version(NamedTuple):
    """An object as it was when it had an ETag; "": as it is."""

    bucket: str
    key: str
    tag: str

    @property
    def address(self) -> str:
        """For people."""
        return f"s3://{self.bucket}/{self.key}"


def _pieces(handle: int, start: int, stop: int) -> Iterator[bytes]:
    for place in range(start, stop, _PIECE_BYTES):
        yield os.pread(handle, min(_PIECE_BYTES, stop - place), place)
