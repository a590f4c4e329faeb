"""Every job file, Kubernetes version and option renders objects that an API server takes."""

import itertools
from pathlib import Path
from typing import Any

import kubernetes_rules as rules
import kubernetes_validate
import pytest
import yaml

from .conftest import CHART, JOBS, NEWEST, OLDEST, Helm, Rendered, Template

VERSIONS = (OLDEST, "1.32", "1.33", "1.34", "1.35", NEWEST)
EVERYTHING = Path(__file__).with_name("everything.yaml")

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no GPU": {"pod": {"gpus": 0}},
    "eight GPUs": {"pod": {"gpus": 8, "gpuResource": "nvidia.com/gpu"}},
    "two nodes": {"nodes": 2, "pod": {"gpus": 8}},
    "999 nodes": {"nodes": 999},
    "claims and local artifacts": {
        "settings": {"artifacts": "."},
        "storage": {"work": {"claim": "rag"}, "cache": {"claim": "rag-cache"}},
    },
    "a uid from the platform": {"pod": {"user": None}},
    "a queue, and gone when it is over": {"queue": "gpu", "ttlSecondsAfterFinished": 0},
    "no policy, an account of its own": {
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False, "name": "rag"},
    },
    "secrets and an image by digest": {
        "secrets": {"envFrom": ["s3"], "env": {"HF_TOKEN": {"secret": "hub", "key": "token"}}},
        "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    },
    "everything": yaml.safe_load(EVERYTHING.read_text(encoding="utf-8")),
    "everything, one node, with policy and account": {
        **yaml.safe_load(EVERYTHING.read_text(encoding="utf-8")),
        "nodes": 1,
        "networkPolicy": {"enabled": True},
        "serviceAccount": {"create": True},
    },
}
RELEASES = ("tune", "0.starts-with.a-digit", "a" * 53, "b" * 41 + "-" + "c" * 11)


def check(rendered: Rendered, version: str) -> None:
    """No objection from Kubernetes' schemas, from our rules, from Pod Security."""
    objects = rendered.objects
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)
    assert rules.violations(objects) == []
    expected = ["hostNetwork"] if rendered.pod.get("hostNetwork") else []
    assert list(rules.restricted(rendered.pod)) == expected


def test_there_are_job_files() -> None:
    """What the tests below go through is not empty."""
    assert {path.stem for path in JOBS} >= {
        "eval", "export-onnx", "generate", "pipeline-small", "reindex", "smoke", "train-embedding", "train-reranker",
    }  # fmt: skip


@pytest.mark.parametrize("number", range(len(JOBS)), ids=lambda number: JOBS[number].stem)
def test_every_job_and_every_version(template: Template, number: int) -> None:
    """Each job file is accepted as it is on two versions, which together are all; the whole matrix is below."""
    for version in {VERSIONS[number % len(VERSIONS)], VERSIONS[-1 - number % len(VERSIONS)]}:
        check(template(JOBS[number], version=version), version)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(template: Template, option: str) -> None:
    """Each option is accepted on the oldest and the newest version, under awkward release names."""
    for version, release in zip((OLDEST, NEWEST, OLDEST, NEWEST), RELEASES, strict=True):
        check(template(JOBS[-1], OPTIONS[option], version=version, release=release), version)


@pytest.mark.full
def test_the_whole_matrix(template: Template) -> None:
    """Job files x versions x options."""
    count = 0
    for job, version, option in itertools.product(JOBS, VERSIONS, OPTIONS.values()):
        check(template(job, option, version=version), version)
        count += 1
    print(f"rendered and validated {count} combinations of {len(JOBS)} jobs, {len(VERSIONS)} versions, options")


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_helm_has_no_objection(helm: Helm, job: Path) -> None:
    """`helm lint --strict` is content, and an installation without a cluster prints how to follow."""
    linted = helm("lint", "--strict", CHART, "-f", job)
    assert linted.code == 0, linted.out + linted.err
    installed = helm("install", "tune", CHART, "-f", job, "-n", "rag", "--dry-run=client")
    assert installed.code == 0, installed.err
    notes = installed.out.partition("NOTES:")[2]
    command = yaml.safe_load(job.read_text(encoding="utf-8"))["command"]
    for word in (f"nearer {command}: tune-", "kubectl -n rag logs -f", "Exit codes", "s3://my-bucket/", "another run"):
        assert word in notes


def test_an_older_kubernetes_is_refused(template: Template) -> None:
    """Before 1.31 there is no failure policy to rely on."""
    refused = template(JOBS[0], version="1.30")
    assert refused.code
    assert "1.31" in refused.err
