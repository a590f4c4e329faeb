"""The ETags that a local file would have as an object: how bytes that are there already are recognised.

Stores other than AWS, and objects under a KMS key, may have ETags of another kind; those are never recognised, and the
bytes are sent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from nearer.store.s3.client import md5


class PartTags:
    """The ETags that a local file's parts would have."""

    def __init__(self, handle: int, *, size: int, part: int) -> None:
        self.handle, self.size, self.part = handle, size, part
        self._tags: dict[int, str] = {}

    def has(self, number: int, tag: str) -> bool:
        """Whether part `number`, from 1, has this ETag."""
        return 0 < number <= -(-self.size // self.part) and self._tag(number) == tag

    def whole(self) -> str:
        """The ETag of the object that they make."""
        if self.size <= self.part:
            return md5(os.pread(self.handle, self.size, 0))[0]
        return combined_tag(self._tag(number) for number in range(1, -(-self.size // self.part) + 1))

    def _tag(self, number: int) -> str:
        if number not in self._tags:
            self._tags[number] = md5(os.pread(self.handle, self.part, (number - 1) * self.part))[0]
        return self._tags[number]


def combined_tag(tags: Iterable[str]) -> str:
    """The ETag of a multipart object: MD5 of the parts' MD5s, and their number."""
    digests = [bytes.fromhex(tag) for tag in tags if len(tag) == 32]
    return f"{md5(b''.join(digests))[0]}-{len(digests)}"


_COMMON_PARTS: Final = tuple(size << 20 for size in (8, 5, 16, 32, 64, 100, 128, 256, 512))
"""Part sizes of well-known tools: `aws s3 cp`, boto3, s5cmd, rclone, …"""


def agrees(path: Path, tag: str, *, part: int) -> bool:
    """Whether the ETag is what one of the well-known ways to upload these bytes would have given; False says nothing.

    Args:
        path: the local file.
        tag: of the object.
        part: another part size to be tried.
    """
    count = int(tag.partition("-")[2] or 0) if tag.partition("-")[2].isdigit() else 0
    with path.open("rb") as stream:
        handle, size = stream.fileno(), path.stat().st_size
        if "-" not in tag:
            return PartTags(handle, size=size, part=max(size, 1)).whole() == tag
        return any(
            PartTags(handle, size=size, part=each).whole() == tag
            for each in {part, *_COMMON_PARTS}
            if count > 1 and -(-size // each) == count
        )
