"""`nearer doctor cluster` says whether a run could start, before anybody waits for one."""

from collections.abc import Callable

import pytest
import yaml
from cluster_case import JOB, ROOT, Case, submitter_rules
from kubernetes_double import Object

from nearer.cli.app import run
from nearer.cluster.rights import NEEDED

READY = [{"type": "Ready", "status": "True"}]


def node(name: str, *, gpus: int = 1, ready: bool = True, **spec: object) -> Object:
    allocatable = {"cpu": "15900m", "memory": "60Gi", "ephemeral-storage": "200Gi", "nvidia.com/gpu": str(gpus)}
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    meta = {"name": name, "labels": {"nvidia.com/gpu.product": "A100"}}
    return {"metadata": meta, "spec": spec, "status": {"allocatable": allocatable, "conditions": conditions}}


def with_nodes(case: Case, *nodes: Object) -> None:
    """A user who may see nodes, and these nodes."""
    case.api.rules = [*submitter_rules(), {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "get"]}]
    case.api.nodes = list(nodes)


def examined(case: Case, s3_root: str, s3_endpoint: str, *options: str) -> tuple[int, dict[str, str]]:
    """The exit code, and each line by what it is about."""
    case.capsys.readouterr()
    store = ("--set", f"artifacts={s3_root}", "--set", f"store.s3.endpoint={s3_endpoint}")
    code = run(["doctor", "cluster", str(JOB), *store, *options])
    out = case.capsys.readouterr().out
    return code, {line[6:].split()[0]: line for line in out.splitlines()}


def queue(case: Case, **conditions: object) -> None:
    item = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "gpus"},
            "spec": {"clusterQueue": "all"}, "status": {"pendingWorkloads": 3, **conditions}}  # fmt: skip
    case.api.put("localqueues", item, how="ADDED")


def test_a_cluster_that_is_fit(case: Case, s3_root: str, s3_endpoint: str) -> None:
    """Every look brings its finding; nothing is touched; exit 0."""
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    with_nodes(case, node("gpu-1", taints=[taint]), node("cpu-1", gpus=0))
    queue(case)
    code, lines = examined(case, s3_root, s3_endpoint, "--set", "queue=gpus")
    assert code == 0, lines
    assert {name: line[:5].strip() for name, line in lines.items()} == dict.fromkeys(
        ("cluster", "rights", "objects", "queue", "nodes", "store"), "ok"
    )
    assert "Kubernetes 1.36" in lines["cluster"]
    assert "gpus (cluster queue all), 3 waiting" in lines["queue"]
    assert "1 of 2 have what a pod asks for" in lines["nodes"]
    assert "gpu-1" in lines["nodes"]
    assert [key for key in case.api.objects if key[0] != "localqueues"] == []


@pytest.mark.parametrize(
    ("prepare", "options", "about", "words"),
    [
        (lambda c: with_nodes(c, node("n", gpus=0)), [], "nodes", "none of 1 has what a pod asks for"),
        (lambda c: with_nodes(c, node("n"), node("m")), ["pod.gpus=4"], "nodes", "2 has 1 nvidia.com/gpu of 4"),
        (lambda c: with_nodes(c, node("n", taints=[{"key": "team", "effect": "NoSchedule"}])), [], "nodes", "the taint team"),
        (lambda c: with_nodes(c, node("n", unschedulable=True), node("m", ready=False)), [], "nodes", "1 cordoned; 1 not ready"),
        (lambda c: with_nodes(c, node("n")), ["pod.nodeSelector={zone: b}"], "nodes", "has not the label zone=b"),
        (lambda c: None, ["queue=gpus"], "queue", "no LocalQueue gpus in namespace rag"),
        (
            lambda c: queue(c, conditions=[{"type": "Active", "status": "False", "message": "ClusterQueue is inactive"}]),
            ["queue=gpus"],
            "queue",
            "gpus is not active: ClusterQueue is inactive",
        ),
        (lambda c: None, ["storage.work.claim=rag"], "claim", "no claim rag in namespace rag"),
        (lambda c: setattr(c.api, "pod_security", "restricted"), ["pod.hostNetwork=true"], "objects", "would violate"),
        (lambda c: setattr(c.api, "rules", []), [], "rights", "nothing can be submitted without: create jobs.batch"),
    ],
    ids=lambda given: "" if callable(given) else str(given),
)  # fmt: skip
def test_what_would_keep_a_run_from_starting(
    case: Case,
    s3_root: str,
    s3_endpoint: str,
    prepare: Callable[[Case], None],
    options: list[str],
    about: str,
    words: str,
) -> None:
    """Named, and exit 2."""
    prepare(case)
    assigned = [word for text in options for word in ("--set", text)]
    code, lines = examined(case, s3_root, s3_endpoint, *assigned)
    assert code == 2, lines
    assert lines[about].startswith("WRONG")
    assert words in lines[about]


def test_what_cannot_be_seen_is_no_fault(case: Case, s3_root: str, s3_endpoint: str) -> None:
    """Nodes belong to no namespace: a submitter's credentials do not see them."""
    code, lines = examined(case, s3_root, s3_endpoint)
    assert code == 0
    assert lines["nodes"].startswith("?")


def test_a_store_that_does_not_answer(case: Case) -> None:
    """Its own words, and from where it was asked."""
    options = ["artifacts=s3://nowhere/x", "store.s3.endpoint=http://127.0.0.1:1", "store.s3.attempts=1"]
    code, lines = examined(case, "s3://nowhere/x", "http://127.0.0.1:1", *[w for o in options for w in ("--set", o)])
    assert code == 2
    assert lines["store"].startswith("WRONG")
    assert "asked from here" in lines["store"]


def test_without_a_job_file(case: Case) -> None:
    """What every run needs."""
    with_nodes(case, node("a"), node("b", gpus=8))
    assert run(["doctor", "cluster"]) == 0
    out = case.capsys.readouterr().out
    assert "9 nvidia.com/gpu" in out
    assert "may submit, follow and end runs here" in out


def test_the_manifest_grants_what_is_needed_and_little_more() -> None:
    """What the doctor asks for is what docs/submitter-rbac.yaml says; Secrets and pods' insides are not in it."""
    granted = {
        (verb, group, resource)
        for rule in submitter_rules()
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    needed = {
        (right.verb, right.group, f"{right.resource}/{right.subresource}" if right.subresource else right.resource)
        for right in NEEDED
    }
    assert needed <= granted
    assert {resource for _, _, resource in granted - needed} == {
        "jobs/finalizers",
        "persistentvolumeclaims",
        "workloads",
        "localqueues",
    }
    objects = list(yaml.safe_load_all((ROOT / "docs/submitter-rbac.yaml").read_text(encoding="utf-8")))
    assert [each["kind"] for each in objects] == ["ServiceAccount", "Role", "RoleBinding"]
    assert len({each["metadata"]["namespace"] for each in objects}) == 1
