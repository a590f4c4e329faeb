import os
import tempfile
from pathlib import Path

import pytest

# huggingface_hub reads these once, when it is imported: no test reaches a model hub, and the cache is the tests' own.
HUB_CACHE = tempfile.TemporaryDirectory(prefix="nearer-hub-")
for name in [name for name in os.environ if name.startswith(("NEARER_", "HF_")) and name != "NEARER_TEST_S3_ENDPOINT"]:
    del os.environ[name]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_CACHE": HUB_CACHE.name}


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting that one test makes reaches another."""
    for name in list(os.environ):
        if name.startswith("NEARER_") and name != "NEARER_TEST_S3_ENDPOINT":
            monkeypatch.delenv(name)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory
