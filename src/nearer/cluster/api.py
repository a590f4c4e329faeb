"""The calls that nearer makes to an API server, as plain mappings in and out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping

from nearer.cluster.answers import Refusal, refusal_of
from nearer.cluster.connect import Connection
from nearer.cluster.patience import Patience
from nearer.cluster.transport import Object, Transport

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
    """One namespace of one cluster. Safe to use from several threads; every method raises what `Transport` does.

    Args:
        connect: reads the configuration and makes a connection.
        patience: how long to wait.
    """

    def __init__(self, connect: Callable[[], Connection], *, patience: Patience | None = None) -> None:
        self._transport = Transport(connect, patience=patience or Patience())

    @property
    def patience(self) -> Patience:
        """How long to wait."""
        return self._transport.patience

    @property
    def namespace(self) -> str:
        """The namespace that everything happens in."""
        return self._transport.namespace

    @property
    def where(self) -> str:
        """The server, for people."""
        return self._transport.where

    def with_patience(self, patience: Patience) -> Cluster:
        """The same connection, with other ideas of how long to wait."""
        other = copy.copy(self)
        other._transport = self._transport.with_patience(patience)  # noqa: SLF001 - of this class
        return other

    def version(self) -> str:
        """The server's version, e.g. `1.36`."""
        answer = self._transport.ask("GET", "/version")
        return f"{answer['major']}.{str(answer['minor']).rstrip('+')}"

    def get(self, kind: str, name: str) -> Object | None:
        """One object; None if there is none."""
        return self.get_at(self._path(kind, name))

    def get_at(self, path: str, *, query: Mapping[str, str] | None = None) -> Object | None:
        """What stands at a path of the API; None if nothing does, or the path itself is unknown."""
        try:
            return self._transport.ask("GET", path, query=query)
        except Refusal as refusal:
            if refusal.code == 404:
                return None
            raise

    def find(self, kind: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """All objects that the selectors match, and the resource version that a watch can begin at."""
        answer = self._transport.ask("GET", self._path(kind), query={"labelSelector": labels, "fieldSelector": fields})
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
        for line in lines_of(self._transport.stream(self._path(kind), query=query, silence_seconds=silence)):
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
        return self._transport.stream(path, query=query, silence_seconds=silence)

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
            self._transport.ask("DELETE", self._path(kind, name), body={**body, "preconditions": {"uid": uid}})
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
        answer = self._transport.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
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
        answer = self._transport.ask(method, path, query=query, body=item, content_type=content_type, warnings=warnings)
        return answer, warnings


def lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their end; what is left after the last one is dropped."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
