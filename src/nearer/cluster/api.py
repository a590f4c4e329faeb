"""The calls that nearer makes to an API server, as plain mappings in and out.

The official client is used for what it is good at: configuration, credentials, TLS, proxies. Its generated methods are
left aside: they do not know `sinceTime` of a log, and its models refuse answers that the server may give. Its watch and
its log follow hang on a connection that died silently (kubernetes-client/python#1234, #728); here every stream has an
end that is known.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nearer.cluster.answers import TRANSIENT, Refusal, Unreachable, refusal_of
from nearer.cluster.connect import Connection
from nearer.cluster.patience import Patience

Object = dict[str, Any]

_PLACES: Mapping[str, tuple[str, str]] = {
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
}
"""Kind: its group's path, and its plural."""


class Cluster:
    """One namespace of one cluster. Safe to use from several threads.

    Every method raises `Refusal` when the server says no and `Unreachable` when there is no answer after all attempts;
    streams make one attempt. Credentials that ran out are read again once.

    Args:
        connect: reads the configuration and makes a connection.
        patience: how long to wait.
    """

    def __init__(self, connect: Callable[[], Connection], *, patience: Patience | None = None) -> None:
        self._connect = connect
        self._connection = connect()
        self._lock = threading.Lock()
        self.patience = patience or Patience()
        self.namespace = self._connection.namespace
        self.where = self._connection.where

    def with_patience(self, patience: Patience) -> Cluster:
        """The same connection, with other ideas of how long to wait."""
        other = copy.copy(self)
        other.patience = patience
        return other

    def version(self) -> str:
        """The server's version, e.g. `1.36`."""
        answer = self._ask("GET", "/version")
        return f"{answer['major']}.{str(answer['minor']).rstrip('+')}"

    def get(self, kind: str, name: str) -> Object | None:
        """One object; None if there is none."""
        return self.get_at(self._path(kind, name))

    def get_at(self, path: str, *, query: Mapping[str, str] | None = None) -> Object | None:
        """What stands at a path of the API; None if nothing does, or the path itself is unknown."""
        try:
            return self._ask("GET", path, query=query)
        except Refusal as refusal:
            if refusal.code == 404:
                return None
            raise

    def find(self, kind: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All objects that the selectors match, and the resource version that a watch can begin at."""
        answer = self._ask("GET", self._path(kind), query={"labelSelector": labels, "fieldSelector": fields})
        return answer.get("items") or [], str(answer["metadata"].get("resourceVersion", ""))

    def watch(self, kind: str, *, labels: str = "", fields: str = "", since: str) -> Iterator[Object]:
        """Changes after a resource version as `{"type", "object"}`, until the server ends the watch.

        Raises:
            Refusal: 410 when that version is too old by now, in whichever of its two ways the server says so.
        """
        seconds = self.patience.watch_seconds
        query = {"labelSelector": labels, "fieldSelector": fields, "resourceVersion": since, "watch": "true",
                 "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}  # fmt: skip
        # Longer than the watch itself: only a connection that died silently runs into it.
        silence = seconds + self.patience.answer_seconds
        for line in lines_of(self._stream(self._path(kind), query=query, silence_seconds=silence)):
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise refusal_of(code=int(status.get("code") or 500), body=json.dumps(status))
            yield event

    def log(self, pod: str, *, container: str, since: str | None, follow: bool) -> Iterator[bytes]:
        """The bytes of a container's log as they arrive, each line begun by its timestamp.

        Args:
            pod: its name.
            container: its container.
            since: RFC 3339; the server rounds it down to the second.
            follow: whether to wait for more until the container ends.
        """
        query = {"container": container, "timestamps": "true", "sinceTime": since or "", "follow": str(follow).lower()}
        path = f"{self._path('Pod', pod)}/log"
        silence = self.patience.silence_seconds if follow else self.patience.answer_seconds
        return self._stream(path, query=query, silence_seconds=silence)

    def create(self, item: Object, *, dry_run: bool = False) -> tuple[Object, list[str]]:
        """Create an object, strictly validated; the object as it stands, and the server's warnings."""
        return self._write("POST", self._path(item["kind"]), item, query={}, dry_run=dry_run)

    def apply(self, item: Object, *, manager: str, dry_run: bool = False) -> tuple[Object, list[str]]:
        """Create the object or make it so (server-side apply), strictly validated, whoever else wrote to it."""
        path = self._path(item["kind"], item["metadata"]["name"])
        return self._write(
            "PATCH",
            path,
            item,
            query={"fieldManager": manager, "force": "true"},
            content_type="application/apply-patch+yaml",
            dry_run=dry_run,
        )

    def change(self, kind: str, name: str, spec: Object) -> None:
        """Change fields of an object's spec (merge patch); None removes one."""
        self._write(
            "PATCH",
            self._path(kind, name),
            {"spec": spec},
            query={"fieldManager": "nearer"},
            content_type="application/merge-patch+json",
            dry_run=False,
        )

    def delete(self, kind: str, name: str, *, uid: str) -> bool:
        """Delete this very object once all that depends on it is gone (foreground); whether it was still there."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        try:
            self._ask("DELETE", self._path(kind, name), body={**body, "preconditions": {"uid": uid}})
        except Refusal as refusal:
            if refusal.code in {404, 409}:  # 409: another object has the name by now
                return False
            raise
        return True

    def may(self, verb: str, resource: str, *, group: str = "", subresource: str = "", namespaced: bool = True) -> bool:
        """Whether these credentials may do that here (SelfSubjectAccessReview)."""
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, **({"namespace": self.namespace} if namespaced else {})}},
        }
        answer = self._ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
        return bool(answer["status"]["allowed"])

    def _path(self, kind: str, name: str = "") -> str:
        group, plural = _PLACES[kind]
        return f"{group}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def _write(
        self,
        method: str,
        path: str,
        item: Object,
        *,
        query: dict[str, str],
        dry_run: bool,
        content_type: str = "application/json",
    ) -> tuple[Object, list[str]]:
        warnings: list[str] = []
        query = {**query, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        answer = self._ask(method, path, query=query, body=item, content_type=content_type, warnings=warnings)
        return answer, warnings

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        warnings: list[str] | None = None,
    ) -> Object:
        pauses = self.patience.pauses()
        for attempt in range(1, self.patience.attempts + 1):
            try:
                response = self._request(
                    method,
                    path,
                    query=query or {},
                    body=body,
                    content_type=content_type,
                    silence_seconds=self.patience.answer_seconds,
                )
                answer: Object = json.loads(_data(response))
            except (Refusal, Unreachable) as error:
                transient = isinstance(error, Unreachable) or error.code in TRANSIENT
                if not transient or attempt == self.patience.attempts:
                    raise
                time.sleep(next(pauses))
            else:
                if warnings is not None:
                    warnings += [_warning(text) for text in response.headers.getlist("Warning")]
                return answer
        raise AssertionError  # the last attempt returns or raises

    def _stream(self, path: str, *, query: Mapping[str, str], silence_seconds: float) -> Iterator[bytes]:
        response = self._request("GET", path, query=query, body=None, content_type="", silence_seconds=silence_seconds)
        errors = _http_errors()
        try:
            yield from response.stream(1 << 16, decode_content=False)
        except errors as error:
            raise Unreachable(_short(error)) from error
        finally:
            response.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        silence_seconds: float,
    ) -> Any:
        """One attempt, two if the credentials ran out; the open response."""
        connection = self._connection

        def attempt(by: Connection) -> Any:
            return self._attempt(
                by, method, path, query=query, body=body, content_type=content_type, silence_seconds=silence_seconds
            )

        try:
            return attempt(connection)
        except Refusal as refusal:
            if refusal.code != 401:
                raise
        with self._lock:
            if self._connection is connection:
                self._connection = self._connect()
        return attempt(self._connection)

    def _attempt(
        self,
        connection: Connection,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        silence_seconds: float,
    ) -> Any:
        client = connection.client
        headers = {"Accept": "application/json, */*", **({"Content-Type": content_type} if body else {})}
        request = client.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        from kubernetes.client import ApiException

        try:
            timeouts = (self.patience.connect_seconds, silence_seconds)
            response = client.call_api(*request, _request_timeout=timeouts).response
            if 200 <= response.status <= 299:
                return response
            raise refusal_of(code=response.status, body=_data(response), reason=response.reason)
        except _http_errors() as error:
            raise Unreachable(_short(error)) from error
        except ApiException as error:  # TLS: the client wraps it so
            raise Unreachable(str(error.reason or error)) from error


def lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their end; what is left after the last one is dropped."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)


def _data(response: Any) -> bytes:
    try:
        data: bytes = response.data
    except _http_errors() as error:
        raise Unreachable(_short(error)) from error
    return data


def _http_errors() -> tuple[type[Exception], ...]:
    import urllib3

    return (urllib3.exceptions.HTTPError, OSError)


def _short(error: BaseException) -> str:
    """The reason within urllib3's wrappings, without the addresses of its objects."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    if isinstance(inner, BaseException):
        return _short(inner)
    return str(error).rpartition(": ")[2] if "object at 0x" in str(error) else str(error)


def _warning(header: str) -> str:
    """The text of a warning header, `299 - "text"`."""
    return header.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or header
