"""The objects of a run, as the chart renders them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Any

import yaml

from nearer.cluster.chart import chart_directory
from nearer.cluster.jobfile import JobFile
from nearer.errors import InputError

Object = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
RUN_LABEL = "nearer/run"
CONTAINER = "nearer"
_MANAGER = "nearer"
_RELEASE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # Helm's own rule
_RELEASE_LENGTH = 53
_ORDER = ("NetworkPolicy", "Service", "ConfigMap")
"""The settings come last: no container starts without them, so when one does, all else stands."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its Job, what is made with it, and the service account, which outlives it."""

    job: Object
    dependents: tuple[Object, ...]
    account: Object | None
    command: str

    @property
    def name(self) -> str:
        """The name of Job and all, with the hash of what the run does."""
        return str(self.job["metadata"]["name"])

    @property
    def release(self) -> str:
        """The name that the user gave, which several runs may share."""
        return str(self.job["metadata"]["labels"]["app.kubernetes.io/instance"])

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        spec: Object = self.job["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Object:
        """The one container's spec."""
        (container,) = self.pod["containers"]
        found: Object = container
        return found

    @property
    def objects(self) -> list[Object]:
        """All of them, in the order that they are made in."""
        return [*([self.account] if self.account else []), self.job, *self.dependents]

    def owned_by(self, job: Object) -> Run:
        """The same run, its dependents owned by the Job as it stands in the cluster."""
        meta = job["metadata"]
        # Blocking: a Job that is deleted goes after them, so the garbage collector never takes those of the next one.
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": meta["name"],
            "uid": meta["uid"],
            "blockOwnerDeletion": True,
        }
        return replace(
            self,
            dependents=tuple(_with_owner(each, owner) for each in self.dependents),
            account=_with_owner(self.account, owner) if self.account else None,
        )


def release_name(path_stem: str, given: str | None) -> str:
    """The release's name: as given, or the job file's own.

    Raises:
        InputError: it cannot be one.
    """
    name = given if given is not None else re.sub(r"[^-a-z0-9]+", "-", path_stem.lower()).strip("-")[:_RELEASE_LENGTH]
    if not _RELEASE.fullmatch(name) or len(name) > _RELEASE_LENGTH:
        raise InputError(
            f"{name!r} cannot name a run" if given else f"the job file's name, {path_stem!r}, cannot name a run",
            rule=f"lower-case letters, digits and -, no - at either end, at most {_RELEASE_LENGTH} characters",
            way_out="--name tune",
        )
    return name


def render(job: JobFile, *, release: str, namespace: str, version: str | None = None) -> Run:
    """Render the chart with `helm template`.

    Args:
        job: what describes the run.
        release: its name.
        namespace: where it will be.
        version: of the cluster's Kubernetes; None: whatever this helm knows.

    Raises:
        InputError: helm is missing, or refuses these values.
    """
    helm = shutil.which("helm")
    if helm is None:
        raise InputError(
            "helm is not on the PATH",
            rule="nearer submit renders its chart with `helm template`; nothing is installed with it",
            way_out="install it: https://helm.sh/docs/intro/install",
        )
    command = [helm, "template", release, str(chart_directory()), "--namespace", namespace]
    command += ["--kube-version", version] if version else []
    with job.files() as files:
        command += [word for path in files for word in ("-f", str(path))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise InputError(
            "the chart refuses this run: " + _said(done.stderr),
            where=", ".join(map(str, [job.path, *job.values])),
            way_out="correct the file, or the --set; helm/nearer/values.yaml explains every value",
        )
    return _run([each for each in yaml.safe_load_all(done.stdout) if each], job.command)


def _run(objects: list[Object], command: str) -> Run:
    for each in objects:
        each["metadata"]["labels"][MANAGED_BY] = _MANAGER  # Helm knows nothing of this release
    kinds = {each["kind"]: each for each in objects}
    return Run(
        job=kinds["Job"],
        dependents=tuple(kinds[kind] for kind in _ORDER if kind in kinds),
        account=kinds.get("ServiceAccount"),
        command=command,
    )


def _with_owner(item: Object, owner: Object) -> Object:
    return {**item, "metadata": {**item["metadata"], "ownerReferences": [owner]}}


def _said(stderr: str) -> str:
    """Helm's words without its own frame."""
    lines = [line for line in stderr.strip().splitlines() if not line.startswith(("WARNING: ", "level="))]
    text = "\n".join(lines).removeprefix("Error: ")
    text = re.sub(r"^execution error at \(.*?\): ", "", text)
    return re.sub(r"^values don't meet the specifications.*\nnearer:\n", "\n", text)
