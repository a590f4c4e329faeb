"""What a pod object says about its one container."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nearer.cluster.render import CONTAINER
from nearer.cluster.state import condition

Object = dict[str, Any]

_INDEX = "batch.kubernetes.io/job-completion-index"
_STARTING = {"ContainerCreating", "PodInitializing"}


@dataclass(frozen=True, kw_only=True)
class End:
    """How a container ended.

    Args:
        code: exit code; None when no container got so far.
        reason: the kubelet's or the eviction's word: OOMKilled, Evicted, Error, …
        words: what goes with it.
        message: the JSON that nearer left; empty if it left none.
        tail: the last lines of the log, where it left none.
        finished: when.
    """

    code: int | None
    reason: str
    words: str
    message: Object
    tail: str
    finished: datetime | None

    @property
    def platform(self) -> str:
        """The reason, where it says more than the exit code does."""
        return "" if self.reason in {"Error", "Completed"} else self.reason


def short_name(pod: Object, *, run: str) -> str:
    """The part of its name that tells it from the run's other pods."""
    name = str(pod["metadata"]["name"])
    return name.removeprefix(f"{run}-")


def index(pod: Object) -> str:
    """Completion index of an Indexed Job's pod; empty for others."""
    return str((pod["metadata"].get("annotations") or {}).get(_INDEX, ""))


def is_disrupted(pod: Object) -> bool:
    """Evicted, preempted, drained: nothing that the run did."""
    return condition(pod, "DisruptionTarget") is not None


def is_running(pod: Object) -> bool:
    """Whether its container runs now."""
    return "running" in _state(pod)


def has_ended(pod: Object) -> bool:
    """Whether its container has ended, or will never start."""
    return "terminated" in _state(pod) or _phase(pod) in {"Succeeded", "Failed"}


def has_log(pod: Object) -> bool:
    """Whether there is a log to read, or there should be one."""
    return is_running(pod) or "terminated" in _state(pod) or (pod.get("status") or {}).get("reason") == "Evicted"


def started(pod: Object) -> datetime | None:
    """When its container started."""
    state = _state(pod)
    return _time((state.get("running") or state.get("terminated") or {}).get("startedAt"))


def not_starting(pod: Object) -> str | None:
    """Why its container does not start, in the kubelet's own words; None if it is just being made."""
    waiting = _state(pod).get("waiting") or {}
    reason = waiting.get("reason", "")
    if not reason or reason in _STARTING:
        return None
    return f"{reason}: {waiting['message']}" if waiting.get("message") else str(reason)


def not_scheduled(pod: Object) -> str | None:
    """Why no node takes it, in the scheduler's own words."""
    for each in (pod.get("status") or {}).get("conditions") or []:
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return f"{each.get('reason', 'Pending')}: {each.get('message', 'no node yet')}"
    return None


def end(pod: Object) -> End | None:
    """How it ended; None while it has not."""
    if not has_ended(pod):
        return None
    status = pod.get("status") or {}
    terminated = _state(pod).get("terminated") or {}
    disruption = condition(pod, "DisruptionTarget") or {}
    own = str(terminated.get("reason", ""))
    # The kubelet's `Error` says nothing; why the pod as a whole was ended says more.
    outer = status.get("reason") or disruption.get("reason") or ""
    words = status.get("message") or disruption.get("message") or ""
    text = str(terminated.get("message") or "")
    message = _message(text)
    return End(
        code=terminated.get("exitCode"),
        reason=str(outer or own) if own in {"", "Error", "Completed", "ContainerStatusUnknown"} else own,
        words=str(words),
        message=message,
        tail="" if message else text.strip(),
        finished=_time(terminated.get("finishedAt")),
    )


def _message(text: str) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "code" in found else {}


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _state(pod: Object) -> Object:
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        if each.get("name") == CONTAINER:
            found: Object = each.get("state") or {}
            return found
    return {}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
