"""A small user's directory: documents, questions, a tiny base model, settings, and what `generate` and `train` made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nearer.cli.app import run
from nearer.testing import korean_documents, tiny_embedder

SETTINGS = {
    "seed": 3,
    "generate": {"documents": "data/documents.jsonl", "queries": "data/eval.jsonl", "output_dir": "datasets/d",
                 "negatives": {"per_query": 2, "depth": 10, "max_share_of_positive": 1.5}, "chunk": {"max_tokens": 60}},
    "train": {
        "embedding": {"base_model": "models/base", "output_dir": "models/e", "epochs": 1, "batch_size": 8, "dropout": 0,
                      "learning_rate": 1e-3, "max_passage_tokens": 64, "checkpoint_steps": 2},
        "reranker": {"base_model": "models/e", "output_dir": "models/r", "epochs": 1, "batch_size": 16, "dropout": 0,
                     "learning_rate": 1e-3, "max_pair_tokens": 96, "checkpoint_steps": 4},
    },
    "eval": {"output_dir": "reports/r", "rerank_depth": 5, "speed_queries": 0},
    "export_onnx": {"output_dir": "models/o", "parity_pairs": 40},
    "reindex": {"output_dir": "indexes/i", "check_samples": 8, "shard_passages": 20},
}  # fmt: skip


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def fill(directory: Path) -> None:
    """What the user has before the first command."""
    documents = korean_documents(40, seed=5)
    write_jsonl(directory / "data/documents.jsonl", documents)
    questions = [
        {
            "eval_id": f"q{number}",
            "msg": [{"role": "user", "content": f"{document['content'][:18]} 알려 주세요"}],
            "ground_truth_doc_id": document["docid"],
        }
        for number, document in enumerate(documents[:12])
    ]
    write_jsonl(directory / "data/eval.jsonl", questions)
    tiny_embedder(directory / "models/base", architecture="bert")
    (directory / "nearer.yaml").write_text(yaml.safe_dump(SETTINGS, allow_unicode=True), encoding="utf-8")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory after `nearer generate` and `nearer train embedding`; not to be written to."""
    directory = tmp_path_factory.mktemp("made")
    fill(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert run(["generate"]) == 0
        assert run(["train", "embedding"]) == 0
    return directory


@pytest.fixture
def user(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of that directory, current."""
    directory = tmp_path / "user"
    shutil.copytree(made, directory, symlinks=True)
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory before the first command, current."""
    directory = tmp_path / "fresh"
    fill(directory)
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def nearer(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return call
