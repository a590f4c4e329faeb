"""Could a run start here: rights, queue, nodes with such GPUs, claims, and a store that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from nearer.cluster import nodes, rights
from nearer.cluster.answers import Refusal, Unreachable, told
from nearer.cluster.api import Cluster
from nearer.cluster.jobfile import JobFile
from nearer.cluster.render import Run, render
from nearer.cluster.submit import ask_server
from nearer.cluster.waiting import KUEUE_VERSIONS, QUEUE_LABEL
from nearer.errors import NearerError

Object = dict[str, Any]

_OLDEST = (1, 31)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look brought.

    Args:
        about: what was looked at.
        state: fine; wrong, a run would not start or not end well; unknown, it could not be found out from here.
        text: in words, with the way out where there is one.
    """

    about: str
    state: Literal["ok", "wrong", "unknown"]
    text: str


def examine(
    cluster: Cluster, *, job: JobFile | None = None, release: str = "doctor", store: Callable[[], object] | None = None
) -> Iterator[Finding]:
    """Look at everything, one finding each, as they come; nothing is touched.

    Args:
        cluster: where runs shall go.
        job: what shall run; without it only what every run needs is looked at.
        release: its name.
        store: reads something from the artifacts' root; None: it is on a claim, which only a pod can see.

    Raises:
        OutOfReach, NoPermission: the cluster does not answer at all, or does not know these credentials.
    """
    try:
        version = cluster.version()
        fine = tuple(map(int, version.split("."))) >= _OLDEST
        yield Finding(
            about="cluster",
            state="ok" if fine else "wrong",
            text=f"Kubernetes {version}, {cluster.where}" + ("" if fine else "; 1.31 or newer is needed"),
        )
        run = render(job, release=release, namespace=cluster.namespace, version=version) if job and fine else None
        yield _rights(cluster, run)
        if run is None:
            yield from _gpus_at_all(cluster)
            return
        yield _dry_run(run, cluster)
        yield from _queue(run, cluster)
        yield _nodes(run, cluster)
        yield from _claims(run, cluster)
    except (Refusal, Unreachable) as error:
        raise told(error, doing="be examined", where=cluster.where) from error
    yield _store(store)


def _rights(cluster: Cluster, run: Run | None) -> Finding:
    lacking = rights.missing(cluster, account=run is None or run.account is not None)
    if not lacking:
        return Finding(about="rights", state="ok", text="these credentials may submit, follow and end runs here")
    by_effect: dict[str, list[str]] = {}
    for right in lacking:
        by_effect.setdefault(right.without, []).append(str(right))
    text = "; ".join(f"{effect} without: {', '.join(names)}" for effect, names in by_effect.items())
    return Finding(about="rights", state="wrong", text=f"{text} (docs/submitter-rbac.yaml grants them)")


def _dry_run(run: Run, cluster: Cluster) -> Finding:
    try:
        warnings = ask_server(run, cluster)
    except NearerError as error:
        return Finding(about="objects", state="wrong", text=error.what)
    if warnings:
        return Finding(about="objects", state="wrong", text="taken, but: " + "; ".join(warnings))
    return Finding(
        about="objects", state="ok", text=f"the server's dry run takes {run.name} and all that belongs to it"
    )


def _queue(run: Run, cluster: Cluster) -> Iterator[Finding]:
    queue = run.job["metadata"]["labels"].get(QUEUE_LABEL)
    if not queue:
        return
    for version in KUEUE_VERSIONS:
        path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{cluster.namespace}/localqueues/{queue}"
        try:
            found = cluster.get_at(path)
        except Refusal as refusal:
            yield Finding(about="queue", state="unknown", text=f"may not be read: {refusal.message}")
            return
        if found is not None:
            yield _of_queue(queue, found)
            return
    text = f"no LocalQueue {queue} in namespace {cluster.namespace}, or no Kueue: the Job would wait for ever"
    yield Finding(about="queue", state="wrong", text=text)


def _of_queue(queue: str, found: Object) -> Finding:
    conditions = (found.get("status") or {}).get("conditions") or []
    inactive = [each for each in conditions if each.get("type") == "Active" and each.get("status") == "False"]
    if inactive:
        return Finding(about="queue", state="wrong", text=f"{queue} is not active: {inactive[0].get('message', '')}")
    target = (found.get("spec") or {}).get("clusterQueue", "?")
    waiting = (found.get("status") or {}).get("pendingWorkloads", 0)
    return Finding(about="queue", state="ok", text=f"{queue} (cluster queue {target}), {waiting} waiting")


def _nodes(run: Run, cluster: Cluster) -> Finding:
    asked = run.container.get("resources", {}).get("requests", {})
    wanted = ", ".join(f"{name} {value}" for name, value in asked.items())
    found = _all_nodes(cluster)
    if isinstance(found, Finding):
        return found
    could, reasons = nodes.fitting(run.pod, found)
    others = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if could:
        shown = ", ".join(could[:3]) + (", …" if len(could) > 3 else "")
        return Finding(
            about="nodes",
            state="ok",
            text=f"{len(could)} of {len(found)} have what a pod asks for ({wanted}): {shown}; whether it is free now, "
            "the scheduler knows",
        )
    return Finding(
        about="nodes",
        state="wrong",
        text=f"none of {len(found)} has what a pod asks for ({wanted}): {others or 'none'}",
    )


def _gpus_at_all(cluster: Cluster) -> Iterator[Finding]:
    found = _all_nodes(cluster)
    if isinstance(found, Finding):
        yield found
        return
    kinds: dict[str, int] = {}
    for node in found:
        for name, value in ((node.get("status") or {}).get("allocatable") or {}).items():
            if "gpu" in name and str(value).isdigit() and int(value):
                kinds[name] = kinds.get(name, 0) + int(value)
    text = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items())) or "no GPU"
    yield Finding(about="nodes", state="ok", text=f"{len(found)} nodes, {text} (a job file says what is needed)")


def _all_nodes(cluster: Cluster) -> list[Object] | Finding:
    try:
        answer = cluster.get_at("/api/v1/nodes")
    except Refusal as refusal:
        return Finding(
            about="nodes",
            state="unknown",
            text=f"these credentials may not list nodes, which are no namespace's: {refusal}",
        )
    return (answer or {}).get("items") or []


def _claims(run: Run, cluster: Cluster) -> Iterator[Finding]:
    for volume in run.pod["volumes"]:
        if "persistentVolumeClaim" not in volume:
            continue
        name = volume["persistentVolumeClaim"]["claimName"]
        try:
            found = cluster.get("PersistentVolumeClaim", name)
        except Refusal as refusal:
            yield Finding(about="claim", state="unknown", text=f"{name} may not be read: {refusal.message}")
            continue
        if found is None:
            yield Finding(about="claim", state="wrong", text=f"no claim {name} in namespace {cluster.namespace}")
        else:
            phase = (found.get("status") or {}).get("phase", "unknown")
            state: Literal["ok", "wrong"] = "wrong" if phase == "Lost" else "ok"
            yield Finding(about="claim", state=state, text=f"{name} is {phase}")


def _store(store: Callable[[], object] | None) -> Finding:
    if store is None:
        return Finding(about="store", state="unknown", text="artifacts are on a claim, which only a pod can see")
    try:
        store()
    except NearerError as error:
        return Finding(about="store", state="wrong", text=f"{error.what} (asked from here, with the credentials here)")
    return Finding(
        about="store", state="ok", text="answers, asked from here with the credentials here; a pod has its own"
    )
