"""How a run ended: the container's real exit code, why, and what there is to show for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nearer.cluster import pods as pod_words
from nearer.cluster import state
from nearer.errors import EXIT_CODES

Object = dict[str, Any]

_DONE, _FAULT, _INPUT, _TEMPORARY = 0, 1, 2, 75
_NEVER = datetime.max.replace(tzinfo=UTC)
_IN_POLICY = re.compile(r"failed with exit code (\d+)")  # the Job controller's words for a FailJob rule
_WRONG_INPUT = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError",
                "ErrImagePull", "ImagePullBackOff", "RunContainerError")  # fmt: skip
_NEXT = {
    "OOMKilled": "raise pod.resources.limits.memory (storage.sharedMemory counts within it), or make batches smaller",
    "DeadlineExceeded": "raise activeDeadlineSeconds, then submit again: it goes on from the last checkpoint",
    "Evicted": "ask for more of what the node ran out of (storage, pod.resources.requests), then submit again",
}


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of a run.

    Args:
        run: the Job's name.
        code: nearer's exit code for it.
        reason: one sentence.
        why: the platform's own word and words, if it had a hand in it.
        advice: the next step, where there is one.
        tail: last log lines of a container that left no message.
        artifact: what was published, if anything.
        metrics: of it.
    """

    run: str
    code: int
    reason: str
    why: str = ""
    advice: str = ""
    tail: str = ""
    artifact: str = ""
    metrics: Object = field(default_factory=dict)

    @property
    def meaning(self) -> str:
        """The exit-code table's line."""
        return next((line.meaning for line in EXIT_CODES if line.code == self.code), "not in nearer's table")


def ending(job: Object, pods: Sequence[Object], *, deleted: bool = False) -> Ending:
    """Read it from the Job and the last known state of its pods, also of those that are gone by now.

    Of a Job that failed, the last attempt of each index counts, unless it was evicted; of these the first that ended
    with neither 0 nor 75: its peers were only taken along.

    Args:
        job: as it was last seen.
        pods: all of its pods.
        deleted: whether the Job was deleted before it was over.
    """
    run = str(job["metadata"]["name"])
    ends = [(pod, end) for pod in pods if (end := pod_words.end(pod)) is not None]
    ends.sort(key=lambda each: each[1].finished or _NEVER)
    if state.is_complete(job):
        messages = [end.message for _, end in reversed(ends) if end.code == _DONE and end.message]
        # Of several nodes one publishes.
        message = next((each for each in messages if each.get("artifact")), next(iter(messages), {}))
        return Ending(run=run, code=_DONE, reason=_sentence(message) or "done", **_made(message))
    failed = state.failure(job) or {}
    cause = _cause(ends)
    if cause is not None and cause.code is not None:
        return _of_container(run, cause, failed, deleted=deleted)
    return _without_container(run, failed, pods, ran=bool(ends), deleted=deleted)


def pod_line(pod: Object, *, run: str) -> str:
    """One pod's end in one line."""
    found = pod_words.end(pod)
    name = pod_words.short_name(pod, run=run)
    if found is None:
        return f"{name} has not ended"
    code = "without an exit code" if found.code is None else f"with exit {found.code}"
    own = _sentence(found.message)
    tail = ": ".join(text for text in (found.platform, found.words) if text)
    return f"{name} ended {code}" + (f": {own}" if own else "") + (f" ({tail})" if tail else "")


def report(found: Ending) -> list[str]:
    """The end as lines for a person."""
    lines = [f"{found.run}: exit {found.code}, {found.meaning}"]
    rows = {
        "reason": found.reason,
        "why": found.why,
        "artifact": found.artifact,
        "metrics": "  ".join(f"{name} {_number(value)}" for name, value in found.metrics.items()),
        "way out": found.advice,
    }
    lines += [f"  {name + ':':<9} {text}" for name, text in rows.items() if text]
    lines += ["  its last words:", *(f"    {line}" for line in found.tail.splitlines())] if found.tail else []
    return lines


def _cause(ends: list[tuple[Object, pod_words.End]]) -> pod_words.End | None:
    """The end that decided; ends are in order of time."""
    last: dict[str, pod_words.End] = {}
    disrupted: dict[str, pod_words.End] = {}
    for pod, end in ends:
        (disrupted if pod_words.is_disrupted(pod) else last)[pod_words.index(pod)] = end
    counted = sorted(last.values(), key=lambda end: end.finished or _NEVER)
    real = [end for end in counted if end.code not in {None, _DONE, _TEMPORARY}]
    others = [*counted, *disrupted.values()]
    return next(iter([*real, *[end for end in others if end.code not in {None, _DONE}], *others]), None)


def _of_container(run: str, end: pod_words.End, failed: Object, *, deleted: bool) -> Ending:
    code = end.code if end.code is not None else _FAULT
    own = _sentence(end.message)
    platform = end.platform
    reason = str(failed.get("reason", ""))
    words = ": ".join(text for text in (platform, end.words) if text)
    if reason == "DeadlineExceeded":
        words = "; ".join(text for text in (words, f"{reason}: {failed.get('message', '')}") if text)
        platform = platform or reason
    if code == _DONE:  # all pods that are known did well, and the Job failed all the same, or was deleted
        code, own = _TEMPORARY if deleted else _FAULT, "the containers ended well, the Job did not"
        words = words or _why(failed)
    if deleted:
        words = "; ".join(text for text in (words, "the Job was deleted") if text)
    signal = f"killed by signal {code - 128}" if code > 128 else ""
    return Ending(
        run=run,
        code=code,
        reason=own or signal or "it left no message",
        why=words,
        advice=_NEXT.get(platform, "submit again: it goes on from the last checkpoint" if code == _TEMPORARY else ""),
        tail=end.tail,
        **_made(end.message),
    )


def _without_container(run: str, failed: Object, pods: Sequence[Object], *, ran: bool, deleted: bool) -> Ending:
    """No container's exit code is known: what the Job and the waiting pods say."""
    words, reason = str(failed.get("message", "")), str(failed.get("reason", ""))
    if found := _IN_POLICY.search(words):
        return Ending(run=run, code=int(found[1]), reason="its pod is gone, the Job still says how it ended", why=words)
    if deleted:
        return Ending(run=run, code=_TEMPORARY, reason="the Job was deleted", advice="submit again to go on")
    stuck = next((said for pod in pods if (said := pod_words.not_starting(pod))), "")
    if stuck.startswith(_WRONG_INPUT):
        return Ending(run=run, code=_INPUT, reason=f"no container ever started: {stuck}", why=_why(failed))
    if reason == "DeadlineExceeded":
        never = "" if ran else "; no container is known to have run"
        text = f"activeDeadlineSeconds is over{never}"
        return Ending(run=run, code=_TEMPORARY, reason=text, why=words, advice=_NEXT[reason])
    return Ending(run=run, code=_FAULT, reason="its pods are gone, and with them the exit code", why=_why(failed))


def _made(message: Object) -> Object:
    metrics = message.get("metrics")
    return {"artifact": str(message.get("artifact") or ""), "metrics": metrics if isinstance(metrics, dict) else {}}


def _sentence(message: Object) -> str:
    stage, reason = str(message.get("stage", "")), str(message.get("reason", ""))
    return f"{stage}: {reason}" if stage and reason else reason


def _why(failed: Object) -> str:
    return ": ".join(text for text in (str(failed.get("reason", "")), str(failed.get("message", ""))) if text)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
