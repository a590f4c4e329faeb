"""What does validation know? Each checkpoint of a training, on the validation queries and on the test's.

    python tests/bench/checkpoints.py CORPUS [--embedder three-epochs-wide] [--seeds 13 14 15] [--directory recipes-run]
                                      [--inner] [--precision bf16]

As `recipes.py`, in whose directory it can run; the weights of all validations are kept. Each line says of a checkpoint,
the base model left out, its nDCG@10 on the validation queries, how far it lies from the last one there (mean of the
differences, and their standard error, query by query), its nDCG@10 on the test queries over the whole corpus, and
whether it is the one that was published.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from korean_help import EMBEDDER, MODEL
from merging import tested
from recipes import EMBEDDERS, Corpus, corpus_of, generate, inner, nearer
from safetensors.torch import load_file, save_file
from weights import source

from nearer.corpus.dataset import Dataset
from nearer.demo import e5
from nearer.models.load import load_embedder
from nearer.ranking.metrics import NDCG
from nearer.train.loop import _Run
from nearer.train.measure import standard_error


@contextmanager
def kept(directory: Path) -> Iterator[None]:
    """Keep what each validation measured, and the weights of that step."""
    plain = _Run.evaluate

    def evaluate(run: Any, step: int) -> None:
        validate = run.validate

        def noted() -> Any:
            measured = validate()
            (directory / f"{step}.json").write_text(json.dumps([float(value) for value in measured.values]))
            return measured

        with patch.object(run, "validate", noted):
            plain(run, step)
        weights = run.trainer.model.state_dict()
        save_file({name: value.detach().clone() for name, value in weights.items()}, directory / f"{step}.safetensors")

    with patch.object(_Run, "evaluate", evaluate):
        yield


def table(corpus: Corpus, embedder: str, seed: int, *, precision: str) -> Iterator[str]:
    """A line for each validation of a training."""
    name = f"{corpus.name}-{embedder}-{seed}-kept"
    directory = Path("checkpoints") / name
    directory.mkdir(parents=True, exist_ok=True)
    train = {"dataset": corpus.dataset, **EMBEDDER, **EMBEDDERS[embedder], "output_dir": f"models/{name}"}
    with kept(directory):
        nearer(name, {"seed": seed, "generate": {"output_dir": corpus.dataset}, "train": {"embedding": train}}, "train")
    dataset = Dataset.load(Path(corpus.dataset))
    values = {int(path.stem): np.array(json.loads(path.read_text())) for path in directory.glob("*.json")}
    last = max(values)
    published = json.loads((Path("models") / name / "manifest.json").read_text(encoding="utf-8"))["metrics"][
        "best_step"
    ]
    for step in sorted(values)[1:]:
        model = load_embedder(source(Path("models") / name), device="cpu", precision="fp32")
        model.model.load_state_dict(load_file(directory / f"{step}.safetensors"))
        if precision == "bf16":
            model.model.bfloat16()
        found = tested(model, dataset)
        gap = values[step] - values[last]
        yield (
            f"seed {seed}, step {step:>4}: validation {values[step].mean():.4f} ({len(gap)} queries), from the last "
            f"{gap.mean():+.4f} ± {standard_error(gap):.4f}; {NDCG} on the test {sum(found.values()) / len(found):.4f}"
            + (", published" if step == published else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--embedder", default="three-epochs-wide", choices=EMBEDDERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 14, 15])
    parser.add_argument("--directory", default="recipes-run", type=Path)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of encoding, not of training")
    parser.add_argument("--inner", action="store_true", help="on a part of the training documents alone")
    options = parser.parse_args()
    word = options.corpus if options.corpus == "demo" else str(Path(options.corpus).resolve())
    options.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(options.directory)
    if not Path(MODEL).exists():
        e5.convert(e5.package_file(), Path(MODEL))
    corpus = corpus_of(word)
    generate(corpus, seed=13, precision=options.precision)
    if options.inner:
        corpus = inner(corpus)
        generate(corpus, seed=13, precision=options.precision)
    for seed in options.seeds:
        for line in table(corpus, options.embedder, seed, precision=options.precision):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
