"""The HTTP side of the Kubernetes double: paths, selectors, watches, log streams, and the rights for each."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kubernetes_rules
import yaml
from kubernetes_double import KINDS, NAMESPACE, Answer, Object, Server, not_found

PATH = re.compile(
    r"/(?:api|apis)/(?P<group>.+?)/namespaces/(?P<ns>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<sub>/log)?"
)
EVENT_FIELDS = {"involvedObject.uid", "involvedObject.name", "involvedObject.kind", "reason", "type", "metadata.name"}


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
                raise not_found(plural, name)
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
            raise not_found("pods", name)
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
