"""A file in jobs/ is a values file and a settings file, and what the chart mounts is what the command line reads."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_rules
import pytest
import yaml

from nearer.address import is_s3
from nearer.cli.app import run
from nearer.demo import smoke
from nearer.settings import load

from .conftest import CHART, JOBS, ROOT, Template

EVERYTHING = Path(__file__).with_name("everything.yaml")
GOLDEN = Path(__file__).with_name("golden")
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def merged(lower: Any, upper: Any) -> Any:
    """Values over the defaults, as Helm lays them."""
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    return {key: merged(lower.get(key), upper[key]) if key in upper else lower[key] for key in {**lower, **upper}}


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_a_job_file_is_checked_by_schema_and_models(job: Path) -> None:
    """Both readers take it, and its command is one that the file's own comment shows."""
    text = job.read_text(encoding="utf-8")
    jsonschema.validate(merged(DEFAULTS, yaml.safe_load(text)), SCHEMA)
    loaded = load(job, environment={})
    assert is_s3(loaded.settings.artifacts)
    assert text.startswith("# ")
    assert f"helm/nearer -f jobs/{job.name}" in text
    assert f"nearer {loaded.command} -c jobs/{job.name}" in text


@pytest.mark.parametrize("job", [*JOBS, EVERYTHING], ids=lambda path: path.stem)
def test_the_pod_reads_the_settings_that_the_file_says(template: Template, job: Path, tmp_path: Path) -> None:
    """Through Helm's YAML and back: numbers, words that look like numbers, line ends."""
    rendered = template(job)
    mounted = tmp_path / "settings.yaml"
    mounted.write_text(rendered.one("ConfigMap")["data"]["settings.yaml"], encoding="utf-8")
    assert load(mounted, environment={}).settings == load(job, environment={}).settings
    (container,) = rendered.pod["containers"]
    command = str(load(job, environment={}).command)
    assert container["args"] == [*command.split(), "-c", "/etc/nearer/settings.yaml"]


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_golden(template: Template, job: Path) -> None:
    """What a job file renders to, whole. `make golden` writes the files anew; read the difference before you commit."""
    golden = GOLDEN / job.name
    out = template(job).out
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(out, encoding="utf-8")
    assert out == golden.read_text(encoding="utf-8")


def test_the_values_for_a_cluster_without_dns(template: Template) -> None:
    """What tests/e2e brings is taken by the chart, and needs nothing that `restricted` forbids."""
    values = ROOT / "tests" / "e2e" / "without-dns.yaml"
    pod = template(ROOT / "jobs" / "smoke.yaml", values).pod
    assert pod["hostAliases"] == [{"ip": "10.0.0.1", "hostnames": ["s3.test"]}]
    assert list(kubernetes_rules.restricted(pod)) == []
    assert load(ROOT / "jobs" / "smoke.yaml", overlays=[values], environment={}).settings.store.s3.endpoint


def test_no_golden_is_left_over() -> None:
    """Each belongs to a job file."""
    assert sorted(path.name for path in GOLDEN.iterdir()) == [path.name for path in JOBS]


def test_the_smoke_job_runs(workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As its comment says, without an image: made, and run through all five jobs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workdir / "cache"))
    own = {"artifacts": "./out", "generate.documents": "./smoke/documents.jsonl",
           "generate.queries": "./smoke/eval.jsonl", "train.embedding.base_model": "./smoke/model"}  # fmt: skip
    assert smoke.main(["./smoke"]) == 0
    settings = [word for name, value in own.items() for word in ("--set", f"{name}={value}")]
    job = ROOT / "jobs" / "smoke.yaml"
    assert run(["pipeline", "-c", str(job), *settings]) == 0, capsys.readouterr().err
    assert all(f"{name}={value}" in job.read_text(encoding="utf-8") for name, value in own.items())
    for made in ("datasets/smoke", "models/smoke-embedding", "models/smoke-reranker-onnx", "reports/smoke"):
        assert (workdir / "out" / made / "manifest.json").is_file()
    assert (workdir / "out/indexes/smoke").is_dir()


def test_the_smoke_job_s_data_are_the_same_everywhere(tmp_path: Path) -> None:
    """Two images hold the same bytes, so that one's artifacts are the other's."""
    contents = []
    for name in ("one", "two"):
        assert smoke.main([str(tmp_path / name)]) == 0
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]


def test_the_smoke_job_asks_for_its_directory() -> None:
    """Anything but one directory is exit 2."""
    assert smoke.main([]) == 2
