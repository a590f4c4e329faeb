"""A Kubernetes API server as far as `nearer submit` talks to one (kubernetes_http), for the official client.

It is as strict as the real one where that can be had cheaply: schemas (kubernetes-validate, strict), semantic rules
(kubernetes_rules), names, preconditions, immutable fields, server-side apply, owner references and what their garbage
collection does, resource versions, and the rights of the manifest in docs/. What happens to pods is no guess of this
file: each test says it step by step (kubernetes_life).
"""

import copy
import functools
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kubernetes_rules
import kubernetes_validate

Object = dict[str, Any]
Key = tuple[str, str]

VERSION = "1.36"
NAMESPACE = "rag"
OWNER_FIELDS = {"apiVersion", "kind", "name", "uid", "blockOwnerDeletion", "controller"}
CREATED = "2026-11-25T09:00:00Z"
KINDS = {
    "jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "events": ("v1", "Event"), "configmaps": ("v1", "ConfigMap"),
    "services": ("v1", "Service"), "serviceaccounts": ("v1", "ServiceAccount"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "workloads": ("kueue.x-k8s.io/v1beta1", "Workload"), "localqueues": ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
}  # fmt: skip


class Answer(Exception):
    """A Status instead of an object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "reason": reason, "code": code}  # fmt: skip


@dataclass
class Log:
    """The file that the node has of a container's output, and how its stream behaves."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    open_end: str | None = None
    """What was written last, without a line end."""
    ended: bool = False
    waiting: str | None = "ContainerCreating"
    cut_every: int | None = None
    """Lines after which the connection is torn, in the middle of the next one."""
    close_every: int | None = None
    """Lines after which the stream ends as if nothing were wrong."""
    answer: Answer | None = None
    """Given instead of the log, as long as it is set."""
    words: str | None = None
    """What the node says instead of a log, without a timestamp and with 200."""
    file: int = 0
    """Counts rotations: who reads an older file has come to its end."""
    sent: int = 0
    """Lines handed out, also those that were sent twice."""


class Server:
    """The objects, their history, and who may do what."""

    def __init__(self, rules: list[Object] | None = None, *, pod_security: str = "privileged") -> None:
        self.objects: dict[Key, Object] = {}
        self.logs: dict[str, Log] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.changed = threading.Condition()
        self.revision = 100
        self.oldest = 0
        """Watches from before this revision are told 410."""
        self.rules = rules
        self.pod_security = pod_security
        self.nodes: list[Object] = []
        self.requests: list[tuple[str, str, str]] = []
        """Verb, resource and path of every request."""
        self.applied: dict[tuple[Key, str], set[str]] = {}
        self.fail_next: list[tuple[str, str, Answer | None]] = []
        """Verb, resource and the answer that the next such request gets; None: the connection is cut."""
        self.down = False
        self.cut_watches = 0
        self.on_job: Callable[[Object], None] | None = None
        self.on_delete_job: Callable[[Object], None] | None = None

    # What the control plane does.

    def put(self, plural: str, item: Object, *, how: str = "MODIFIED") -> Object:
        """Write an object, whatever stood there, and tell the watchers."""
        with self.changed:
            item = copy.deepcopy(item)
            self.revision += 1
            item["metadata"]["resourceVersion"] = str(self.revision)
            key = (plural, item["metadata"]["name"])
            if how == "ADDED":
                item["metadata"].setdefault("uid", str(uuid.uuid4()))
                item["metadata"].setdefault("creationTimestamp", CREATED)
                item["metadata"].setdefault("namespace", NAMESPACE)
            if how == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = item
            self.history.append((self.revision, how, plural, item))
            self.changed.notify_all()
            return copy.deepcopy(item)

    def get(self, plural: str, name: str) -> Object | None:
        with self.changed:
            return copy.deepcopy(self.objects.get((plural, name)))

    def all(self, plural: str) -> list[Object]:
        with self.changed:
            return [copy.deepcopy(item) for (kind, _), item in sorted(self.objects.items()) if kind == plural]

    def remove(self, plural: str, name: str) -> None:
        """Delete at once, and then what it alone owned."""
        with self.changed:
            item = self.objects.get((plural, name))
            if item is None:
                return
            self.put(plural, item, how="DELETED")
            living = {each["metadata"]["uid"] for each in self.objects.values()}
            orphans = [
                (kind, each["metadata"]["name"])
                for (kind, _), each in self.objects.items()
                if (owners := each["metadata"].get("ownerReferences"))
                and not any(owner["uid"] in living for owner in owners)
            ]
        for kind, orphan in orphans:
            self.remove(kind, orphan)

    def forget(self) -> None:
        """Compact: who watches from an older revision must list again. Open watches end."""
        with self.changed:
            self.revision += 1
            self.oldest = self.revision
            self.cut_watches += 1
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Until something is so; a test that waits for what never happens fails with its name."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=60), f"never came: {what}"

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    # What the requests do.

    def create(self, plural: str, item: Object, *, dry_run: bool) -> Object:
        self._validate(plural, item)
        if item["metadata"].get("resourceVersion"):
            raise Answer(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        name = item["metadata"]["name"]
        with self.changed:
            if (plural, name) in self.objects:
                raise Answer(409, "AlreadyExists", f'{plural}.batch "{name}" already exists')
            new = copy.deepcopy(item)
            if plural == "jobs":
                _default_job(new)
            if dry_run:
                return {**new, "metadata": {**new["metadata"], "uid": str(uuid.uuid4())}}
            new = self.put(plural, new, how="ADDED")
        if plural == "jobs" and self.on_job:
            self.on_job(new)
        return new

    def apply(self, plural: str, item: Object, *, manager: str, dry_run: bool) -> Object:
        if not manager:
            raise Answer(422, "Invalid", "fieldManager: Required value: is required for apply patch")
        self._validate(plural, item)
        key = (plural, item["metadata"]["name"])
        with self.changed:
            old = self.objects.get(key)
            owners = {each["uid"]: each for each in item["metadata"].get("ownerReferences", [])}
            if old is None:
                if dry_run:
                    return item
                self.applied[key, manager] = set(owners)
                return self.put(plural, item, how="ADDED")
            if old.get("immutable") and old["data"] != item["data"]:
                raise Answer(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")
            kept = {each["uid"]: each for each in old["metadata"].get("ownerReferences", [])}
            for uid in self.applied.get((key, manager), set()) - set(owners):
                kept.pop(uid, None)
            new = _merged(old, item)
            new["metadata"]["ownerReferences"] = list({**kept, **owners}.values())
            if dry_run or new == old:
                return new
            self.applied[key, manager] = set(owners)
            return self.put(plural, new)

    def change(self, plural: str, name: str, body: Object) -> Object:
        """A merge patch (RFC 7386) of what may change in a Job's spec."""
        with self.changed:
            item = copy.deepcopy(self.objects[plural, name])
            fixed = {"template", "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"}
            if plural != "jobs" or set(body) != {"spec"} or set(body["spec"]) & fixed:
                raise Answer(422, "Invalid", "field is immutable")
            merged = {**item["spec"], **body["spec"]}
            item["spec"] = {key: value for key, value in merged.items() if value is not None}
            return self.put(plural, item)

    def delete(self, plural: str, name: str, body: Object) -> Object:
        with self.changed:
            item = self.objects.get((plural, name))
            if item is None:
                raise not_found(plural, name)
            uid = (body.get("preconditions") or {}).get("uid")
            if uid and uid != item["metadata"]["uid"]:
                raise Answer(409, "Conflict", "Precondition failed: UID in precondition does not match")
            if plural != "jobs":
                self.remove(plural, name)
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            assert body.get("propagationPolicy") == "Foreground"
            item = copy.deepcopy(item)
            item["metadata"] |= {"deletionTimestamp": CREATED, "finalizers": ["foregroundDeletion"]}
            item = self.put(plural, item)
        threading.Thread(target=self._end_job, args=(item,), daemon=True).start()
        return item

    def _end_job(self, job: Object) -> None:
        if self.on_delete_job:
            self.on_delete_job(job)
        with self.changed:
            for (plural, name), item in list(self.objects.items()):
                owners = item["metadata"].get("ownerReferences", [])
                mine = [
                    each for each in owners if each["uid"] == job["metadata"]["uid"] and each.get("blockOwnerDeletion")
                ]
                others = [each for each in owners if each not in mine]
                if mine and not others:
                    self.remove(plural, name)
                elif mine:
                    self.put(plural, {**item, "metadata": {**item["metadata"], "ownerReferences": others}})
        self.remove("jobs", job["metadata"]["name"])

    def _validate(self, plural: str, item: Object) -> None:
        expected = KINDS[plural]
        if (item.get("apiVersion"), item.get("kind")) != expected:
            raise Answer(400, "BadRequest", f"the object is {item.get('kind')}, expected {expected[1]}")
        meta = {key: value for key, value in item["metadata"].items() if key != "ownerReferences"}  # looked at below
        if wrong := _schema_error(json.dumps({**item, "metadata": meta})):
            raise Answer(400, "BadRequest", f"strict decoding error: {wrong}")
        found = list(kubernetes_rules.metadata(item))
        for owner in item["metadata"].get("ownerReferences", []):
            found += [f"ownerReferences.{name}: unknown field" for name in set(owner) - OWNER_FIELDS]
            found += [
                f"ownerReferences.{name}" for name in ("apiVersion", "kind", "name", "uid") if not owner.get(name)
            ]
        if plural == "jobs":
            found += [*kubernetes_rules.job(item), *kubernetes_rules.pod(item["spec"]["template"]["spec"])]
        if found:
            raise Answer(422, "Invalid", f"{item['kind']} {item['metadata']['name']} is invalid: {found[0]}")

    def may(self, verb: str, group: str, resource: str) -> bool:
        if self.rules is None:
            return True
        return any(
            verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
            for rule in self.rules
        )


@functools.cache
def _schema_error(item: str) -> str:
    """What Kubernetes' own schema says against it; most tests send the same objects."""
    try:
        kubernetes_validate.validate(json.loads(item), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


def _default_job(job: Object) -> None:
    """What the server adds to a Job without a selector of its own."""
    uid = str(uuid.uuid4())
    name = job["metadata"]["name"]
    job["metadata"]["uid"] = uid
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/controller-uid": uid}
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    job["spec"]["template"]["metadata"]["labels"] |= labels
    job["spec"].setdefault("suspend", False)
    job["spec"].setdefault("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in job["spec"] else 6)
    if "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]:
        job["spec"]["suspend"] = True  # Kueue's webhook
    job["status"] = {}


def _merged(lower: Any, upper: Any) -> Any:
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return copy.deepcopy(upper)
    return {key: _merged(lower.get(key), upper[key]) if key in upper else lower[key] for key in {**lower, **upper}}


def not_found(plural: str, name: str) -> Answer:
    return Answer(404, "NotFound", f'{plural} "{name}" not found')
