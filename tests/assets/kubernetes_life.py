"""What happens to a Job's pods, step by step, as Job controller, scheduler and kubelet write it down."""

import copy
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes_double import NAMESPACE, Log, Object, Server

START = datetime(2026, 11, 25, 9, 0, 10, tzinfo=UTC)


class Life:
    """The control plane of one Job."""

    def __init__(self, api: Server, job: Object) -> None:
        self.api = api
        self.run: str = job["metadata"]["name"]
        self.uid: str = job["metadata"]["uid"]
        self._clock = START

    def now(self, *, seconds: float = 0.25) -> str:
        """The next instant, with nine digits as a container runtime writes it."""
        self._clock += timedelta(seconds=seconds)
        return self._clock.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"

    # The Job.

    def job(self, **status: Any) -> None:
        """Change the Job's status."""
        job = self.api.get("jobs", self.run)
        assert job
        job["status"] = {**job["status"], **status}
        self.api.put("jobs", job)

    def admit(self) -> None:
        """Kueue lets it start."""
        job = self.api.get("jobs", self.run)
        assert job
        job["spec"]["suspend"] = False
        self.api.put("jobs", job)

    def complete(self) -> None:
        """As the Job controller does: first the decision, then, when all pods are gone or done, the end."""
        self.job(conditions=[_condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of pods")])
        self.job(
            succeeded=1,
            active=0,
            conditions=[
                _condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of pods"),
                _condition("Complete", "CompletionsReached", "Reached expected number of pods"),
            ],
        )

    def fail(self, reason: str, message: str) -> None:
        """Likewise, for the worse."""
        self.job(conditions=[_condition("FailureTarget", reason, message)])
        self.job(
            failed=1,
            active=0,
            conditions=[_condition("FailureTarget", reason, message), _condition("Failed", reason, message)],
        )

    # Pods.

    def pod(self, suffix: str, *, index: int | None = None) -> str:
        """The Job controller makes a pod; its name."""
        job = self.api.get("jobs", self.run)
        assert job
        template = job["spec"]["template"]
        account = template["spec"]["serviceAccountName"]
        assert account == "default" or self.api.get("serviceaccounts", account), "no pod without its service account"
        name = f"{self.run}-{suffix}" if index is None else f"{self.run}-{index}-{suffix}"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.run, "uid": self.uid, "controller": True,
                 "blockOwnerDeletion": True}  # fmt: skip
        annotations = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
        meta = {"name": name, "labels": template["metadata"]["labels"], "annotations": annotations,
                "ownerReferences": [owner]}  # fmt: skip
        item = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": copy.deepcopy(template["spec"]),
                "status": {"phase": "Pending"}}  # fmt: skip
        self.api.logs[name] = Log()
        self.api.put("pods", item, how="ADDED")
        return name

    def status(self, name: str, **status: Any) -> None:
        """Change a pod's status."""
        pod = self.api.get("pods", name)
        assert pod
        pod["status"] = {**pod["status"], **status}
        self.api.put("pods", pod)

    def unschedulable(self, name: str, message: str) -> None:
        """The scheduler finds no node."""
        self.status(
            name,
            conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
        )
        self.event("pods", name, reason="FailedScheduling", message=message)

    def waits(self, name: str, reason: str, message: str) -> None:
        """The kubelet cannot start the container."""
        self.api.logs[name].waiting = reason
        self._container(name, {"waiting": {"reason": reason, "message": message}}, phase="Pending")

    def start(self, name: str) -> None:
        """The container runs; not before its settings can be mounted, and by then all else must stand."""
        api = self.api
        api.wait(lambda: ("configmaps", self.run) in api.objects, f"the settings of {self.run}")
        assert api.get("networkpolicies", self.run), "no container runs without its network policy"
        pod = api.get("pods", name)
        assert pod
        pod["spec"]["nodeName"] = "node-1"
        api.put("pods", pod)
        api.logs[name].waiting = None
        self._container(name, {"running": {"startedAt": _seconds(START)}}, phase="Running")

    def write(self, name: str, *lines: str, seconds: float = 0.25) -> None:
        """The container writes."""
        with self.api.changed:
            self.api.logs[name].lines += [(self.now(seconds=seconds), line) for line in lines]
            self.api.changed.notify_all()

    def rotate(self, name: str) -> None:
        """The node begins a new file; the server hands out nothing of the old one any more."""
        with self.api.changed:
            log = self.api.logs[name]
            log.file += 1
            log.lines.clear()
            self.api.changed.notify_all()

    def asked(self, resource: str, times: int, *, verb: str = "") -> None:
        """Wait until somebody has asked for it so often."""

        def asked() -> bool:
            return len([each for each in self.api.requests if each[1] == resource and verb in each[0]]) >= times

        self.api.wait(asked, f"{times} requests for {resource}")

    def read(self, name: str, lines: int) -> None:
        """Wait until somebody was sent so many lines."""
        self.api.wait(lambda: self.api.logs[name].sent >= lines, f"{lines} lines of {name} read")

    def end(self, name: str, code: int, *, reason: str = "", message: Any = "", **status: Any) -> None:
        """The container ends, and its stream with it."""
        with self.api.changed:
            self.api.logs[name].ended = True
            self.api.changed.notify_all()
        terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message if isinstance(message, str) else json.dumps(message),
            "startedAt": _seconds(START),
            "finishedAt": _seconds(self._clock),
        }
        self._clock += timedelta(seconds=1)
        phase = "Succeeded" if code == 0 else "Failed"
        self._container(name, {"terminated": terminated}, phase=phase, **status)

    def vanish(self, name: str) -> None:
        """The pod's object goes away."""
        self.api.remove("pods", name)

    def event(self, plural: str, name: str, *, reason: str, message: str, kind: str = "Warning") -> None:
        """Somebody says something about an object."""
        about = self.api.get(plural, name)
        assert about
        meta = about["metadata"]
        self.api.put(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{name}.{uuid.uuid4().hex[:8]}"},
                "involvedObject": {"kind": about["kind"], "name": name, "namespace": NAMESPACE, "uid": meta["uid"]},
                "type": kind,
                "reason": reason,
                "message": message,
                "firstTimestamp": None,
                "lastTimestamp": None,
                "eventTime": self.now(),
            },
            how="ADDED",
        )

    def _container(self, name: str, state: Object, *, phase: str, **status: Any) -> None:
        statuses = [{"name": "nearer", "state": state, "containerID": "containerd://1", "restartCount": 0}]
        self.status(name, phase=phase, containerStatuses=statuses, **status)


def disruption(reason: str, message: str) -> list[Object]:
    """The condition of a pod that was evicted, preempted or drained."""
    return [_condition("DisruptionTarget", reason, message)]


def _condition(kind: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def _seconds(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
