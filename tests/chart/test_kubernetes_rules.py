"""The rules see what an API server would refuse: each mistake in turn, in what the chart renders."""

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_rules as rules
import pytest

from .conftest import JOBS, Template

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def drop(*path: str) -> Change:
    def change(_: dict[str, Any], spec: dict[str, Any]) -> None:
        for part in path[:-1]:
            spec = spec[part]
        del spec[path[-1]]

    return change


def put(value: Any, *path: str | int) -> Change:
    def change(_: dict[str, Any], spec: Any) -> None:
        for part in path[:-1]:
            spec = spec[part]
        spec[path[-1]] = value

    return change


POD = ("template", "spec")
BOX = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop(*POD, "restartPolicy"), "restartPolicy None"),
        (put("OnFailure", *POD, "restartPolicy"), "podFailurePolicy without restartPolicy Never"),
        (put({"matchLabels": {"a": "b"}}, "selector"), "a selector"),
        (put("NonIndexed", "completionMode"), "limits per index without Indexed"),
        (drop("backoffLimitPerIndex"), "maxFailedIndexes without backoffLimitPerIndex"),
        (put("TerminatingOrFailed", "podReplacementPolicy"), "another podReplacementPolicy"),
        (put([4, 2, 3], "podFailurePolicy", "rules", 1, "onExitCodes", "values"), "not in order"),
        (put([0, 2], "podFailurePolicy", "rules", 1, "onExitCodes", "values"), "exit code 0 with In"),
        (put("other", "podFailurePolicy", "rules", 1, "onExitCodes", "containerName"), "unknown container other"),
        (put(True, "podFailurePolicy", "rules", 0, "onPodConditions", 0, "status"), "must be a word"),
        (lambda job, _: job["metadata"].update(name="a" * 62), "no host name"),
        (lambda job, _: job["metadata"].update(name="a.b"), "no host name"),
        (lambda job, _: job["metadata"]["labels"].update(x="a" * 64), "the label x="),
        (put([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], *BOX, "env"), "A stands twice"),
        (put([{"name": "1A", "value": "1"}], *BOX, "env"), "the variable's name '1A'"),
        (put([{"name": "A", "value": 1}], *BOX, "env"), "the variable {"),
        (put([{"name": "none", "mountPath": "/x"}], *BOX, "volumeMounts"), "no volume 'none'"),
        (put("8 GB", *BOX, "resources", "limits", "memory"), "the quantity memory"),
        (put("1Ti", *BOX, "resources", "requests", "memory"), "above limits"),
        (put("2", *BOX, "resources", "requests", "nvidia.com/gpu"), "requests other than limits"),
        (put("other", *POD, "subdomain"), "the pods' subdomain is not the service"),
        (put("nobody", *POD, "serviceAccountName"), "not the one that is used"),
    ],
)  # fmt: skip
def test_a_mistake_is_seen(template: Template, change: Change, words: str) -> None:
    """One mistake, and the sentence about it."""
    objects = copy.deepcopy(template(JOBS[-1], {"nodes": 3}).objects)
    assert rules.violations(objects) == []
    (job,) = [each for each in objects if each["kind"] == "Job"]
    change(job, job["spec"])
    found = rules.violations(objects)
    assert any(words in each for each in found), found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(True, *POD, "hostNetwork"), "hostNetwork"),
        (put(0, *POD, "securityContext", "runAsUser"), "may run as root"),
        (drop(*POD, "securityContext", "seccompProfile"), "no seccomp profile"),
        (put([{"name": "root", "hostPath": {"path": "/"}}], *POD, "volumes"), "the volume"),
        (put({"drop": ["ALL"], "add": ["SYS_ADMIN"]}, *BOX, "securityContext", "capabilities"), "capabilities"),
        (drop(*BOX, "securityContext", "allowPrivilegeEscalation"), "privileges"),
        (drop(*BOX, "securityContext", "readOnlyRootFilesystem"), "root file system"),
        (drop(*POD, "automountServiceAccountToken"), "a token"),
        (drop(*POD, "enableServiceLinks"), "service links"),
    ],
)
def test_a_breach_of_pod_security_is_seen(template: Template, change: Change, words: str) -> None:
    """Each demand of `restricted`, and what goes beyond it here."""
    job = copy.deepcopy(template(JOBS[-1]).one("Job"))
    change(job, job["spec"])
    assert any(words in each for each in rules.restricted(job["spec"]["template"]["spec"]))
