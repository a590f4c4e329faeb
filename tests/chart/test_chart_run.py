"""A release is one run: its name is the hash of what it does, and another one does not take its place while it runs."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHART, JOBS, Helm, Rendered, Template

EVERYTHING = yaml.safe_load(Path(__file__).with_name("everything.yaml").read_text(encoding="utf-8"))
JOB = next(path for path in JOBS if path.stem == "train-reranker")
MAY_CHANGE = ("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit")


def fixed(rendered: Rendered) -> dict[str, Any]:
    """All of a Job and its ConfigMap that Kubernetes will not let anybody change, without its name."""
    job = rendered.one("Job")
    name = job["metadata"]["name"]
    spec = {key: value for key, value in job["spec"].items() if key not in MAY_CHANGE}
    queue = job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")  # Kueue holds it fast once the Job was admitted
    return json.loads(json.dumps([spec, queue, rendered.one("ConfigMap")["data"]]).replace(name, ""))  # type: ignore[no-any-return]


def name(rendered: Rendered) -> str:
    return str(rendered.one("Job")["metadata"]["name"])


def leaves(value: Any, *, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The key paths of a values file down to what is no mapping."""
    if isinstance(value, dict) and value and at[:1] != ("settings",) and len(at) < 3:
        for key, child in value.items():
            yield from leaves(child, at=(*at, key))
    else:
        yield at


def without(path: tuple[str, ...]) -> dict[str, Any]:
    """everything.yaml with one value left at its default."""
    values = json.loads(json.dumps(EVERYTHING))
    section = values
    for part in path[:-1]:
        section = section[part]
    del section[path[-1]]
    return values  # type: ignore[no-any-return]


def test_the_same_values_are_the_same_objects(helm: Helm, template: Template) -> None:
    """Rendered twice, on any version, nothing differs."""
    first, second = (helm("template", "tune", CHART, "-f", JOB).out for _ in range(2))
    assert first == second
    assert name(template(JOB, version="1.31")) == name(template(JOB))


def test_all_objects_of_a_run_have_its_name(template: Template) -> None:
    """Only the service account keeps the release's name, since clouds trust it by name."""
    rendered = template(JOB, {"nodes": 2})
    names = {each["kind"]: each["metadata"]["name"] for each in rendered.objects}
    assert names.pop("ServiceAccount") == "tune"
    assert set(names) == {"Job", "ConfigMap", "Service", "NetworkPolicy"}
    assert set(names.values()) == {name(rendered)}


PATHS = [path for path in leaves(EVERYTHING) if path not in {("command",), ("settings",), ("pod", "volumes")}]
KEPT = {
    "activeDeadlineSeconds", "ttlSecondsAfterFinished", "networkPolicy.enabled", "networkPolicy.egressPorts",
    "networkPolicy.egress", "serviceAccount.annotations.eks.amazonaws.com/role-arn", "serviceAccount.create",
    "image.tag",  # there is a digest
    "storage.work.gibibytes", "storage.cache.gibibytes",  # there are claims, and the settings say how large
    "global.team",
}  # fmt: skip
"""What may change in a run, or says nothing beside the other values of everything.yaml."""


@pytest.mark.parametrize("paths", [PATHS[::4], pytest.param(PATHS, marks=pytest.mark.full)], ids=["sample", "all"])
def test_another_spec_is_another_name_and_only_then(template: Template, paths: list[tuple[str, ...]]) -> None:
    """Each value in turn: the name changes exactly when something changes that nobody may change in a Job."""
    whole = template(EVERYTHING)
    for path in paths:
        other = template(without(path))
        same = ".".join(path) in KEPT
        assert (name(other) == name(whole)) == same, path
        assert (fixed(other) == fixed(whole)) == same, path
    assert {".".join(path) for path in PATHS} >= KEPT
    print(f"left {len(paths)} of {len(PATHS)} values at their defaults")


@pytest.mark.parametrize("path", ["train.reranker.epochs", "seed", "artifacts"])
def test_other_settings_are_another_run(template: Template, path: str) -> None:
    """Any setting counts."""
    values: Any = {"artifacts": "s3://other/place"}.get(path, 4)
    for part in reversed(path.split(".")):
        values = {part: values}
    assert name(template(JOB, {"settings": values})) != name(template(JOB))


def test_another_release_is_another_run(template: Template) -> None:
    """Two releases with one values file stand side by side, also when their names begin alike."""
    names = {name(template(JOB, release=release)) for release in ("tune", "tune-2", "a" * 52 + "b", "a" * 52 + "c")}
    assert len(names) == 4


def test_a_chart_that_renders_another_pod_is_another_run(template: Template, chart_copy: Path) -> None:
    """A newer chart never patches the pod of an older one; a comment in it changes nothing."""
    pod = chart_copy / "templates" / "_pod.tpl"
    text = pod.read_text(encoding="utf-8")
    pod.write_text(text.replace("restartPolicy: Never #", "restartPolicy: Never # newer:"), encoding="utf-8")
    assert name(template(JOB, chart=chart_copy)) == name(template(JOB))
    pod.write_text(text.replace("enableServiceLinks: false", "enableServiceLinks: true"), encoding="utf-8")
    assert name(template(JOB, chart=chart_copy)) != name(template(JOB))


@contextmanager
def api(jobs: list[dict[str, Any]], directory: Path) -> Iterator[Path]:
    """A server that knows Jobs and nothing else, and the kubeconfig that leads to it."""

    def group(name: str) -> dict[str, Any]:
        version = {"groupVersion": f"{name}/v1", "version": "v1"}
        return {"name": name, "versions": [version], "preferredVersion": version}

    def resources(version: str, *kinds: str) -> dict[str, Any]:
        plural = {"NetworkPolicy": "networkpolicies"}
        known = [
            {"name": plural.get(kind, f"{kind.lower()}s"), "namespaced": True, "kind": kind, "verbs": ["list", "get"]}
            for kind in kinds
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": known}

    answers = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": resources("v1", "ConfigMap", "ServiceAccount"),
        "/apis": {"kind": "APIGroupList", "groups": [group("batch"), group("networking.k8s.io")]},
        "/apis/batch/v1": resources("batch/v1", "Job"),
        "/apis/networking.k8s.io/v1": resources("networking.k8s.io/v1", "NetworkPolicy"),
        "/apis/batch/v1/namespaces/rag/jobs": {"kind": "JobList", "apiVersion": "batch/v1", "items": jobs},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {"kind": "Status", "status": "Failure", "code": 404}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        config = directory / "kubeconfig"
        config.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": address}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        yield config
        server.shutdown()
        thread.join()


def standing(job: str, *, release: str = "tune", **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "nearer", "app.kubernetes.io/instance": release}
    metadata = {"name": job, "namespace": "rag", "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}, "status": status}


@pytest.fixture
def with_jobs(helm: Helm, tmp_path: Path) -> Callable[..., Rendered]:
    """Render as `helm upgrade` does, where a cluster has these Jobs."""

    def call(*jobs: dict[str, Any]) -> Rendered:
        with api(list(jobs), tmp_path) as kubeconfig:
            arguments = ("template", "tune", CHART, "-n", "rag", "-f", JOB, "--dry-run=server")
            return helm(*arguments, "--disable-openapi-validation", kubeconfig=kubeconfig)

    return call


@pytest.mark.parametrize(
    "status",
    [{"active": 1}, {}, {"conditions": [{"type": "Suspended", "status": "True"}]},
     {"active": 1, "conditions": [{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "False"}]}],
    ids=["running", "just made", "waiting in a queue", "about to fail"],
)  # fmt: skip
def test_another_run_while_one_is_active_is_refused(with_jobs: Callable[..., Rendered], status: dict[str, Any]) -> None:
    """In words: which one runs, and the two ways out."""
    refused = with_jobs(standing("tune-old", **status))
    assert refused.code
    for words in ("release tune still runs tune-old", "a release name of its own", "helm uninstall tune -n rag"):
        assert words in refused.err


def test_a_finished_run_a_foreign_one_and_the_same_one_stand_in_nobody_s_way(
    template: Template, with_jobs: Callable[..., Rendered]
) -> None:
    """Complete, failed, of another release, of another chart, or this very run: rendered as ever."""
    foreign = standing("tune-foreign", active=1)
    foreign["metadata"]["labels"] = {"app.kubernetes.io/instance": "tune"}
    unlabelled = {**standing("x", active=1), "metadata": {"name": "x", "namespace": "rag"}}
    rendered = with_jobs(
        standing("tune-1", conditions=[{"type": "Complete", "status": "True"}]),
        standing(
            "tune-2", conditions=[{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}]
        ),
        standing("other-1", release="other", active=1),
        standing(name(template(JOB)), active=1),
        foreign,
        unlabelled,
    )
    assert name(rendered) == name(template(JOB))
