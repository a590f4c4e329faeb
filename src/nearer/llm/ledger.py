"""Every finished call, kept: on this disk before the next call starts, and in the store soon after.

A reply is found by the hash of what was asked (`Request.key`), so that a changed document, another order or another
number of pods repeats nothing that was asked before. On this machine a reply is fsynced before it counts. Where the
artifacts live elsewhere, replies leave in immutable segments: what is lost with this machine's disk is at most one
segment that is being filled and one that is being sent.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from nearer.errors import ArtifactCorrupt, ArtifactMissing, OutOfReach
from nearer.llm.request import Reply
from nearer.progress import Progress, Silent
from nearer.store.disk import sync_directory
from nearer.store.protocol import WorkArea

SEGMENT_REPLIES: Final = 50
SEGMENT_SECONDS: Final = 30.0
"""A segment is sent when it holds so many replies, or is so old: at most twice as many replies are paid for again when
a disk is lost. Sending one takes well under a second, so it costs nothing to keep these small."""

_MANY_FILES: Final = 64  # from so many on, they are made one when the ledger is opened
_OPEN: Final = "open.jsonl"
_PREFIX: Final = "replies-"


class Ledger:
    """The replies of one work area. Not for several threads.

    Args:
        work: this process's own.
        seeds: files of replies that are read as well: other pods' shards, an earlier dataset's.
        segment_replies: see `SEGMENT_REPLIES`.
        segment_seconds: see `SEGMENT_SECONDS`.
        clock: monotonic seconds.
        progress: told when something could not be sent.

    Raises:
        OutOfReach: the store does not answer.
    """

    def __init__(
        self,
        work: WorkArea,
        *,
        seeds: Iterable[Path] = (),
        segment_replies: int = SEGMENT_REPLIES,
        segment_seconds: float = SEGMENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        progress: Progress | None = None,
    ) -> None:
        self._work = work
        self._segment_replies = segment_replies
        self._segment_seconds = segment_seconds
        self._clock = clock
        self._progress = progress or Silent()
        self._replies: dict[str, Reply] = {}
        self._stream: IO[str] | None = None
        self._open_count = 0
        self._opened_at = 0.0
        for seed in seeds:
            self._replies.update(read_replies(seed))
        self._bring()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Reply | None:
        """The reply to what has this key, if it was ever given."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is on the disk when this returns.

        Raises:
            OutOfReach: segments cannot be sent to the store, so that more and more would be lost with this disk.
        """
        if self._stream is None:
            self._work.path.mkdir(parents=True, exist_ok=True)
            self._stream = (self._work.path / _OPEN).open("a", encoding="utf-8", newline="\n")
            sync_directory(self._work.path)
            self._opened_at = self._clock()
        self._stream.write(reply_line(key, reply))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._replies[key] = reply
        self._open_count += 1
        self.tick()

    def tick(self) -> None:
        """Send what is due; to be called now and then, also when no reply comes.

        Raises:
            OutOfReach: the segment before could not be sent.
        """
        if self._work.segments is None or not self._open_count:
            return
        if self._open_count >= self._segment_replies or self._clock() - self._opened_at >= self._segment_seconds:
            if failed := self._work.segments.flush():
                raise OutOfReach(
                    f"replies that were paid for cannot be sent to the store ({len(failed)} segments wait here)",
                    rule="at most two segments of replies are on one disk alone",
                    way_out="run the same command again here when the store answers: nothing is asked twice",
                )
            self._seal()

    def close(self) -> None:
        """Send the rest; what cannot be sent stays on this disk, and is sent by the next run here."""
        if self._stream is not None:
            self._seal()
        if self._work.segments is not None and (failed := self._work.segments.flush()):
            self._progress.warn("replies of the language model are on this disk alone", segments=len(failed))

    def _seal(self) -> None:
        """End the file that is being filled: from now on it never changes."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._open_count = 0
        name = f"{_PREFIX}{secrets.token_hex(8)}.jsonl"
        (self._work.path / _OPEN).rename(self._work.path / name)
        sync_directory(self._work.path)
        self._work.share(name)

    def _bring(self) -> None:
        """Read all that is here and in the store; what a killed process left behind becomes a segment."""
        shared = self._work.shared()
        for name in sorted(shared):
            try:
                self._work.bring(name)
            except (ArtifactCorrupt, ArtifactMissing) as error:
                self._progress.warn("a segment of replies is lost, its calls are made again", what=error.what)
        known = self._work.segments.names() if self._work.segments else frozenset()
        files = sorted(self._work.path.glob(f"{_PREFIX}*.jsonl"))
        for file in files:
            self._replies.update(read_replies(file))
            if self._work.segments is not None and file.name not in known:
                self._work.share(file.name)
        left = self._work.path / _OPEN
        if left.exists():
            found = dict(read_replies(left))
            self._replies.update(found)
            left.write_text("".join(reply_line(*each) for each in found.items()), encoding="utf-8")  # no torn line
            if found:
                self._seal()
            else:
                left.unlink()
        if len(files) > _MANY_FILES:
            self._make_one(files)

    def _make_one(self, files: list[Path]) -> None:
        """One file for many: a run of days leaves thousands of segments, and each is a request to the store."""
        everything: dict[str, Reply] = {}
        for file in files:
            everything.update(read_replies(file))
        name = f"{_PREFIX}{secrets.token_hex(8)}.jsonl"
        write_replies(self._work.path / name, everything)
        self._work.share(name, instead_of=[file.name for file in files])
        for file in files:
            file.unlink()


def reply_line(key: str, reply: Reply) -> str:
    """One line of a file of replies."""
    fields = {
        "key": key,
        "text": reply.text,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    return json.dumps(fields, ensure_ascii=True) + "\n"


def write_replies(path: Path, replies: dict[str, Reply]) -> None:
    """Write a file of replies, in the order of their keys, and fsync it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(reply_line(key, replies[key]) for key in sorted(replies))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_replies(path: Path) -> Iterator[tuple[str, Reply]]:
    """The replies of a file; a line that is not whole was being written when its process died, and is passed over."""
    with path.open("rb") as stream:
        for line in stream:
            try:
                row = json.loads(line)
                yield (
                    str(row["key"]),
                    Reply(
                        text=str(row["text"]),
                        prompt_tokens=int(row["prompt_tokens"]),
                        completion_tokens=int(row["completion_tokens"]),
                    ),
                )
            except (ValueError, KeyError, TypeError):
                continue
