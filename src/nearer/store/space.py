"""What a store asks of the place where its bytes live: a handful of primitives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

AREA = ".nearer"
TEMPORARY = ".nearer-tmp-"
"""How names of files begin that stand for a moment, until they are renamed."""

LEASE = "lease.json"
"""In a work area where no locks exist: somebody is at it, as long as it is written again and again."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a listing says of a file.

    Args:
        size: bytes.
        modified: seconds since the epoch of its last change.
        tag: changes when the bytes change, and two files of one tag have the same bytes; "" where that is not known.
    """

    size: int
    modified: float
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What an earlier upload left: a whole file, or an upload that was begun and not ended (`upload_id`)."""

    key: str
    size: int = 0
    tag: str = ""
    upload_id: str = ""


class Changed(FileNotFoundError):
    """A file that was listed is gone, or was written anew."""

    def __init__(self, key: str) -> None:
        super().__init__(2, "No such file any more", key)


class Space(Protocol):
    """Where bytes live. Keys are full addresses of files; a prefix is an address without a trailing slash."""

    grace_seconds: float
    """How old a leftover of another process must be before it counts as dead; 0 where locks tell."""

    workers: int
    """How many files should be moved at once."""

    resumes: bool
    """Whether what an upload left behind when it failed is worth keeping: the next one takes it up."""

    def read(self, key: str) -> bytes | None:
        """The bytes; None: no such file."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not exist, durably and in one step; False: it exists."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a file, durably and in one step."""

    def upload(self, source: Path, key: str, remains: Sequence[Remains] = ()) -> None:
        """Write or replace a file with a local file's bytes, durably.

        Args:
            source: the local file.
            key: where the bytes go.
            remains: of earlier uploads of a file of this name; what has these very bytes need not be sent again.
        """

    def remains(self, prefix: str) -> Mapping[str, Sequence[Remains]]:
        """What earlier attempts left below `<prefix>/<attempt>/`, by the rest of the key."""

    def copy(self, source: str, key: str, size: int = 0) -> None:
        """Write or replace a file with another one's bytes, durably and in one step.

        Args:
            source: the other file.
            key: where the bytes go.
            size: of the source in bytes; 0: not known, and small.

        Raises:
            FileNotFoundError: the source is gone.
        """

    def list(self, prefix: str) -> Mapping[str, Stat]:
        """All files below the prefix, by the rest of their key; `""` stands for a file at the prefix itself."""

    def delete(self, key: str, tag: str = "") -> None:
        """Remove a file; nothing happens if it is not there, or has another tag than the one given."""

    def clear(self, prefix: str) -> None:
        """Remove everything below the prefix."""

    def unfinished(self, prefix: str) -> Mapping[str, Stat]:
        """What was begun below the prefix and is not a file yet, by the rest of the key, with its last change."""

    def abandon(self, prefix: str) -> None:
        """End what was begun below the prefix and is not a file yet: it can never become one."""

    def alone(self, key: str) -> AbstractContextManager[bool]:
        """Hold a lock while the context lasts; False: another live process has it. True always where none exist."""
