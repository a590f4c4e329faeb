"""Which recipe makes retrieval better? Corpora x recipes x seeds, one table.

    python tests/bench/recipes.py CORPUS... [--embedders NAME...] [--rerankers NAME...] [--seeds 13 14 15]
                                  [--directory recipes-run] [--steps N] [--inner]
                                  [--precision bf16] [--list]

A corpus is `demo` (the sample that ships with nearer, with questions as people ask them), a JSON lines file of documents
(its headings are the queries; with `:descriptions` or `:keywords` after its name these are, see corpora.py), a JSON file
in SQuAD's form (KorQuAD's), or a directory in BEIR's or the guide's form (documents.jsonl, eval.jsonl). Base model is
multilingual-e5-small, from a package.

Each recipe is what is written below, over what korean_help.py has; what is chosen while it trains is chosen on
validation. Rerankers start from, and come after, the embedder of the first recipe that is named. The table says nDCG@10
on the test queries, mean over seeds, before and after (of an embedder: the base model; of a reranker: the tuned
embedder's own list), the relative difference with its paired 95 % interval (each query's mean over seeds, resampled by
group of documents), and the CPU-minutes of training a seed, with the retrieval of lists; below it each recipe is
compared with the first that is named, query by query, in the same way. Artifacts are found again by
their fingerprints, so a run that was stopped goes on, and another recipe costs only itself.

With `--inner` the documents that the corpus' test queries ask for are left out, near-duplicates too, and the rest is
divided anew: there recipes may be compared and chosen without a look at the test queries.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from corpora import descriptions, keywords, reading_test
from ideas import IDEAS
from korean_help import EMBEDDER, MEASURE, MODEL, RERANKER, mean, per_query, training_minutes

from nearer.cli.app import run
from nearer.corpus.dataset import Dataset
from nearer.corpus.read import read_documents
from nearer.demo import e5
from nearer.ranking.compare import Comparison, compare

KINDS = {"descriptions": descriptions, "keywords": keywords}
EMBEDDERS: dict[str, dict[str, Any]] = {
    "common": {},
    "plain": {"learning_rate": 2e-5, "scale": 20, "dropout": None, "freeze": {}, "negatives_per_query": 0},
    "short": {"max_query_tokens": 32, "max_passage_tokens": 64},
    "nothing-frozen": {"freeze": {}},
    "eight-frozen": {"freeze": {"embeddings": True, "layers": 8}},
    "no-hard-negative": {"negatives_per_query": 0},
    "three-hard-negatives": {"negatives_per_query": 3},
    "slower": {"learning_rate": 2e-5},
    "warmer": {"scale": 20},
    "colder": {"scale": 100},
    "no-prefix": {"query_prefix": "", "passage_prefix": ""},
    "three-epochs": {"epochs": 3, "max_steps": None},
    "three-epochs-last": {"epochs": 3, "max_steps": None},
    "three-epochs-wide": {
        "epochs": 3,
        "max_steps": None,
        "validation_queries": 1000,
        "validation_passages": 10_000,
    },
    "larger-batch": {"epochs": 3, "max_steps": None, "batch_size": 96, "learning_rate": 1.4e-4},
    "mask": {},
    "mask-above-0.02": {},
    "distilled": {"negatives_per_query": 3},  # from the reranker `common`, which has to be there
    "layer-decay": {"freeze": {}, "learning_rate": 1.6e-4},
    "lora": {"freeze": {}, "lora": {}, "learning_rate": None},
    "lora-faster": {"freeze": {}, "lora": {}, "learning_rate": 8e-4},
}
WIDER: dict[str, Any] = {"batch_size": 32, "hard_negatives": 6, "freeze": {"embeddings": True, "layers": 4}}
"""What a reranker's recipe had until it had to fit into an hour of a CPU without bf16."""
RERANKERS: dict[str, dict[str, Any]] = {
    "common": {},
    "mined": {"negatives_from": "dataset"},
    "wider": WIDER,
    "wider-one-epoch": {**WIDER, "epochs": 1},
    "wider-binary": {**WIDER, "loss": "binary"},
    "one-epoch": {"epochs": 1},
    "half-an-epoch": {"epochs": 0.5},
    "binary": {"loss": "binary"},
    "binary-mined": {"loss": "binary", "negatives_from": "dataset"},
    "binary-short": {
        "loss": "binary", "negatives_from": "dataset", "hard_negatives": 1, "random_negatives": 2, "max_steps": 60,
    },
    "no-curriculum": {"curriculum": 0},
    "no-random": {"hard_negatives": 5, "random_negatives": 0},
    "fast-head": {},
    "mean-head": {},
    "from-base": {"base_model": MODEL},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents with their queries, and one dataset made of them."""

    name: str
    generate: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        """Its address."""
        return f"datasets/{self.name}"


def corpus_of(word: str) -> Corpus:
    """What the command line means."""
    if word == "demo":
        there = Path("data/demo")
        there.mkdir(parents=True, exist_ok=True)
        for name in ("documents.jsonl", "eval.jsonl"):
            (there / name).write_bytes((resources.files("nearer.demo") / "data" / name).read_bytes())
        return Corpus(name="demo", generate={**in_folder(there), "chunk": {"max_tokens": 128}})
    place, _, kind = word.partition(":")
    path = Path(place)
    if path.is_dir():
        return Corpus(name=path.name, generate=in_folder(path))
    name = path.parent.name if path.stem == "documents" else path.stem
    if kind or path.suffix == ".json":
        name = f"{name}-{kind}" if kind else name
        folder = Path("data") / name
        (KINDS[kind] if kind else reading_test)(path, folder)
        return Corpus(name=name, generate={"documents": str(folder), "test_share": 0.35})
    own: dict[str, Any] = {"documents": str(path), "sources": ["headings"], "test_share": 0.35}
    return Corpus(name=name, generate=own)


def in_folder(path: Path) -> dict[str, Any]:
    """BEIR's files, or the guide's."""
    documents, questions = path / "documents.jsonl", path / "eval.jsonl"
    if not documents.exists():
        return {"documents": str(path)}
    return {"documents": str(documents), **({"queries": str(questions)} if questions.exists() else {})}


def inner(corpus: Corpus) -> Corpus:
    """The corpus without the groups of documents that its test queries ask for; it is a JSON lines file."""
    dataset, path = Dataset.load(Path(corpus.dataset)), Path(corpus.generate["documents"])
    closed = set(groups_of(dataset).values())
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    there = Path("data") / f"{corpus.name}-inner" / "documents.jsonl"
    there.parent.mkdir(parents=True, exist_ok=True)
    kept = [
        line
        for line, document in zip(lines, read_documents(path), strict=True)
        if dataset.groups.get(document.id, document.id) not in closed
    ]
    there.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return Corpus(name=f"{corpus.name}-inner", generate={**corpus.generate, "documents": str(there)})


def nearer(name: str, document: Mapping[str, Any], *command: str) -> None:
    """Run a command with a settings file of that name; stop if it fails."""
    path = Path("settings") / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(dict(document), allow_unicode=True), encoding="utf-8")
    if code := run([*command, "-c", str(path)]):
        sys.exit(f"nearer {' '.join(command)} -c {path} ended with {code}")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One recipe on one corpus with one seed."""

    corpus: Corpus
    embedder: str
    reranker: str | None
    seed: int
    steps: int | None
    precision: str

    def values(self) -> tuple[dict[str, float], dict[str, float], float]:
        """The measure of each test query before and after, and the CPU-minutes that the change took."""
        limit = {"max_steps": self.steps} if self.steps else {}
        name = f"{self.corpus.name}-{self.embedder}-{self.seed}"
        embedder = f"models/{name}"
        train: dict[str, Any] = {"embedding": {**EMBEDDER, **EMBEDDERS[self.embedder], **limit, "output_dir": embedder}}
        before, after, output = "base", "tuned", embedder
        if self.reranker is not None:
            name = f"{name}-{self.reranker}"
            before, after, output = "tuned", "tuned+reranker", f"models/{name}"
            recipe = {"base_model": embedder, "retriever": embedder, **RERANKER, **RERANKERS[self.reranker]}
            train["reranker"] = {**recipe, **limit, "output_dir": output}
        document = {
            "seed": self.seed,
            "generate": {**self.corpus.generate, "output_dir": self.corpus.dataset},
            "train": {model: {"dataset": self.corpus.dataset, **section} for model, section in train.items()},
            "eval": {
                "dataset": self.corpus.dataset, "output_dir": f"reports/{name}", "rerank_depth": RERANKER["rerank_depth"],
                "reranked": ["tuned"], "batch_tokens": 2048, "speed_queries": 0,
                "precision": self.precision,
            },
        }  # fmt: skip
        first = Path(f"models/{self.corpus.name}-common-{self.seed}-common")
        with IDEAS[idea](first) if (idea := self.reranker or self.embedder) in IDEAS else nullcontext():
            nearer(name, document, "train")
            nearer(name, document, "eval")
        old, new = (per_query(Path(f"reports/{name}"), system) for system in (before, after))
        return old, new, training_minutes(Path(output))


def groups_of(dataset: Dataset) -> dict[str, str]:
    """Test query → group of the documents that answer it."""
    found = {}
    for judgment in dataset.test:
        passage = judgment.level == "passage"
        document = dataset.passages[judgment.target].document_id if passage else judgment.target
        found[judgment.query_id] = dataset.groups.get(document, document)
    return found


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a recipe brought on a corpus: the measure of each test query, mean over seeds, and minutes a seed."""

    corpus: Corpus
    recipe: str
    before: dict[str, float]
    after: dict[str, float]
    minutes: float
    groups: dict[str, str]

    def line(self, *, seed: int) -> str:
        """A line of the table."""
        result = compare(self.before, self.after, self.groups, seed=seed)
        return (
            f"{self.corpus.name:<28} {self.recipe:<32} {self.minutes:>5.1f}  "
            f"{result.before:.4f} -> {result.after:.4f}  {between(result)}, "
            f"{result.queries} queries, {result.groups} groups"
        )

    def beside(self, first: Measurement, *, seed: int) -> str:
        """How it compares with another recipe, query by query."""
        result = compare(first.after, self.after, self.groups, seed=seed)
        return f"{self.corpus.name:<28} {self.recipe:<32} against {first.recipe}: {between(result)}"


def between(result: Comparison) -> str:
    """A relative difference with its interval."""
    return f"{result.relative:+.1%} ({result.relative_low:+.1%} to {result.relative_high:+.1%})"


def measure(
    corpus: Corpus, embedder: str, reranker: str | None, *, seeds: list[int], steps: int | None, precision: str
) -> Measurement:
    """One recipe on one corpus."""
    found = {
        seed: Trial(
            corpus=corpus, embedder=embedder, reranker=reranker, seed=seed, steps=steps, precision=precision
        ).values()
        for seed in seeds
    }
    before = mean({seed: old for seed, (old, _, _) in found.items()})
    after = mean({seed: new for seed, (_, new, _) in found.items()})
    return Measurement(
        corpus=corpus,
        recipe=embedder if reranker is None else f"{embedder} + {reranker}",
        before=before,
        after=after,
        minutes=sum(each for _, _, each in found.values()) / len(found),
        groups=groups_of(Dataset.load(Path(corpus.dataset))),
    )


def generate(corpus: Corpus, *, seed: int, precision: str) -> None:
    """Make its dataset."""
    made = {**corpus.generate, "output_dir": corpus.dataset, "negatives": {"per_query": 5}, "precision": precision}
    made.setdefault("chunk", {"max_tokens": 200})
    document = {"seed": seed, "generate": made, "train": {"embedding": {"base_model": MODEL}}}
    nearer(corpus.name, document, "generate")


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="*", metavar="CORPUS")
    parser.add_argument("--embedders", nargs="+", default=["common"], choices=EMBEDDERS, metavar="NAME")
    parser.add_argument("--rerankers", nargs="*", default=[], choices=RERANKERS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 14, 15])
    parser.add_argument("--directory", default="recipes-run", type=Path)
    parser.add_argument("--steps", type=int, help="at most so many steps, to try the bench itself")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of encoding, not of training")
    parser.add_argument("--inner", action="store_true", help="compare on a part of the training documents alone")
    parser.add_argument("--list", action="store_true", help="show the recipes and leave")
    options = parser.parse_args()
    words = [word if word == "demo" else str(Path(word).resolve()) for word in options.corpora]
    if unknown := [word for word in words if ":" in word and word.partition(":")[2] not in KINDS]:
        parser.error(f"{unknown[0]}: after the colon {' or '.join(KINDS)}")
    if missing := [word for word in words if word != "demo" and not Path(word.partition(":")[0]).exists()]:
        parser.error(f"there is no {missing[0]}")
    if options.inner and any(not Path(word).is_file() or Path(word).suffix == ".json" for word in words):
        parser.error("--inner takes files of documents")
    if not (words or options.list):
        parser.error("name a corpus: demo, a file of documents, or a directory")
    options.corpora = words
    return options


def measurements(corpus: Corpus, options: argparse.Namespace) -> Iterator[tuple[Measurement, Measurement]]:
    """Each recipe on a corpus, embedders first, with the first of its kind."""
    generate(corpus, seed=options.seeds[0], precision=options.precision)
    if options.inner:
        corpus = inner(corpus)
        generate(corpus, seed=options.seeds[0], precision=options.precision)
    embedders = [(name, None) for name in options.embedders]
    rerankers = [(options.embedders[0], name) for name in options.rerankers]
    for kind in (embedders, rerankers):
        first = None
        for embedder, reranker in kind:
            found = measure(
                corpus, embedder, reranker, seeds=options.seeds, steps=options.steps, precision=options.precision
            )
            first = first or found
            yield found, first


def main() -> None:
    options = asked()
    if options.list:
        sys.stdout.write(yaml.safe_dump({"embedders": EMBEDDERS, "rerankers": RERANKERS}, sort_keys=False))
        return
    options.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(options.directory)
    if not Path(MODEL).exists():
        e5.convert(e5.package_file(), Path(MODEL))
    lines: list[str] = []
    others: list[str] = []
    for corpus in map(corpus_of, options.corpora):
        for found, first in measurements(corpus, options):
            lines.append(found.line(seed=options.seeds[0]))
            sys.stdout.write(lines[-1] + "\n")
            if found is not first:
                others.append(found.beside(first, seed=options.seeds[0]))
    sys.stdout.write(f"\n{MEASURE}, seeds {options.seeds}; CPU-minutes of training a seed\n")
    sys.stdout.write("\n".join([*lines, *([""] if others else []), *others]) + "\n")


if __name__ == "__main__":
    main()
