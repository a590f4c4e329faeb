"""A Kubernetes API server as far as `nearer submit` talks to one, over HTTP, for the official client.

It is as strict as the real one where that can be had cheaply: schemas (kubernetes-validate, strict), semantic rules
(kubernetes_rules), names, preconditions, immutable fields, server-side apply, owner references and what their garbage
collection does, resource versions, and the rights of the manifest in docs/. What happens to pods is no guess of this
file: each test says it step by step (kubernetes_life).
"""

import copy
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kubernetes_rules
import kubernetes_validate
import yaml

Object = dict[str, Any]
Key = tuple[str, str]

VERSION = "1.36"
NAMESPACE = "rag"
CREATED = "2026-11-25T09:00:00Z"
KINDS = {
    "jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod"), "events": ("v1", "Event"), "configmaps": ("v1", "ConfigMap"),
    "services": ("v1", "Service"), "serviceaccounts": ("v1", "ServiceAccount"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim"),
    "workloads": ("kueue.x-k8s.io/v1beta1", "Workload"), "localqueues": ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
}  # fmt: skip
PATH = re.compile(
    r"/(?:api|apis)/(?P<group>.+?)/namespaces/(?P<ns>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<sub>/log)?"
)
EVENT_FIELDS = {"involvedObject.uid", "involvedObject.name", "involvedObject.kind", "reason", "type", "metadata.name"}


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
                raise _not_found(plural, name)
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
        try:
            kubernetes_validate.validate(item, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Answer(400, "BadRequest", f"strict decoding error: {error.message}") from error
        found = list(kubernetes_rules.metadata(item))
        for owner in item["metadata"].get("ownerReferences", []):
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


def _not_found(plural: str, name: str) -> Answer:
    return Answer(404, "NotFound", f'{plural} "{name}" not found')


def _matches(item: Object, *, labels: str, fields: str) -> bool:
    own = item["metadata"].get("labels", {})
    for part in filter(None, labels.split(",")):
        key, _, value = part.partition("=")
        if own.get(key) != value:
            return False
    for part in filter(None, fields.split(",")):
        path, _, value = part.partition("=")
        if path not in (EVENT_FIELDS if item.get("kind") == "Event" else {"metadata.name", "metadata.namespace"}):
            raise Answer(400, "BadRequest", f"field label not supported: {path}")
        found: Any = item
        for name in path.split("."):
            found = found.get(name, {})
        if found != value:
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    """Requests to the server; `server.api` is the Server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> Server:
        return self.server.api  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        warnings: list[str] = []
        try:
            if self.api.down:
                raise ConnectionError
            found = self._route(method, parts.path, query, body, warnings)
        except Answer as answer:
            self._json(answer.code, answer.status)
        except ConnectionError:
            self.close_connection = True
            self.connection.close()
        else:
            if found is not None:
                self._json(201 if method == "POST" else 200, found, warnings)

    def _route(self, method: str, path: str, query: dict[str, str], body: Object, warnings: list[str]) -> Object | None:
        if path == "/version":
            return {"major": "1", "minor": "36+", "gitVersion": "v1.36.0"}
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
            return {**body, "status": {"allowed": self.api.may(asked["verb"], asked.get("group", ""), resource)}}
        if path == "/api/v1/nodes":
            self._allow("list", "", "nodes", path)
            return {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": self.api.nodes}
        found = PATH.fullmatch(path)
        if not found or found["plural"] not in KINDS or KINDS[found["plural"]][0] != found["group"]:
            raise Answer(404, "NotFound", "the server could not find the requested resource")
        assert found["ns"] == NAMESPACE
        plural, name = found["plural"], found["name"]
        group = found["group"].rpartition("/")[0]
        if found["sub"]:
            self._allow("get", group, "pods/log", path)
            return self._log(name, query)
        if method == "GET" and name:
            self._allow("get", group, plural, path)
            item = self.api.get(plural, name)
            if item is None:
                raise _not_found(plural, name)
            return item
        if method == "GET" and query.get("watch"):
            self._allow("watch", group, plural, path)
            return self._watch(plural, query)
        if method == "GET":
            self._allow("list", group, plural, path)
            selected = [
                item
                for item in self.api.all(plural)
                if _matches(item, labels=query.get("labelSelector", ""), fields=query.get("fieldSelector", ""))
            ]
            version, kind = KINDS[plural]
            meta = {"resourceVersion": str(self.api.revision)}
            return {"kind": f"{kind}List", "apiVersion": version, "metadata": meta, "items": selected}
        if method == "DELETE":
            self._allow("delete", group, plural, path)
            return self.api.delete(plural, name, body)
        dry_run = query.get("dryRun") == "All"
        assert query.get("fieldValidation") == "Strict"
        if plural == "jobs" and self.api.pod_security == "restricted":
            found_bad = list(kubernetes_rules.restricted(body["spec"]["template"]["spec"]))
            warnings += [f'would violate PodSecurity "restricted:latest": {each}' for each in found_bad]
        if method == "PATCH":
            self._allow("patch", group, plural, path)
            if self.headers["Content-Type"] == "application/merge-patch+json":
                return self.api.change(plural, name, body)
            assert self.headers["Content-Type"] == "application/apply-patch+yaml"
            if self.api.get(plural, name) is None:
                self._allow("create", group, plural, path)
            assert name == body["metadata"]["name"]
            return self.api.apply(plural, body, manager=query.get("fieldManager", ""), dry_run=dry_run)
        self._allow("create", group, plural, path)
        return self.api.create(plural, body, dry_run=dry_run)

    def _allow(self, verb: str, group: str, resource: str, path: str) -> None:
        with self.api.changed:
            self.api.requests.append((verb, resource, path))
            self.api.changed.notify_all()
            for planned in self.api.fail_next:
                if planned[:2] == (verb, resource):
                    self.api.fail_next.remove(planned)
                    raise planned[2] or ConnectionError
        if not self.api.may(verb, group, resource):
            raise Answer(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "ci" cannot {verb} resource "{resource}" in API group "{group}" '
                f'in the namespace "{NAMESPACE}"',
            )

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        api, since = self.api, int(query["resourceVersion"])
        self._start_stream("application/json")
        if since < api.oldest:
            status = Answer(410, "Expired", f"too old resource version: {since} ({api.oldest})").status
            self._chunk(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            self._end_stream()
            return
        seen, cut = since, api.cut_watches
        seconds = float(query["timeoutSeconds"])
        while True:
            with api.changed:
                news = lambda: [each for each in api.history if each[0] > seen]  # noqa: E731
                ended = not api.changed.wait_for(lambda: news() or api.cut_watches != cut or api.down, timeout=seconds)
                events = news()
                over = ended or api.cut_watches != cut
                down = api.down
            if down:
                raise ConnectionError
            for revision, how, kind, item in events:
                seen = revision
                selectors = {"labels": query.get("labelSelector", ""), "fields": query.get("fieldSelector", "")}
                if kind == plural and _matches(item, **selectors):
                    self._chunk(json.dumps({"type": how, "object": item}).encode() + b"\n")
            if over:
                self._end_stream()
                return

    def _log(self, name: str, query: dict[str, str]) -> None:
        api = self.api
        if api.get("pods", name) is None:
            raise _not_found("pods", name)
        log = api.logs[name]
        if log.answer:
            raise log.answer
        if log.waiting:
            raise Answer(400, "BadRequest", f'container "nearer" in pod "{name}" is waiting to start: {log.waiting}')
        assert query["container"] == "nearer"
        assert query["timestamps"] == "true"
        self._start_stream("text/plain")
        if log.words:
            self._chunk(log.words.encode())
            self._end_stream()
            return
        # metav1.Time: down to the second.
        since = query.get("sinceTime", "")[:19]
        follow = query.get("follow") == "true"
        at = sent = 0
        file = log.file
        while True:
            with api.changed:
                ready = lambda: len(log.lines) > at or log.ended or not follow or api.down or log.file != file  # noqa: E731
                api.changed.wait_for(ready, timeout=20)
                rotated = log.file != file
                lines, at = ([], 0) if rotated else (log.lines[at:], len(log.lines))
                over = log.ended or not follow or rotated
                down = api.down
            if down:
                raise ConnectionError
            for stamp, text in lines:
                if stamp[:19] < since:
                    continue
                line = f"{stamp} {text}\n".encode()
                if log.cut_every is not None and sent == log.cut_every:
                    self._chunk(line[: len(line) // 2])
                    raise ConnectionError
                if log.close_every is not None and sent == log.close_every:
                    self._end_stream()
                    return
                self._chunk(line)
                sent += 1
                with api.changed:
                    log.sent += 1
                    api.changed.notify_all()
            if over:
                if log.open_end is not None and log.ended:
                    self._chunk(log.open_end.encode())
                self._end_stream()
                return

    def _json(self, code: int, item: Object, warnings: list[str] | None = None) -> None:
        body = json.dumps(item).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for text in warnings or []:
            self.send_header("Warning", '299 - "' + text.replace('"', '\\"') + '"')
        self.end_headers()
        self.wfile.write(body)

    def _start_stream(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api

    def handle_error(self, *_: object) -> None:
        """A follower that has seen enough closes its connection."""


@contextmanager
def serving(api: Server, directory: Path) -> Iterator[Path]:
    """The server on loopback, and the kubeconfig that leads to it."""
    with _Http(api) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        config = directory / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{http.server_port}"}
        context = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "double", "context": context}],
            "current-context": "double",
        }
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        yield config
        with api.changed:
            api.down = True
            api.changed.notify_all()
        http.shutdown()
        thread.join()
