"""The pipeline on real Korean help text that nobody wrote for this project: does training make retrieval better?

    python tests/bench/korean_help.py documents.jsonl [--seeds 13 14 15] [--directory DIR] [--no-reranker]

One dataset (headings as queries; train and test apart by group of near-duplicate documents), one training a seed. For
each seed the table of `nearer eval` is printed as it is; at the end nDCG@10 over all seeds, tuned against base and with
the reranker against without and against base, with paired 95 % intervals (each query's mean over seeds, resampled by group of documents),
and the CPU-minutes of training. Where the hyperparameters below come from is in docs/log.md.

The documents may also be named by NEARER_KOREAN_HELP.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from nearer.cli.app import run
from nearer.corpus.dataset import Dataset
from nearer.demo import e5
from nearer.ranking.compare import compare

MEASURE = "nDCG@10"
MODEL = "models/multilingual-e5-small"
EMBEDDER: dict[str, Any] = {
    "base_model": MODEL, "epochs": 1, "batch_size": 32, "learning_rate": 8e-5, "scale": 50, "dropout": 0,
    "max_query_tokens": 64, "max_passage_tokens": 256, "negatives_per_query": 1, "max_steps": 40,
    "evaluations_per_epoch": 1, "validation_queries": 150, "validation_passages": 400,
    "freeze": {"embeddings": True, "layers": 4},
}  # fmt: skip
RERANKER: dict[str, Any] = {
    "epochs": 2, "batch_size": 24, "learning_rate": 6e-5, "dropout": 0, "max_pair_tokens": 96,
    "evaluations_per_epoch": 1, "validation_queries": 200, "freeze": {"embeddings": True, "layers": 6},
    "hard_negatives": 4, "random_negatives": 1, "loss": "listwise", "rerank_depth": 20,
}  # fmt: skip


def settings(documents: Path, seed: int, *, reranker: bool) -> dict[str, object]:
    """One seed's document; all seeds share the dataset. With and without a reranker there are two reports."""
    return {
        "seed": seed,
        "generate": {
            "documents": str(documents.resolve()),
            "sources": ["headings"],
            "output_dir": "datasets/help",
            "test_share": 0.35,
            "chunk": {"max_tokens": 200},
            "negatives": {"per_query": 5},
        },
        "train": {
            "embedding": {**EMBEDDER, "output_dir": f"models/embedding-{seed}"},
            "reranker": {
                **RERANKER,
                "base_model": f"models/embedding-{seed}",
                "output_dir": f"models/reranker-{seed}",
            },
        },
        "eval": {
            "output_dir": str(report(seed, reranker=reranker)),
            "rerank_depth": RERANKER["rerank_depth"],
            "reranked": ["tuned"],
            "batch_tokens": 2048,
        },
    }


def report(seed: int, *, reranker: bool) -> Path:
    """Where a seed's report goes."""
    return Path("reports", str(seed) if reranker else f"{seed}-embedder")


def nearer(*arguments: str) -> None:
    """Run a command as a user would; stop the benchmark if it fails."""
    code = run(list(arguments))
    if code:
        sys.exit(f"nearer {' '.join(arguments)} ended with {code}")


def per_query(report: Path, system: str) -> dict[str, float]:
    """The measure of each test query; nothing for a system that was not compared."""
    rows = [json.loads(text) for text in (report / "per_query.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["query_id"]: row["systems"][system][MEASURE] for row in rows if system in row["systems"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?", default=os.environ.get("NEARER_KOREAN_HELP"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 14, 15])
    parser.add_argument("--directory", default="korean-help-run", type=Path)
    parser.add_argument("--no-reranker", action="store_true")
    options = parser.parse_args()
    if not options.documents or not Path(options.documents).exists():
        parser.error("name the documents: an argument or NEARER_KOREAN_HELP")
    documents = Path(options.documents).resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(options.directory)
    if not Path(MODEL).exists():
        e5.convert(e5.package_file(), Path(MODEL))
    cpu_minutes: dict[int, dict[str, float]] = {}
    for seed in options.seeds:
        document = settings(documents, seed, reranker=not options.no_reranker)
        if options.no_reranker:
            del document["train"]["reranker"]  # type: ignore[attr-defined]
        path = Path(f"seed-{seed}.yaml")
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        shared = ("--set", f"seed={options.seeds[0]}")
        nearer("generate", "-c", str(path), *shared)
        nearer("train", "-c", str(path))
        nearer("eval", "-c", str(path))
        cpu_minutes[seed] = {
            model: training_minutes(Path(f"models/{model}-{seed}"))
            for model in document["train"]  # type: ignore[attr-defined]
        }
    summary({seed: report(seed, reranker=not options.no_reranker) for seed in options.seeds}, cpu_minutes)


def training_minutes(model: Path) -> float:
    """CPU-minutes of training, the retrieval of the lists that a reranker learns from among them."""
    metrics = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    return float(metrics["cpu_seconds"] + metrics.get("retrieval_cpu_seconds", 0.0)) / 60


def summary(reports: dict[int, Path], cpu_minutes: dict[int, dict[str, float]]) -> None:
    """Print what the seeds say together: the embedder against its base, the reranker against the list it was given."""
    seeds = list(reports)
    dataset = Dataset.load(Path("datasets/help"))
    queries = {judgment.query_id: dataset.passages[judgment.target].document_id for judgment in dataset.test}
    groups = {query: dataset.groups[document] for query, document in queries.items()}
    print(f"\n{len(groups)} test queries, {len(set(groups.values()))} groups of documents, seeds {seeds}, {MEASURE}")
    for seed in seeds:
        spent = ", ".join(f"{minutes:.1f} for the {model}" for model, minutes in cpu_minutes[seed].items())
        print(f"  seed {seed}: CPU-minutes of training: {spent}")
    for before, after in (("base", "tuned"), ("tuned", "tuned+reranker"), ("base", "tuned+reranker")):
        old, new = ({seed: per_query(path, system) for seed, path in reports.items()} for system in (before, after))
        if not all(new.values()):
            continue
        for seed in seeds:
            print(f"  {before} -> {after}, seed {seed}: {line(old[seed], new[seed], groups, seeds[0])}")
        print(f"  {before} -> {after}, mean: {line(mean(old), mean(new), groups, seeds[0])}")


def mean(values: dict[int, dict[str, float]]) -> dict[str, float]:
    """Each query's mean over seeds."""
    return {query: sum(of[query] for of in values.values()) / len(values) for query in next(iter(values.values()))}


def line(before: dict[str, float], after: dict[str, float], groups: dict[str, str], seed: int) -> str:
    """Two means, and their relative difference with its paired 95 % interval."""
    result = compare(before, after, groups, seed=seed)
    means = [sum(values.values()) / len(values) for values in (before, after)]
    return (
        f"{means[0]:.4f} -> {means[1]:.4f}, {result.relative:+.1%}, "
        f"95 % interval {result.relative_low:+.1%} to {result.relative_high:+.1%}"
    )


if __name__ == "__main__":
    main()
