"""When the next call may start: apart from the one before, after a pause that was asked for, or never again."""

from __future__ import annotations

import threading
import time


class Pace:
    """Shared by all threads that call.

    Args:
        delay_seconds: between the starts of two calls.
    """

    def __init__(self, *, delay_seconds: float) -> None:
        self._delay = delay_seconds
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> bool:
        """Wait for one's turn; False: there is none any more."""
        while not self._stopped.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._delay
                    return True
                left = self._next - now
            self._stopped.wait(left)
        return False

    def pause(self, seconds: float) -> None:
        """Let no call start for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> bool:
        """Sleep alone; False: woken, because no call is wanted any more."""
        return not self._stopped.wait(seconds)

    def stop(self) -> None:
        """Wake everybody and let nobody start."""
        self._stopped.set()

    def resume(self) -> None:
        """Let calls start again."""
        self._stopped.clear()
