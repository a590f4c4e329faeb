"""Between the base model's weights and the tuned ones: does a model in between find more, here or elsewhere?

    python tests/bench/merging.py DATASET BASE TUNED... [--shares 0.25 0.5 0.75 1 1.25] [--precision bf16]

Directories that `recipes.py` (or nearer) has made. The model whose weights lie a share of the way from the base model's to the
tuned one's (Wortsman et al. 2022, Robust fine-tuning of zero-shot models, eq. 1) ranks the whole corpus for the test
queries: nDCG@10, its relative difference from the base model with a paired 95 % interval by group of documents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes import groups_of
from weights import source

from nearer.corpus.dataset import Dataset
from nearer.models.contract import render_passage
from nearer.models.encode import Embedder
from nearer.models.load import load_embedder
from nearer.ranking import dense
from nearer.ranking.compare import compare
from nearer.ranking.metrics import NDCG, evaluate, on_documents, relevant, to_documents


def tested(embedder: Embedder, dataset: Dataset) -> dict[str, float]:
    """nDCG@10 of each test query over the whole corpus."""
    texts = {
        passage.id: render_passage(dataset.chunking.template, title=passage.title, path=passage.path, text=passage.text)
        for passage in dataset.passages.values()
    }
    names = sorted({judgment.query_id for judgment in dataset.test})
    queries = embedder.encode_queries([dataset.queries[name].text for name in names], batch_tokens=2048)
    passages = embedder.encode_passages(list(texts.values()), batch_tokens=2048)
    run = dict(zip(names, dense.search(queries, passages, list(texts), 100), strict=True))

    def document_of(key: str) -> str:
        return dataset.passages[key].document_id

    whole = on_documents(dataset.test)
    ranked = {name: to_documents(hits, document_of) if name in whole else hits for name, hits in run.items()}
    found = evaluate(ranked, relevant(dataset.test, document_of), [10]).per_query
    return {name: values[NDCG] for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("tuned", type=Path, nargs="+")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75, 1.0, 1.25])
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    groups = groups_of(dataset)
    before = None
    for path in options.tuned:
        embedder = load_embedder(source(options.base), device="cpu", precision="fp32")
        base = {name: weight.clone() for name, weight in embedder.model.state_dict().items()}
        tuned = load_embedder(source(path), device="cpu", precision="fp32").model.state_dict()
        for share in ([0.0] if before is None else []) + options.shares:
            merged = load_embedder(source(options.base), device="cpu", precision="fp32")
            merged.model.load_state_dict(
                {
                    name: weight.lerp(tuned[name], share) if weight.is_floating_point() else weight
                    for name, weight in base.items()
                }
            )
            if options.precision == "bf16":
                merged.model.bfloat16()
            values = tested(merged, dataset)
            before = before or values
            result = compare(before, values, groups, seed=13)
            print(
                f"{path} {share:>5}: {result.after:.4f}, {result.relative:+.1%} "
                f"({result.relative_low:+.1%} to {result.relative_high:+.1%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
