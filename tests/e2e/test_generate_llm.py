"""`nearer generate` with a language model that misbehaves in every way, killed and started again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from llm_server import Script, ScriptedLlm

from nearer.corpus.dataset import Dataset
from nearer.corpus.leak import find_leaks
from nearer.testing import korean_documents, tiny_embedder

CONCURRENT = 6
KILLS = 5


def written(directory: Path, documents: int, url: str) -> list[str]:
    """A user's directory; the command."""
    rows = [
        {key: row[key] for key in row if key != "hypothetical_questions"} for row in korean_documents(documents, seed=5)
    ]
    (directory / "documents.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    tiny_embedder(directory / "model", sentence_transformer=True)
    own = {
        "documents": str(directory / "documents.jsonl"),
        "output_dir": "datasets/d",
        "embedder": "model",
        "sources": ["llm"],
        "chunk": {"max_tokens": 60},
        "llm_model": "scripted",
        "max_concurrent": CONCURRENT,
        "negatives": {"per_query": 2, "depth": 15, "max_share_of_positive": 1.5},
        "llm": {"base_url": url, "timeout_seconds": 1.0, "round_trip_depth": 100},
    }
    settings = {"artifacts": str(directory), "seed": 3, "generate": own}
    (directory / "nearer.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return [sys.executable, "-m", "nearer", "generate", "-c", str(directory / "nearer.yaml")]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_thousand_passages_through_every_fault_and_five_kills(tmp_path: Path) -> None:
    """Every good reply is paid for once and kept, what failed is kept aside, and what comes of it is a clean dataset."""
    script = Script(
        seed=8, too_many=0.04, broken=0.03, silent=0.002, half=0.05, always_half=0.02, empty=0.03, foreign=0.05,
        duplicate=0.05, dependent=0.05, slow=0.05, delay_seconds=0.001,
    )  # fmt: skip
    with ScriptedLlm(script) as server:
        command = written(tmp_path, 510, server.url)
        for kill in range(1, KILLS + 1):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                server.wait_for(kill * 300, seconds=600)
                process.kill()
        last = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
        assert last.returncode == 0, last.stderr[-3000:]
        repeated, most, requests, good = server.repeated(), server.most, len(server.calls), len(server.good)
    assert repeated <= KILLS * CONCURRENT
    assert most <= 2 * CONCURRENT  # those of a killed one may still be answered
    directory = tmp_path / "datasets/d"
    dataset = Dataset.load(directory)
    audit = json.loads((directory / "audit.json").read_text(encoding="utf-8"))
    account = audit["language_model"]
    assert len(dataset.passages) >= 1000
    kept = rows_of(directory / "llm_replies.jsonl")
    assert len(kept) == len({row["key"] for row in kept}) >= good
    failures = rows_of(directory / "llm_failures.jsonl")
    assert sum(account["failed"].values()) == len(failures) > 0
    for rule in ("other-language", "depends-on-passage", "near-duplicate-query"):
        assert audit["dropped"][rule]["count"] > 0, rule
    assert find_leaks(dataset, near_duplicate=0.7, seed=3) == []
    print(
        f"{len(dataset.passages)} passages, {requests} requests, {good} good replies, {repeated} of them twice over "
        f"{KILLS} kills, {len(failures)} failures, {len(dataset.queries)} queries; dropped: "
        f"{ {rule: found['count'] for rule, found in audit['dropped'].items()} }"
    )
