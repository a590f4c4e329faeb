"""A run from its first pod to its end: why it waits, what it says, how it ended.

Threads ask the cluster (one for the Job, one for its pods, one for why nothing runs, one for each log) and put what
they learn into one queue; everything is decided and said by the one thread that reads it. So an interrupt finds that
thread waiting, never in the middle of a request.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nearer.cluster import pods as pod_words
from nearer.cluster import state, waiting
from nearer.cluster.answers import Refusal, Unreachable, told
from nearer.cluster.api import Cluster
from nearer.cluster.display import Display
from nearer.cluster.ending import Ending, ending, pod_line
from nearer.cluster.podlog import Container, PodLog
from nearer.cluster.render import CONTAINER
from nearer.cluster.transport import Object
from nearer.cluster.watch import Seen, Watch
from nearer.errors import OutOfReach

_TICK_SECONDS = 0.2
_PODS = "batch.kubernetes.io/job-name={name},batch.kubernetes.io/controller-uid={uid}"


@dataclass(kw_only=True)
class _Pod:
    """A pod as it was last seen, and how far its log is."""

    item: Object
    container: Container
    gone: bool = False
    reading: bool = False
    read: bool = False
    said: set[str] = field(default_factory=set)


class Follow:
    """Follows one Job.

    Args:
        cluster: where.
        job: as it stood when it was found.
        display: told what happens.
        stopped: asked now and then; true ends the following with KeyboardInterrupt.
    """

    def __init__(
        self, cluster: Cluster, job: Object, display: Display, *, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._cluster = cluster
        self._job = job
        self._name = str(job["metadata"]["name"])
        self._uid = str(job["metadata"]["uid"])
        self._display = display
        self._stopped = stopped
        self._pods: dict[str, _Pod] = {}
        self._deleted = False
        self._over_since: float | None = None
        self._looked = False
        self._reasons: set[str] = set()
        self._silent_since: dict[str, float] = {}
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=10_000)
        self._stop = threading.Event()

    def run(self) -> Ending:
        """Until the run is over and its logs are read.

        Raises:
            NoPermission, InputError: the cluster refuses to be watched.
            OutOfReach: it has not answered for too long; the run goes on.
            KeyboardInterrupt: from the keyboard, or `stopped`.
        """
        with self._threads():
            while not self._done():
                if self._stopped():
                    raise KeyboardInterrupt
                try:
                    self._queue.get(timeout=_TICK_SECONDS)()
                except queue.Empty:
                    self._check_lost()
            self._count_pods()
        return ending(self._job, [pod.item for pod in self._pods.values()], deleted=self._deleted)

    def _count_pods(self) -> None:
        """Pods that came and went before anybody looked: the Job has counted them."""
        counted = self._job.get("status") or {}
        unseen = int(counted.get("failed") or 0) + int(counted.get("succeeded") or 0) - len(self._pods)
        if unseen > 0:
            self._display.warn(f"gap: {unseen} of its pods were gone before they were seen, and their logs with them")

    @contextmanager
    def _threads(self) -> Iterator[None]:
        labels = _PODS.format(name=self._name, uid=self._uid)
        self._start(lambda: self._watch("Job", fields=f"metadata.name={self._name}", take=self._take_job))
        self._start(lambda: self._watch("Pod", labels=labels, take=self._take_pod))
        self._start(self._explain)
        try:
            yield
        finally:
            self._stop.set()
            self._display.close()

    def _start(self, work: Callable[[], None]) -> None:
        """A thread whose failure is told by the one that reads the queue."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised again where it can be told
                failed = error
                self._put(lambda: self._raise(failed))

        threading.Thread(target=guarded, name="nearer-follow", daemon=True).start()

    def _put(self, call: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(call, timeout=1)
            except queue.Full:
                continue
        return None

    def _raise(self, error: Exception) -> None:
        if isinstance(error, Refusal | Unreachable):
            raise told(error, doing=f"follow {self._name}", where=self._cluster.where) from error
        raise error

    def _watch(self, kind: str, *, take: Callable[[Seen], None], **selectors: str) -> None:
        def trouble(reason: str | None) -> None:
            self._put(lambda: self._trouble(kind, reason))

        known = [self._job] if kind == "Job" else []
        watch = Watch(self._cluster, kind, **selectors, known=known, trouble=trouble, stop=self._stop)
        for seen in watch.changes():
            self._put(lambda seen=seen: take(seen))  # type: ignore[misc]

    def _trouble(self, kind: str, reason: str | None) -> None:
        """Say once that the server went away, and once that it is back."""
        if reason is None:
            if self._silent_since.pop(kind, None) is not None and not self._silent_since:
                self._display.say("the cluster answers again")
        elif kind not in self._silent_since:
            if not self._silent_since:
                self._display.warn(f"the cluster does not answer ({reason}); the run goes on, trying again")
            self._silent_since[kind] = time.monotonic()
        self._check_lost()

    def _check_lost(self) -> None:
        limit = self._cluster.patience.lost_seconds
        if any(time.monotonic() - since > limit for since in self._silent_since.values()):
            raise OutOfReach(
                f"the cluster has not answered for {limit:g} seconds; {self._name} goes on without being followed",
                where=self._cluster.where,
                way_out="the same command follows it again",
            )

    def _take_job(self, seen: Seen) -> None:
        if seen.item["metadata"]["uid"] != self._uid:
            return  # a later Job of the same name
        self._job = seen.item
        if self._over_since is not None:
            return
        if state.is_over(seen.item) or seen.gone:
            self._deleted = seen.gone and not state.is_over(seen.item)
            self._over_since = time.monotonic()
            self._start(self._look_once_more)
        elif state.is_leaving(seen.item):
            self._reason("the Job is being deleted; its pods end")

    def _look_once_more(self) -> None:
        """The Job's end may be told before its pods' last changes."""
        try:
            found, _ = self._cluster.find("Pod", labels=_PODS.format(name=self._name, uid=self._uid))
        except (Refusal, Unreachable):
            found = []  # the watches say so; what they saw is what there is
        for item in found:
            self._put(lambda item=item: self._take_pod(Seen(item=item)))  # type: ignore[misc]
        self._put(lambda: setattr(self, "_looked", True))

    def _take_pod(self, seen: Seen) -> None:
        item, uid = seen.item, seen.item["metadata"]["uid"]
        name = pod_words.short_name(item, run=self._name)
        known = self._pods.get(uid)
        if known is None:
            container = Container(pod=str(item["metadata"]["name"]), name=CONTAINER)
            known = self._pods[uid] = _Pod(item=item, container=container)
        if pod_words.has_ended(item) or not pod_words.has_ended(known.item):  # a list may be older than the watch
            known.item = item
        known.gone = known.gone or seen.gone
        known.container.started = pod_words.started(item) or known.container.started
        if pod_words.is_running(item) and "runs" not in known.said:
            known.said.add("runs")
            self._display.say(f"{name} runs on {item['spec'].get('nodeName', 'a node')}")
        if pod_words.has_log(item) and not known.reading:
            known.reading = True
            self._start(lambda: self._read(known, name))
        if pod_words.has_ended(item):
            known.container.ended.set()
            if "ended" not in known.said:
                known.said.add("ended")
                self._display.say(pod_line(item, run=self._name))
        if known.gone:
            known.container.gone.set()
            known.container.ended.set()

    def _read(self, pod: _Pod, name: str) -> None:
        log = PodLog(
            self._cluster,
            pod.container,
            line=lambda text: self._put(lambda: self._display.line(name, text)),
            gap=lambda text: self._put(lambda: self._display.warn(f"{name}: gap: {text}")),
            stop=self._stop,
        )
        log.read()
        self._put(lambda: self._display.over(name))
        self._put(lambda: setattr(pod, "read", True))

    def _explain(self) -> None:
        while not self._stop.wait(self._cluster.patience.explain_seconds):
            living = [pod.item for pod in list(self._pods.values()) if not pod.gone]
            living = [item for item in living if not pod_words.has_ended(item)]
            held = [item for item in living if not pod_words.is_running(item)]
            if self._over_since is not None or (living and not held):
                continue
            try:
                found = waiting.reasons(self._job, held, self._cluster, run=self._name)
            except Unreachable:
                continue  # the watches say so
            except Refusal as refusal:
                found = [f"why may not be read (events): {refusal.message}"]
            for text in found:
                self._put(lambda text=text: self._reason(f"waiting: {text}"))  # type: ignore[misc]

    def _reason(self, text: str) -> None:
        if text not in self._reasons:
            self._reasons.add(text)
            self._display.say(text)

    def _done(self) -> bool:
        if self._over_since is None:
            return False
        unread = [pod for pod in self._pods.values() if pod.reading and not pod.read]
        living = [pod for pod in self._pods.values() if not pod.gone and not pod_words.has_ended(pod.item)]
        if self._looked and not unread and not living and self._queue.empty():
            return True
        if time.monotonic() - self._over_since < self._cluster.patience.drain_seconds:
            return False
        for pod in unread:
            name = pod_words.short_name(pod.item, run=self._name)
            self._display.warn(f"{name}: gap: the end of its log did not come in time, its last lines may be lost")
        return True
