"""Who works on a fingerprint, across machines: a small object with a heartbeat.

Its age is told by the store's own clock, so machines may disagree about the time. A lease is no lock: a process that
was frozen for longer than `STALE_SECONDS` finds out at its next heartbeat that somebody took over. What must not happen
twice (publishing) is decided by claims, never by a lease.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from nearer.errors import Interrupted, NearerError
from nearer.process import STOP
from nearer.store.s3.space import S3Space

BEAT_SECONDS: Final = 20.0
STALE_SECONDS: Final = 75.0
"""Three beats that did not come, and some."""
_POLL_SECONDS: Final = 5.0


class Lease:
    """The lease of one piece of work, held by this process.

    Args:
        space: where it lies.
        key: of its object.
        holder: names the local directory that the work is done in; who has that directory's lock and finds the lease in
            its own name knows that the process before is dead.
    """

    def __init__(self, space: S3Space, key: str, *, holder: str) -> None:
        self.space = space
        self.key = key
        self.holder = holder
        self._tag = ""
        self._id = secrets.token_hex(8)
        self._renewed = time.time()
        self._renewing = threading.Lock()
        self._lost = threading.Event()
        self._ended = threading.Event()

    def check(self) -> None:
        """Leave if somebody else took over.

        Raises:
            Interrupted: it is so.
            OutOfReach: the last sign of life is long ago, and the store does not say.
        """
        if time.time() - self._renewed > STALE_SECONDS / 2:  # the process was frozen, or the store out of reach
            self._renew()
        if self._lost.is_set():
            raise Interrupted(
                "another process has taken this work over",
                where=self.key,
                rule=f"a sign of life at least every {STALE_SECONDS:.0f} seconds",
                way_out="nothing is lost: that process goes on from the last checkpoint",
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the lease, keep it alive, and let go of it.

        Raises:
            Interrupted: another live process has it.
        """
        self._take()
        beat = threading.Thread(target=self._beat, name="nearer-lease", daemon=True)
        beat.start()
        try:
            yield
        finally:
            self._ended.set()
            beat.join()
            if not self._lost.is_set():
                with suppress(NearerError):  # it goes stale by itself
                    self.space.delete(self.key, self._tag)

    def _take(self) -> None:
        first_tag, deadline = "", time.monotonic() + STALE_SECONDS + _POLL_SECONDS
        while not self.space.create(self.key, self._text()):
            found = self.space.head(self.key)
            if found is None:
                continue
            tag, age = found
            first_tag = first_tag or tag
            text = self.space.read(self.key) or b"{}"
            said = json.loads(text)
            if age > STALE_SECONDS or said.get("holder") == self.holder:
                if (new := self.space.swap(self.key, self._text(), tag=tag)) is not None:
                    self._tag, self._renewed = new, time.time()
                    return
            elif tag != first_tag or time.monotonic() > deadline:
                raise Interrupted(
                    f"another process is doing this work ({said.get('process', 'unknown')})",
                    where=self.key,
                    rule="one process at a time works on a fingerprint",
                    way_out="wait for it, or end it, then run the same command again: it goes on from here",
                )
            STOP.check()
            time.sleep(_POLL_SECONDS)  # a killed process's lease goes stale within this loop's patience
        self._tag, self._renewed = (self.space.head(self.key) or ("", 0.0))[0], time.time()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS) and not self._lost.is_set():
            with suppress(NearerError):  # the next beat may come through
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            if self._lost.is_set():
                return
            tag = self.space.swap(self.key, self._text(), tag=self._tag)
            if tag is None and json.loads(self.space.read(self.key) or b"{}").get("id") == self._id:
                # An earlier beat had its effect, and only its answer was lost.
                found = self.space.head(self.key)
                tag = found and self.space.swap(self.key, self._text(), tag=found[0])
            if tag is None:
                self._lost.set()
                return
            self._tag, self._renewed = tag, time.time()

    def _text(self) -> bytes:
        fields = {
            "process": f"process {os.getpid()} on {socket.gethostname()}",
            "holder": self.holder,
            "id": self._id,
            "at": time.time(),  # so that each beat has another tag
        }
        return json.dumps(fields).encode()
