import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# huggingface_hub reads these once, when it is imported: no test reaches a model hub, and the cache is the tests' own.
HUB_CACHE = tempfile.TemporaryDirectory(prefix="nearer-hub-")
for name in [name for name in os.environ if re.match(r"NEARER_(?!TEST_)|HF_", name)]:
    del os.environ[name]
if "NEARER_TEST_S3_ENDPOINT" not in os.environ:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
for name in [name for name in os.environ if name.startswith("OPENAI_")]:
    del os.environ[name]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_CACHE": HUB_CACHE.name}


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried on the same examples each time, however slow the machine; `make test-full` draws new ones."""
    settings.register_profile("same", deadline=None, derandomize=True)
    settings.register_profile("new", deadline=None)
    settings.load_profile("same" if config.option.markexpr == "not full" else "new")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting that one test makes reaches another."""
    for name in list(os.environ):
        if re.match(r"NEARER_(?!TEST_)", name):
            monkeypatch.delenv(name)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server: the one that NEARER_TEST_S3_ENDPOINT names, else a process of our own on loopback."""
    if endpoint := os.environ.get("NEARER_TEST_S3_ENDPOINT"):
        yield endpoint
        return
    command = [sys.executable, str(Path(__file__).parent / "assets" / "s3_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.fixture(scope="session")
def s3_bucket(s3_endpoint: str) -> str:
    """The name of a bucket; NEARER_TEST_S3_BUCKET where the tests may not make one."""
    if bucket := os.environ.get("NEARER_TEST_S3_BUCKET"):
        return bucket
    import boto3

    bucket = f"nearer-test-{secrets.token_hex(6)}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def s3_root(s3_bucket: str) -> str:
    """A prefix that no other test has."""
    return f"s3://{s3_bucket}/{secrets.token_hex(6)}/root"
