"""Whoever installs the package has the chart as well."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nearer.cluster.chart import chart_directory
from nearer.errors import InputError

from .conftest import CHART, ROOT


def test_the_wheel_has_the_chart(tmp_path: Path) -> None:
    """Every file of it, with the same bytes, where `chart_directory` looks first."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    prefix = "nearer/cluster/chart/"
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name.removeprefix(prefix): archive.read(name) for name in archive.namelist() if name.startswith(prefix)
        }
    expected = {str(path.relative_to(CHART)): path.read_bytes() for path in CHART.rglob("*") if path.is_file()}
    assert found == expected
    assert "templates/job.yaml" in found


def test_a_checkout_uses_its_own_chart() -> None:
    """Beside the sources."""
    assert chart_directory().resolve() == CHART


def test_a_missing_chart_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the places that were looked at."""
    monkeypatch.setattr("nearer.cluster.chart._PACKAGE", tmp_path / "a" / "b" / "c" / "d")
    with pytest.raises(InputError, match="the Helm chart is not where"):
        chart_directory()
