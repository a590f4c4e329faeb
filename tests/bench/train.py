"""Training of the embedder against a plain sentence-transformers script: the same model, rows, batch, lengths, loss.

    python tests/bench/train.py documents.jsonl [--steps 40] [--repeats 2] [--directory DIR] [--threads 2]

Both train multilingual-e5-small on the headings of the documents: 32 rows a step, one hard negative each, texts cut at 64
tokens, InfoNCE over the batch at the same scale, AdamW at the same rate and schedule, every weight trained. The peer is
what the library's own documentation shows: its trainer, its loss, its defaults, which are fp32; also with its `bf16`.
What differs is what nearer does on its own: lengths grouped, no dropout, a fused optimizer, token ids made once, a
vocabulary's gradient that is kept, threads that sleep; and `precision: auto`, which is bf16 on a CPU that has it.

A process of its own each time, by turns. The time of a step is that of a whole run less that of a run of one step, so
loading, tokenising a first batch and validation (before and after, in ours alone) count for neither. Then both models
are evaluated by `nearer eval` on the same test queries.

The documents may also be named by NEARER_KOREAN_HELP.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import korean_help
import yaml

from nearer.cli.app import run
from nearer.demo import e5

MODEL = "models/multilingual-e5-small"
ROWS, TOKENS, SCALE, RATE, SEED = 32, 64, 50.0, 8e-5, 13
MEASURE = "nDCG@10"
FROZEN = {"embeddings": True, "layers": 4}

PEER = """
import json, sys
from pathlib import Path
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

rows, target, steps, batch, tokens, scale, rate, seed, bf16 = json.loads(sys.argv[1])
model = SentenceTransformer("models/multilingual-e5-small", device="cpu")
model.max_seq_length = tokens
arguments = SentenceTransformerTrainingArguments(
    output_dir="trainer", max_steps=steps, per_device_train_batch_size=batch, learning_rate=rate, warmup_steps=steps // 10,
    seed=seed, save_strategy="no", report_to="none", disable_tqdm=True, bf16=bf16, use_cpu=True,
)
SentenceTransformerTrainer(
    model=model, args=arguments, train_dataset=Dataset.from_list(json.loads(Path(rows).read_text())),
    loss=MultipleNegativesRankingLoss(model, scale=scale),
).train()
model.save_pretrained(target)
"""


def settings(documents: Path, *, name: str, steps: int, freeze: dict[str, object], precision: str) -> dict[str, object]:
    """Ours, in the words of a settings file."""
    return {
        "seed": SEED,
        "generate": korean_help.settings(documents, SEED, reranker=False)["generate"],
        "train": {
            "embedding": {
                "base_model": MODEL,
                "output_dir": f"models/{name}",
                "batch_size": ROWS,
                "learning_rate": RATE,
                "scale": SCALE,
                "dropout": 0,
                "max_query_tokens": TOKENS,
                "max_passage_tokens": TOKENS,
                "max_steps": steps,
                "evaluations_per_epoch": 1,
                "validation_queries": 150,
                "validation_passages": 400,
                "precision": precision,
                "freeze": freeze,
            }
        },
        "eval": {
            "embedder": f"models/{name}",
            "models": ["models/plain", "models/plain-bf16"],
            "output_dir": f"reports/{name}",
            "bm25": False,
            "speed_queries": 0,
            "batch_tokens": 2048,
        },
    }


def command(*arguments: str) -> tuple[float, float]:
    """Run a process to its end; its wall and CPU seconds."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - wall, cpu


def plain(name: str, steps: int, *, bf16: bool) -> tuple[float, float]:
    """The peer's script."""
    given = ["rows.json", f"models/{name}", steps, ROWS, TOKENS, SCALE, RATE, SEED, bf16]
    return command(sys.executable, "-c", PEER, json.dumps(given))


def ours(
    documents: Path, name: str, steps: int, freeze: dict[str, object], precision: str = "fp32"
) -> tuple[float, float]:
    """`nearer train embedding`."""
    shutil.rmtree(f"models/{name}", ignore_errors=True)
    path = Path(f"{name}.yaml")
    path.write_text(
        yaml.safe_dump(settings(documents, name=name, steps=steps, freeze=freeze, precision=precision)),
        encoding="utf-8",
    )
    return command(sys.executable, "-m", "nearer", "train", "embedding", "-c", str(path), "--overwrite")


def write_rows() -> int:
    """The rows that train in ours, as the peer is given them: texts with their prefixes; how many."""
    from nearer.corpus.dataset import Dataset
    from nearer.models.contract import Contract
    from nearer.train.rows import prepare

    dataset = Dataset.load(Path("datasets/help"))
    material = prepare(dataset, val_split=0.1, validation_queries_max=150, validation_passages_max=400, seed=SEED)
    contract = Contract.load(Path(MODEL))
    query, passage = (contract.query_prefix, contract.passage_prefix) if contract else ("query: ", "passage: ")
    rows = [
        {
            "anchor": query + material.queries[row.query_id],
            "positive": passage + material.texts[row.positive],
            "negative": passage + material.texts[material.negatives[row.query_id][0]],
        }
        for row in material.rows
        if material.negatives[row.query_id]
    ]
    Path("rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return len(rows)


def main() -> None:
    """Train by turns, then evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?", default=os.environ.get("NEARER_KOREAN_HELP"))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--directory", default="train-bench-run", type=Path)
    options = parser.parse_args()
    if not options.documents or not Path(options.documents).exists():
        parser.error("name the documents: an argument or NEARER_KOREAN_HELP")
    documents = Path(options.documents).resolve()
    options.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(options.directory)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not Path(MODEL).exists():
        e5.convert(e5.package_file(), Path(MODEL))
    first = Path("generate.yaml")
    first.write_text(
        yaml.safe_dump(settings(documents, name="ours", steps=1, freeze={}, precision="auto")), encoding="utf-8"
    )
    if code := run(["generate", "-c", str(first)]):
        sys.exit(f"nearer generate ended with {code}")
    print(f"{write_rows():,} rows, {options.steps} steps of {ROWS}, {options.threads} threads", flush=True)

    kinds = {
        "sentence-transformers, plain": lambda steps: plain("plain", steps, bf16=False),
        "nearer, precision fp32": lambda steps: ours(documents, "ours", steps, {}),
        "sentence-transformers, bf16": lambda steps: plain("plain-bf16", steps, bf16=True),
        "nearer, precision auto": lambda steps: ours(documents, "auto", steps, {}, "auto"),
        "nearer, fp32, 4 layers and embeddings frozen": lambda steps: ours(documents, "frozen", steps, FROZEN),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(options.repeats):
        for name, train in kinds.items():
            short, whole = train(1), train(options.steps)
            found[name].append(tuple((b - a) / (options.steps - 1) for a, b in zip(short, whole, strict=True)))
            print(f"  {name}: {found[name][-1][0]:.2f} s, {found[name][-1][1]:.2f} CPU-s a step", flush=True)
    peer_wall, peer_cpu = (statistics.median(values) for values in zip(*next(iter(found.values())), strict=True))
    for name, runs in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        print(
            f"{name:<46} {ROWS / wall:6.2f} rows/s {peer_wall / wall:5.2f}   {cpu:6.2f} CPU-s a step {peer_cpu / cpu:5.2f}"
        )
    for name in ("ours", "auto", "frozen"):
        if code := run(["eval", "-c", f"{name}.yaml", "--overwrite"]):
            sys.exit(f"nearer eval ended with {code}")
        report = json.loads(Path(f"reports/{name}/report.json").read_text(encoding="utf-8"))
        for system, what in report["systems"].items():
            print(f"{name}: {system} {MEASURE} {what['metrics'][MEASURE]:.4f}")


if __name__ == "__main__":
    main()
