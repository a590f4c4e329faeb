"""What a Job object says about itself."""

from __future__ import annotations

from typing import Any

from nearer.cluster.render import MANAGED_BY

Object = dict[str, Any]

_HELM_RELEASE = "meta.helm.sh/release-name"


def condition(item: Object, kind: str) -> Object | None:
    """A condition that holds; None if it does not, or not yet."""
    for each in (item.get("status") or {}).get("conditions") or []:
        if each.get("type") == kind and each.get("status") == "True":
            found: Object = each
            return found
    return None


def is_complete(job: Object) -> bool:
    """Whether all its pods did what they should."""
    return condition(job, "Complete") is not None


def failure(job: Object) -> Object | None:
    """The condition that says why it failed for good. `FailureTarget` comes earlier, while pods still end."""
    return condition(job, "Failed")


def is_over(job: Object) -> bool:
    """Whether it has ended, one way or the other."""
    return is_complete(job) or failure(job) is not None


def is_leaving(item: Object) -> bool:
    """Whether it has been deleted and only waits for what depends on it."""
    return bool(item["metadata"].get("deletionTimestamp"))


def is_suspended(job: Object) -> bool:
    """Whether it may not start pods, as Kueue has it until there is quota."""
    return bool((job.get("spec") or {}).get("suspend"))


def helm_release(item: Object) -> str | None:
    """The Helm release that owns an object."""
    name = (item["metadata"].get("annotations") or {}).get(_HELM_RELEASE)
    return str(name) if name else None


def is_ours(item: Object) -> bool:
    """Whether `nearer submit` made it."""
    return bool((item["metadata"].get("labels") or {}).get(MANAGED_BY) == "nearer")
