"""The rights that submitting, following and ending a run take; docs/submitter-rbac.yaml grants these."""

from __future__ import annotations

from dataclasses import dataclass

from nearer.cluster.api import Cluster


@dataclass(frozen=True, kw_only=True)
class Right:
    """One verb on one resource, and what cannot be done without it."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    without: str = "nothing can be submitted"

    def __str__(self) -> str:
        name = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {name}" + (f".{self.group}" if self.group else "")


_UNSEEN = "a run cannot be followed"

NEEDED: tuple[Right, ...] = (
    Right(verb="create", resource="jobs", group="batch"),
    Right(verb="get", resource="jobs", group="batch"),
    Right(verb="list", resource="jobs", group="batch", without=_UNSEEN),
    Right(verb="watch", resource="jobs", group="batch", without=_UNSEEN),
    Right(verb="patch", resource="jobs", group="batch", without="the deadline of an active run stays"),
    Right(verb="delete", resource="jobs", group="batch", without="a run cannot be ended, nor a failed one made again"),
    Right(verb="list", resource="pods", without=_UNSEEN),
    Right(verb="watch", resource="pods", without=_UNSEEN),
    Right(verb="get", resource="pods", subresource="log", without="logs cannot be shown"),
    Right(verb="list", resource="events", without="nobody says why a pod waits"),
    *(
        Right(verb=verb, resource=resource, group=group)
        for group, resource in (
            ("", "configmaps"), ("", "services"), ("networking.k8s.io", "networkpolicies"), ("", "serviceaccounts"),
        )
        for verb in ("create", "patch")
    ),
    Right(verb="get", resource="serviceaccounts"),
)  # fmt: skip


def missing(cluster: Cluster, *, account: bool = True) -> list[Right]:
    """The rights that these credentials do not have here.

    Args:
        cluster: asked for each.
        account: whether runs bring a service account of their own.

    Raises:
        Refusal, Unreachable: the cluster does not answer.
    """
    asked = [right for right in NEEDED if account or right.resource != "serviceaccounts"]
    return [
        right
        for right in asked
        if not cluster.may(right.verb, right.resource, group=right.group, subresource=right.subresource)
    ]
