"""What a store asks of the place where its bytes live: a handful of primitives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

AREA = ".nearer"
TEMPORARY = ".nearer-tmp-"
"""How names of files begin that stand for a moment, until they are renamed."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a listing says of a file: bytes, and seconds since the epoch of its last change."""

    size: int
    modified: float


class Space(Protocol):
    """Where bytes live. Keys are full addresses of files; a prefix is an address without a trailing slash."""

    grace_seconds: float
    """How old a leftover of another process must be before it counts as dead; 0 where locks tell."""

    def read(self, key: str) -> bytes | None:
        """The bytes; None: no such file."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a file that must not exist, durably and in one step; False: it exists."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a file, durably and in one step."""

    def upload(self, source: Path, key: str) -> None:
        """Write or replace a file with a local file's bytes, durably."""

    def copy(self, source: str, key: str) -> None:
        """Write or replace a file with another one's bytes, durably and in one step.

        Raises:
            FileNotFoundError: the source is gone.
        """

    def list(self, prefix: str) -> Mapping[str, Stat]:
        """All files below the prefix, by the rest of their key; `""` stands for a file at the prefix itself."""

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if it is not there."""

    def clear(self, prefix: str) -> None:
        """Remove everything below the prefix."""

    def alone(self, key: str) -> AbstractContextManager[bool]:
        """Hold a lock while the context lasts; False: another live process has it. True always where none exist."""
