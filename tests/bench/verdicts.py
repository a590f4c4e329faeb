"""Whether the verdict is right on real Korean help text, where the right answer is known.

    python tests/bench/verdicts.py DIRECTORY

DIRECTORY is one that `tests/bench/korean_help.py` has filled: its dataset, the base model, a tuned embedder. Five
evaluations: the tuned model as it is; the base model in its place; a damaged one (noise on its weights); 20 queries; test
documents among the training data. For each the verdict is printed beside the one that is right; the exit code is 1 if any is
not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nearer.cli.app import run
from nearer.corpus.dataset import Dataset
from nearer.store import Manifest, open_store

BASE = "models/multilingual-e5-small"
NOISE = 1.0
"""Of the standard deviation of each matrix."""


def damage(source: Path, target: Path) -> None:
    """A copy of a model whose matrices are half noise; not an artifact any more."""
    import torch
    from safetensors.torch import load_file, save_file

    if target.exists():
        return
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("manifest.json", "contract.json"))
    torch.manual_seed(0)
    for path in target.rglob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.ndim == 2 and "embeddings" not in name:
                tensors[name] = tensor + NOISE * tensor.std() * torch.randn_like(tensor)
        save_file(tensors, path, metadata={"format": "pt"})


def leak(source: str, target: str, *, queries: int) -> None:
    """The dataset with some of its test queries' documents in the train part as well."""
    store = open_store(".")
    if store.manifest(target) is not None:
        return
    there = store.open(source, kind="dataset")
    dataset = Dataset.load(there.path)
    stolen = dataset.test[:queries]
    with store.scratch() as directory:
        replace(dataset, train=(*dataset.train, *stolen), test=dataset.test).write(directory)
        store.publish(target, directory, Manifest(kind="dataset", name="generate", fingerprint="1" * 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--embedder", default="models/embedding-13")
    options = parser.parse_args()
    os.chdir(options.directory)
    damage(Path(options.embedder), Path("models/damaged"))
    leak("datasets/help", "datasets/leaked", queries=5)
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        ("tuned", {}, "ship", ""),
        ("base in its place", {"embedder": BASE}, "do not ship", "no difference"),
        ("damaged", {"embedder": "models/damaged"}, "do not ship", "is worse"),
        ("20 queries", {"max_queries": 20}, "inconclusive", "cannot tell"),
        ("leaked", {"dataset": "datasets/leaked"}, "do not ship", "Leakage"),
    ]
    wrong = 0
    for name, changes, right, word in cases:
        fields = {
            "dataset": "datasets/help",
            "base_embedder": BASE,
            "embedder": options.embedder,
            "output_dir": f"reports/{name.replace(' ', '-')}",
            "batch_tokens": 2048,
            "gate": True,
            **changes,
        }
        path = Path(f"verdict-{name.replace(' ', '-')}.yaml")
        path.write_text(yaml.safe_dump({"seed": 13, "eval": fields}), encoding="utf-8")
        code = run(["eval", "-c", str(path)])
        report = json.loads((Path(fields["output_dir"]) / "report.json").read_text(encoding="utf-8"))
        verdict = report["verdict"]
        good = (
            verdict["decision"] == right
            and any(word in one for one in verdict["reasons"])
            and code == 3 * (right != "ship")
        )
        wrong += not good
        print(f"\n{'ok' if good else 'WRONG'}: {name}: {verdict['decision']} (right: {right}), exit code {code}\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
