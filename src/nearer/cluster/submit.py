"""A run into the cluster: found, attached to, created, made again, or ended.

The Job comes first, since all else is owned by it. Its pods cannot start before the settings are mounted, and those
come last: so no container runs without its network policy, and a submitter that dies in between leaves a pod that
waits. Submitting again makes what is missing. Nothing is suspended for that: `suspend` belongs to Kueue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nearer import process
from nearer.cluster import state
from nearer.cluster.answers import Refusal, Unreachable, told
from nearer.cluster.api import Cluster
from nearer.cluster.render import RUN_LABEL, Run
from nearer.cluster.transport import Object
from nearer.errors import InputError

Say = Callable[[str], None]

_MANAGER = "nearer"
_CHANGEABLE = ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit")


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of it.

    Args:
        how: `created`; `recreated` after a failure; `attached` to a run that is active; `stored`, it was done already.
        job: as it stands.
    """

    how: Literal["created", "recreated", "attached", "stored"]
    job: Object


def ask_server(run: Run, cluster: Cluster) -> list[str]:
    """Let the server validate every object strictly (a dry run: nothing is written); its warnings.

    Raises:
        InputError: it refuses one, with its own words.
        NoPermission: these credentials may not.
        OutOfReach: there was no answer.
    """
    warnings: list[str] = []
    for item in run.objects:
        what = _words(item)
        try:
            if item["kind"] == "Job":
                warnings += cluster.create(item, dry_run=True)[1]
            elif item["kind"] != "ServiceAccount" or _may_touch(item, cluster):
                warnings += cluster.apply(item, manager=_manager(item, run), dry_run=True)[1]
        except (Refusal, Unreachable) as error:
            if isinstance(error, Refusal) and error.reason == "AlreadyExists":
                continue
            raise told(error, doing=f"create {what}", where=cluster.where) from error
    return list(dict.fromkeys(warnings))


def submit(run: Run, cluster: Cluster, *, say: Say) -> Submitted:
    """Make the run stand in the cluster, whatever stands there now.

    Args:
        run: what was rendered.
        cluster: where to.
        say: told what is waited for.

    Raises:
        InputError: another tool owns the failed Job; the server refuses an object.
        NoPermission: these credentials may not.
        OutOfReach: there was no answer. What is missing by then is made by the next submit.
    """
    again = False
    try:
        while True:
            job = cluster.get("Job", run.name)
            if job is None:
                made = _create(run, cluster)
                if made is None:
                    continue  # somebody else was faster, or our own request had arrived after all
                return Submitted(how="recreated" if again else "created", job=made)
            _check_ours(job, run, cluster)
            if state.is_leaving(job):
                say(f"{run.name} is being deleted; waiting until its pods are gone")
                _wait_gone(job, cluster)
            elif state.is_complete(job):
                return Submitted(how="stored", job=job)
            elif state.failure(job):
                _check_not_helm(job)
                say(f"{run.name} failed; it is made again and goes on from its last checkpoint")
                cluster.delete("Job", run.name, uid=job["metadata"]["uid"])
                again = True
                _wait_gone(job, cluster)
            else:
                if not state.helm_release(job):
                    _complete(run.owned_by(job), cluster)
                    _change(job, run, cluster, say=say)
                return Submitted(how="attached", job=job)
    except (Refusal, Unreachable) as error:
        raise told(error, doing=f"submit {run.name}", where=cluster.where) from error


def cancel(run: Run, cluster: Cluster) -> str:
    """End the run, and let its pods keep what they have; what was done, in words.

    The Job goes when its pods are gone, so a submit right after it waits for them.

    Raises:
        NoPermission: these credentials may not.
        OutOfReach: there was no answer.
    """
    try:
        job = cluster.get("Job", run.name)
        if job is None:
            return f"nothing to end: there is no {run.name} in {cluster.where}" + _others(run, cluster)
        _check_ours(job, run, cluster)
        if state.is_over(job):
            return f"nothing to end: {run.name} is over"
        grace = run.pod.get("terminationGracePeriodSeconds", 30)
        if state.is_leaving(job) or not cluster.delete("Job", run.name, uid=job["metadata"]["uid"]):
            return f"{run.name} is being ended already"
    except (Refusal, Unreachable) as error:
        raise told(error, doing=f"end {run.name}", where=cluster.where) from error
    helm = state.helm_release(job)
    tail = f"; the Helm release {helm} is still there: helm uninstall {helm} -n {cluster.namespace}" if helm else ""
    return f"{run.name} is ending; its pods have {grace} seconds for a last checkpoint{tail}"


def active_siblings(run: Run, cluster: Cluster) -> list[str]:
    """Names of other runs under the same release name that have not ended."""
    labels = f"app.kubernetes.io/name=nearer,app.kubernetes.io/instance={run.release}"
    found, _ = cluster.find("Job", labels=labels)
    names = [str(job["metadata"]["name"]) for job in found if not state.is_over(job) and not state.is_leaving(job)]
    return sorted(name for name in names if name != run.name)


def _create(run: Run, cluster: Cluster) -> Object | None:
    """Everything; None if the Job is there by now."""
    if run.account and _may_touch(run.account, cluster):
        cluster.apply(run.account, manager=_manager(run.account, run))  # pods cannot be made without it
    try:
        job, _ = cluster.create(run.job)
    except Refusal as refusal:
        if refusal.reason == "AlreadyExists":
            return None
        raise
    _complete(run.owned_by(job), cluster)
    return job


def _complete(owned: Run, cluster: Cluster) -> None:
    """What belongs to the Job, in order; what stands already is given its owner."""
    if owned.account and _may_touch(owned.account, cluster):
        cluster.apply(owned.account, manager=_manager(owned.account, owned))
    for item in owned.dependents:
        cluster.apply(item, manager=_MANAGER)


def _change(job: Object, run: Run, cluster: Cluster, *, say: Say) -> None:
    """What may change in a run: it is not in the run's name, so the file may say something else by now."""
    new = {name: run.job["spec"].get(name) for name in _CHANGEABLE}
    changed = {name: value for name, value in new.items() if value != job["spec"].get(name)}
    if run.job["spec"].get("completionMode") == "Indexed":
        changed.pop("backoffLimit", None)  # the server's own default there
    if changed:
        cluster.change("Job", run.name, changed)
        say(f"{run.name}: " + ", ".join(f"{name} is {value} now" for name, value in changed.items()))


def _manager(item: Object, run: Run) -> str:
    """Several runs share one service account: each holds its own owner reference, and so it goes with the last."""
    return run.name if item["kind"] == "ServiceAccount" else _MANAGER


def _may_touch(account: Object, cluster: Cluster) -> bool:
    """A service account that somebody else made is used as it is."""
    standing = cluster.get("ServiceAccount", account["metadata"]["name"])
    return standing is None or state.is_ours(standing)


def _check_ours(job: Object, run: Run, cluster: Cluster) -> None:
    if (job["metadata"].get("labels") or {}).get(RUN_LABEL) != run.name:
        raise InputError(
            f"a Job {run.name} is there that is none of nearer's",
            where=cluster.where,
            way_out="give the run another name: --name …",
        )


def _check_not_helm(job: Object) -> None:
    release = state.helm_release(job)
    if release:
        meta = job["metadata"]
        raise InputError(
            f"{meta['name']} failed, and belongs to the Helm release {release}",
            rule="what Helm installed is Helm's to remove",
            way_out=f"helm uninstall {release} -n {meta['namespace']}, then submit again; it goes on from its last "
            "checkpoint",
        )


def _wait_gone(job: Object, cluster: Cluster) -> None:
    """Until the Job is gone, and with it (foreground deletion) its pods: two at once would share a checkpoint."""
    pauses = cluster.patience.pauses()
    meta = job["metadata"]
    while (standing := cluster.get("Job", meta["name"])) and standing["metadata"]["uid"] == meta["uid"]:
        process.STOP.check()
        time.sleep(next(pauses))


def _others(run: Run, cluster: Cluster) -> str:
    names = active_siblings(run, cluster)
    return f"; under this name run, with other settings: {', '.join(names)}" if names else ""


def _words(item: Object) -> str:
    return f"the {item['kind']} {item['metadata']['name']}"
