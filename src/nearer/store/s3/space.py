"""The primitives of publishing on S3.

What they ask of a store beyond the basics: `If-None-Match: *` on PutObject (a claim), and, to close the one window that
`nearer.store.publish` names, `If-Match` on DeleteObject; a store that ignores the latter leaves the window open, and
readers find it by sha256. Small files carry their sha256 as metadata, so that wrong bytes of a manifest are found.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import botocore.exceptions as boto

from nearer.errors import ArtifactCorrupt, InputError
from nearer.store.s3.failures import code_of, in_words, is_conflict, is_missing, is_refused_condition, status_of, told
from nearer.store.s3.options import S3Buckets
from nearer.store.s3.small import Wanted
from nearer.store.s3.transfer import Transfer
from nearer.store.s3.wire import Wire, split, tag_of
from nearer.store.space import Remains, Stat

_SHA256: Final = "nearer-sha256"
_DELETED_AT_ONCE: Final = 1000  # S3's own limit


class S3Space:
    """The primitives over boto3.

    Args:
        buckets: how each bucket is reached.
    """

    grace_seconds = 24 * 3600.0  # a guess: no upload of a model stands still for a day and goes on
    resumes = True

    def __init__(self, buckets: S3Buckets) -> None:
        self.workers = buckets.default.requests_at_once
        self.wire = Wire(buckets)
        self.transfer = Transfer(self.wire)

    def read(self, key: str) -> bytes | None:
        """The bytes of a small file, compared with the sha256 that it was written with."""
        bucket, name = split(key)

        def once() -> bytes | None:
            answer = self.wire.call("GetObject", bucket, name)
            with answer["Body"] as body:
                data: bytes = body.read()
            wanted = answer.get("Metadata", {}).get(_SHA256)
            return data if wanted in (None, hashlib.sha256(data).hexdigest()) else None

        with in_words("GetObject", bucket, name):
            try:
                data = self.wire.again(once, bucket=bucket)
            except boto.ClientError as error:
                if is_missing(error):
                    return None
                raise
        if data is None:
            raise ArtifactCorrupt(
                f"the bytes of {name.rpartition('/')[2]} are not those that were written",
                where=key,
                rule=f"the sha256 in its metadata ({_SHA256})",
                way_out="look for a broken proxy; if the object itself is damaged, restore or remove it",
            )
        return data

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not exist."""
        try:
            self._put(key, data, IfNoneMatch="*")
        except boto.ClientError as error:
            if is_refused_condition(error):
                return False
            raise told(error, action="PutObject", bucket=split(key)[0], key=split(key)[1]) from None
        return True

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a small file."""
        bucket, name = split(key)
        with in_words("PutObject", bucket, name):
            self._put(key, data)

    def swap(self, key: str, data: bytes, *, tag: str) -> str | None:
        """Replace a small file that must still have this tag; gives the new tag, or None: it has another one."""
        bucket, name = split(key)
        with in_words("PutObject", bucket, name):
            try:
                return self._put(key, data, IfMatch=f'"{tag}"')
            except boto.ClientError as error:
                if is_refused_condition(error) or is_missing(error):
                    return None
                raise

    def head(self, key: str) -> tuple[str, float] | None:
        """The tag of a file and its age in seconds by the store's own clock; None: there is none."""
        bucket, name = split(key)
        with in_words("HeadObject", bucket, name):
            try:
                answer = self.wire.head(bucket, name)
            except boto.ClientError as error:
                if is_missing(error):
                    return None
                raise
        return tag_of(answer), _age_seconds(answer)

    def _put(self, key: str, data: bytes, **condition: str) -> str:
        bucket, name = split(key)
        metadata = {_SHA256: hashlib.sha256(data).hexdigest()}
        return self.wire.send(
            "PutObject", bucket, name, data, Metadata=metadata, **condition, **self.wire.written_as(bucket)
        )

    def upload(self, source: Path, key: str, remains: Sequence[Remains] = ()) -> None:
        """Write a local file's bytes."""
        bucket, name = split(key)
        self.transfer.upload(source, bucket, name, remains)

    def download(self, key: str, target: Path, stat: Stat) -> str:
        """Read a file that was listed into a new local file; gives the sha256 of its bytes.

        Raises:
            Changed: it is gone, or was written anew since.
        """
        bucket, name = split(key)
        return self.transfer.download(bucket, name, target, size=stat.size, tag=stat.tag)

    def download_small(self, wanted: Mapping[str, tuple[Path, Stat]]) -> Iterator[tuple[str, str]]:
        """Read files that were listed, by key, into new local files: the small ones, as far as that is fast.

        Gives the key of each that came and the sha256 of its bytes. Of the others nothing is there.
        """
        buckets: defaultdict[str, list[Wanted]] = defaultdict(list)
        for key, (target, stat) in wanted.items():
            bucket, name = split(key)
            buckets[bucket].append(Wanted(name, stat.tag, stat.size, target))
        for bucket, those in buckets.items():
            for each, sha256 in self.transfer.download_small(bucket, those):
                yield f"s3://{bucket}/{each.key}", sha256

    def remains(self, prefix: str) -> Mapping[str, Sequence[Remains]]:
        """Whole objects and multipart uploads of earlier attempts."""
        name = split(prefix)[1]
        found: defaultdict[str, list[Remains]] = defaultdict(list)
        for rest, stat in self.list(prefix).items():
            found[rest.partition("/")[2]].append(Remains(key=f"{name}/{rest}", size=stat.size, tag=stat.tag))
        for upload in self._uploads(prefix):
            rest = upload["Key"].removeprefix(f"{name}/")
            found[rest.partition("/")[2]].append(Remains(key=upload["Key"], upload_id=upload["UploadId"]))
        return found

    def copy(self, source: str, key: str, size: int = 0) -> None:
        """Copy within the store, between buckets that are reached alike."""
        bucket, name = split(key)
        self.transfer.copy(split(source), bucket, name, size=size)

    def list(self, prefix: str) -> Mapping[str, Stat]:
        """All objects below the prefix. The empty ones that consoles show as folders are no files."""
        bucket, name = split(prefix)
        top = f"{name}/" if name else ""
        found = {key.removeprefix(top): stat for key, stat in self._listed(bucket, top)}
        if not found and name:
            # In the order of keys the prefix itself comes first, if it is one.
            found = {key.removeprefix(name): stat for key, stat in self._listed(bucket, name, most=1) if key == name}
        return found

    def _listed(self, bucket: str, prefix: str, *, most: int = 0) -> Iterator[tuple[str, Stat]]:
        token: dict[str, Any] = {"MaxKeys": most} if most else {}
        while True:
            page = self.wire.told("ListObjectsV2", bucket, prefix, Prefix=prefix, **token)
            for item in page.get("Contents", ()):
                if not (item["Key"].endswith("/") and item["Size"] == 0):
                    yield item["Key"], Stat(item["Size"], item["LastModified"].timestamp(), tag_of(item))
            if most or not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str, tag: str = "") -> None:
        """Remove an object, if it still has the tag."""
        bucket, name = split(key)
        condition = {"IfMatch": f'"{tag}"'} if tag else {}
        with in_words("DeleteObject", bucket, name):
            try:
                self.wire.call("DeleteObject", bucket, name, **condition)
            except boto.ClientError as error:
                if condition and status_of(error) == 501:
                    self.wire.call("DeleteObject", bucket, name)
                elif not (is_missing(error) or is_refused_condition(error) or (condition and is_conflict(error))):
                    raise

    def clear(self, prefix: str) -> None:
        """Remove all objects below the prefix, and what was begun there."""
        bucket, name = split(prefix)
        if not name:
            raise InputError(f"{prefix} is a whole bucket", rule="nearer never clears one")
        self.abandon(prefix)
        keys = [key for key, _ in self._listed(bucket, f"{name}/")]
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            wanted = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            answer = self.wire.told("DeleteObjects", bucket, name, Delete={"Objects": wanted, "Quiet": True})
            for problem in answer.get("Errors", ()):
                error = boto.ClientError({"Error": problem}, "DeleteObjects")
                raise told(error, action="DeleteObjects", bucket=bucket, key=problem.get("Key", name))

    def unfinished(self, prefix: str) -> Mapping[str, Stat]:
        """Multipart uploads below the prefix, with the bytes that they hold and their last part's time."""
        bucket, name = split(prefix)
        found = {}
        for upload in self._uploads(prefix):
            with in_words("ListParts", bucket, upload["Key"]):
                try:
                    page = self.wire.call("ListParts", bucket, upload["Key"], UploadId=upload["UploadId"])
                except boto.ClientError as error:
                    if code_of(error) == "NoSuchUpload" or is_missing(error):
                        continue
                    raise
            parts = page.get("Parts", ())
            changed = max([upload["Initiated"], *(part["LastModified"] for part in parts)]).timestamp()
            size = sum(part["Size"] for part in parts)
            found[f"{upload['Key'].removeprefix(name + '/')}?uploadId={upload['UploadId']}"] = Stat(size, changed)
        return found

    def abandon(self, prefix: str) -> None:
        """Abort multipart uploads below the prefix."""
        bucket, _ = split(prefix)
        for upload in self._uploads(prefix):
            with in_words("AbortMultipartUpload", bucket, upload["Key"]):
                try:
                    self.wire.call("AbortMultipartUpload", bucket, upload["Key"], UploadId=upload["UploadId"])
                except boto.ClientError as error:
                    if code_of(error) != "NoSuchUpload" and not is_missing(error):
                        raise

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        bucket, name = split(prefix)
        markers: dict[str, str] = {}
        while True:
            page = self.wire.told("ListMultipartUploads", bucket, name, Prefix=f"{name}/", **markers)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:  # noqa: ARG002 - there are no locks
        """Always True: what must not happen twice is decided by a conditional create."""
        yield True


def _age_seconds(answer: Any) -> float:
    from email.utils import parsedate_to_datetime

    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds())
