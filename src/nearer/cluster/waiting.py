"""Why nothing runs yet, in the words of those who hold it up: scheduler, kubelet, quota, queue."""

from __future__ import annotations

from typing import Any

from nearer.cluster import pods as pod_words
from nearer.cluster import state
from nearer.cluster.answers import Refusal
from nearer.cluster.api import Cluster

Object = dict[str, Any]

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_JOB_UID = "kueue.x-k8s.io/job-uid"
KUEUE_VERSIONS = ("v1beta2", "v1beta1")
_HELPFUL = {"TriggeredScaleUp", "NotTriggerScaleUp"}
"""Events of type Normal that say something about waiting."""


def reasons(job: Object, pods: list[Object], cluster: Cluster, *, run: str) -> list[str]:
    """All reasons, each one a line that names whom it is about.

    Args:
        job: the Job as it stands.
        pods: its pods that have not started.
        cluster: asked for events, and for Kueue's workload when the Job is suspended.
        run: the Job's name.

    Raises:
        Refusal, Unreachable: the cluster does not answer.
    """
    if state.is_suspended(job):
        return _suspended(job, cluster)
    found: list[str] = []
    for pod in pods:
        name = pod_words.short_name(pod, run=run)
        said = pod_words.not_scheduled(pod) or pod_words.not_starting(pod)
        found += [f"{name}: {said}"] if said else []
        # The event that stands behind the status says the same again.
        found += [f"{name}: {text}" for text in _events(pod, cluster) if text.partition(": ")[2] not in (said or "")]
    if not pods:
        found += _events(job, cluster)
    return list(dict.fromkeys(found))


def _suspended(job: Object, cluster: Cluster) -> list[str]:
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if not queue:
        return ["the Job is suspended (spec.suspend), and nothing says by whom", *_events(job, cluster)]
    said = _workload(job, cluster)
    events = [] if said else _events(job, cluster)
    return [f"queue {queue}: not admitted yet" + (f": {text}" if text else "") for text in (said or events or [""])]


def _workload(job: Object, cluster: Cluster) -> list[str]:
    """What Kueue says about the Job's workload."""
    place = f"namespaces/{cluster.namespace}/workloads"
    for version in KUEUE_VERSIONS:
        try:
            answer = cluster.get_at(
                f"/apis/kueue.x-k8s.io/{version}/{place}",
                query={"labelSelector": f"{_JOB_UID}={job['metadata']['uid']}"},
            )
        except Refusal as refusal:
            if refusal.code == 403:
                return [f"why may not be read (workloads.kueue.x-k8s.io): {refusal.message}"]
            raise
        if answer is None:
            continue
        conditions = [
            each for item in answer.get("items") or [] for each in (item.get("status") or {}).get("conditions") or []
        ]
        return [
            str(each["message"])
            for each in conditions
            if each.get("type") in {"QuotaReserved", "Admitted", "Evicted"} and each.get("message")
            if (each.get("status") == "True") == (each["type"] == "Evicted")
        ]
    return []


def _events(about: Object, cluster: Cluster) -> list[str]:
    """Warnings about an object, and what an autoscaler says, oldest first."""
    found, _ = cluster.find("Event", fields=f"involvedObject.uid={about['metadata']['uid']}")
    told = [each for each in found if each.get("type") == "Warning" or each.get("reason") in _HELPFUL]
    told.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    return list(dict.fromkeys(f"{each.get('reason', '')}: {str(each.get('message', '')).strip()}" for each in told))
