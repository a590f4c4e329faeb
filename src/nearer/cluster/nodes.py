"""Which nodes could take a run's pod at all, by what they have, not by what is free on them now."""

from __future__ import annotations

from collections import Counter
from typing import Any

Object = dict[str, Any]

_HARD = {"NoSchedule", "NoExecute"}


def fitting(pod: Object, nodes: list[Object]) -> tuple[list[str], Counter[str]]:
    """Names of the nodes that could, and why the others could not, each with how many.

    Looked at: readiness, the node selector, taints, and allocatable resources. Affinity and spread are the scheduler's.

    Args:
        pod: a pod's spec.
        nodes: of the cluster.
    """
    could: list[str] = []
    reasons: Counter[str] = Counter()
    for node in nodes:
        found = _reason(pod, node)
        if found:
            reasons[found] += 1
        else:
            could.append(str(node["metadata"]["name"]))
    return could, reasons


def _reason(pod: Object, node: Object) -> str:
    """The first thing that keeps the pod away; empty if nothing does."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    if spec.get("unschedulable"):
        return "cordoned"
    if not any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or []):
        return "not ready"
    labels = node["metadata"].get("labels") or {}
    for key, value in (pod.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return f"has not the label {key}={value}"
    for taint in spec.get("taints") or []:
        if taint.get("effect") in _HARD and not any(_tolerates(each, taint) for each in pod.get("tolerations") or []):
            return f"has the taint {taint['key']}, which pod.tolerations do not have"
    has = status.get("allocatable") or {}
    (container,) = pod["containers"]
    for name, wanted in (container.get("resources") or {}).get("requests", {}).items():
        if _amount(has.get(name, "0")) < _amount(wanted):
            return f"has {has.get(name, 'no')} {name} of {wanted}"
    return ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _amount(text: object) -> Any:
    from kubernetes.utils import parse_quantity

    return parse_quantity(str(text))
