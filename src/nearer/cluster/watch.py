"""All objects that match, as they are and as they change, through cut connections and versions that are too old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nearer.cluster.answers import TRANSIENT, Refusal, Unreachable
from nearer.cluster.api import Cluster
from nearer.cluster.transport import Object

_GONE = 410


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An object as it stands now; `gone`: as it stood when it was last seen."""

    item: Object
    gone: bool = False


class Watch:
    """Lists, then watches, and lists again whenever the thread of changes is lost.

    What vanished while nobody looked is told as gone, with its last known state.

    Args:
        cluster: where.
        kind: of the objects.
        labels: selector.
        fields: selector.
        known: objects that were there already; told as gone if the first list has them not.
        trouble: told the reason when the server stops answering, and None when it answers again.
        stop: ends it.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        *,
        labels: str = "",
        fields: str = "",
        known: Sequence[Object] = (),
        trouble: Callable[[str | None], None],
        stop: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._selectors = {"labels": labels, "fields": fields}
        self._trouble = trouble
        self._stop = stop
        self._known: dict[str, Object] = {item["metadata"]["uid"]: item for item in known}
        self._version = ""

    def changes(self) -> Iterator[Seen]:
        """Every change, until `stop`.

        Raises:
            Refusal: an answer that another attempt would not change, e.g. no right to watch.
        """
        pauses = self._cluster.patience.pauses()
        while not self._stop.is_set():
            began, before = time.monotonic(), self._version
            yield from self._one_watch()
            if self._version != before or time.monotonic() - began > self._cluster.patience.longest_pause_seconds:
                pauses = self._cluster.patience.pauses()
            # Also after an end without an error: a server that ends each watch at once is not to be hammered.
            self._stop.wait(next(pauses))

    def _one_watch(self) -> Iterator[Seen]:
        """List if the thread is lost, then watch until that ends."""
        try:
            if not self._version:
                found, self._version = self._cluster.find(self._kind, **self._selectors)
                self._trouble(None)
                yield from self._compare(found)
            for event in self._cluster.watch(self._kind, **self._selectors, since=self._version):
                item = event["object"]
                self._version = item["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield self._take(item, gone=event["type"] == "DELETED")
                if self._stop.is_set():
                    return
        except (Refusal, Unreachable) as error:
            if isinstance(error, Refusal) and error.code not in {*TRANSIENT, _GONE}:
                raise
            if not self._version:  # a watch that is cut is nothing special: proxies do that to quiet connections
                self._trouble(str(error))
            self._version = ""

    def _take(self, item: Object, *, gone: bool) -> Seen:
        uid = item["metadata"]["uid"]
        if gone:
            self._known.pop(uid, None)
        else:
            self._known[uid] = item
        return Seen(item=item, gone=gone)

    def _compare(self, found: list[Object]) -> Iterator[Seen]:
        before, self._known = self._known, {}
        for item in found:
            old = before.pop(item["metadata"]["uid"], None)
            seen = self._take(item, gone=False)
            if old is None or old["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                yield seen
        for item in before.values():
            yield Seen(item=item, gone=True)
