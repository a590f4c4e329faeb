"""The same commands with their artifacts in S3."""

import json
import shutil
import time
from pathlib import Path

import boto3
import forked
import pytest
import yaml

from nearer.store.s3.wire import split


@pytest.fixture
def cloud(fresh: Path, s3_root: str, s3_endpoint: str) -> Path:
    """A user's directory whose documents, questions, base model and artifacts are in S3, under one root."""
    bucket, prefix = split(s3_root)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for path in [*(fresh / "data").rglob("*"), *(fresh / "models").rglob("*")]:
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(fresh).as_posix()}")
    shutil.rmtree(fresh / "data")
    shutil.rmtree(fresh / "models")
    settings = yaml.safe_load((fresh / "nearer.yaml").read_text(encoding="utf-8"))
    settings["artifacts"] = s3_root
    settings["store"] = {"s3": {"endpoint": s3_endpoint}, "cache_dir": "cache"}
    (fresh / "nearer.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return fresh


def names(root: str, endpoint: str) -> list[str]:
    bucket, prefix = split(root)
    client = boto3.client("s3", endpoint_url=endpoint)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return [item["Key"].removeprefix(f"{prefix}/") for page in pages for item in page.get("Contents", ())]


def objects(root: str, endpoint: str) -> dict[str, bytes]:
    """Of a store that nobody changes meanwhile."""
    bucket, prefix = split(root)
    client = boto3.client("s3", endpoint_url=endpoint)
    return {
        name: client.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read() for name in names(root, endpoint)
    }


def test_the_pipeline_runs_with_everything_in_s3(cloud, nearer, s3_root, s3_endpoint, monkeypatch, tmp_path):
    """Documents and base model are read from S3, each artifact stands there, and the second run does nothing.

    What is told of an artifact is where it stands, not where this machine keeps its copy.
    """
    termination = tmp_path / "termination-log"
    termination.touch()
    monkeypatch.setattr("nearer.process._TERMINATION_LOG", termination)
    code, out, err = nearer("pipeline", "--dry-run")
    assert code == 0, err
    assert f"{s3_root}/models/e" in out
    code, out, err = nearer("pipeline")
    assert code == 0, err
    assert "nDCG@10" in out
    assert f"report: {s3_root}/reports/r/report.html" in out
    made = json.loads(termination.read_text(encoding="utf-8"))["artifact"]
    assert made.startswith(f"{s3_root}/indexes/i/generations/")
    found = objects(s3_root, s3_endpoint)
    for address in ("datasets/d", "models/e", "models/r", "reports/r", "models/o"):
        assert json.loads(found[f"{address}/manifest.json"])["outcome"]["code"] == 0
    assert "indexes/i/aliases/current.json" in found
    assert f"{made.removeprefix(f'{s3_root}/')}/manifest.json" in found
    assert not [name for name in found if name.startswith((".nearer/staging", ".nearer/work"))]
    assert {path.name for path in cloud.iterdir()} == {"nearer.yaml", "cache"}
    assert json.loads(found["datasets/d/manifest.json"])["inputs"]["documents"]["address"] == (
        f"{s3_root}/data/documents.jsonl"
    )

    shutil.rmtree(cloud / "cache")  # as on another machine
    code, _, err = nearer("pipeline")
    assert code == 0
    assert err.count("already done") == 6
    assert json.loads(termination.read_text(encoding="utf-8"))["artifact"] == made
    assert objects(s3_root, s3_endpoint) == found

    code, out, err = nearer("artifacts", "show", "models/r")
    assert code == 0, err
    assert "documents: " in out
    assert nearer("artifacts", "verify", "models/e")[0] == 0
    assert nearer("artifacts", "fetch", "models/e", "mine")[0] == 0
    assert (cloud / "mine/model.safetensors").read_bytes() == found["models/e/model.safetensors"]
    code, out, _ = nearer("artifacts", "gc")
    assert code == 0
    assert "0 places" in out


def test_training_goes_on_on_another_machine(cloud, nearer, s3_root, s3_endpoint):
    """After SIGTERM, another machine without any local file goes on from the last checkpoint, to the same weights."""
    assert nearer("generate")[0] == 0
    shutil.copytree(cloud / "cache", cloud / "first")
    slow = ("train", "embedding", "--set", "train.embedding.epochs=3", "--set", "train.embedding.checkpoint_steps=2")
    process, words = forked.start(cloud, *slow, "--set", "store.cache_dir=first")
    deadline = time.monotonic() + 120
    while not any("/segments/" in name for name in names(s3_root, s3_endpoint)) and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    ended = forked.end(process, words)
    assert ended.code == 75, ended.said
    shutil.rmtree(cloud / "first")
    code, _, said = nearer(*slow, "--set", "store.cache_dir=second")
    assert code == 0, said
    assert "going on from a checkpoint" in said
    assert nearer(*slow, "--set", "store.cache_dir=third", "--set", "train.embedding.output_dir=models/again")[0] == 0
    found = objects(s3_root, s3_endpoint)
    assert found["models/e/model.safetensors"] == found["models/again/model.safetensors"]
    assert not [name for name in found if name.startswith(".nearer/work")]


CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key-5f3e",
    "AWS_SESSION_TOKEN": "canary-session-token-9a1c",
    "HF_TOKEN": "hf_canaryhubtoken77",
    "OPENAI_API_KEY": "sk-canary-openai-key-31",
    "HTTP_PROXY": "http://user:canary-proxy-password@127.0.0.1:9",
}


def test_no_secret_is_ever_written(cloud, nearer, s3_root, s3_endpoint, monkeypatch):
    """Neither a run that succeeds nor one that fails writes a secret: to S3, to the disk, to stdout or stderr."""
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    said = []

    def run(*arguments):
        code, out, err = nearer(*arguments)
        said.append(out + err)
        return code

    assert run("generate") == 0
    assert run("train", "embedding") == 0
    assert run("artifacts", "show", "models/e") == 0
    assert run("artifacts", "show", "models/none") == 2
    assert run("train", "embedding", "--set", "train.embedding.epochs=2") == 2
    assert run("artifacts", "show", "models/e", "--set", "store.s3.endpoint=http://a:canary-endpoint@b") == 2
    monkeypatch.delenv("NO_PROXY")
    few = ("--set", "store.s3.attempts=1", "--set", "store.s3.connect_timeout_seconds=1")
    assert run("artifacts", "show", "models/e", *few) == 69
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    written = [*said, *(data.decode("latin-1") for data in objects(s3_root, s3_endpoint).values())]
    written += [path.read_text("latin-1") for path in cloud.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [text[:200] for text in written if "canary" in text]
