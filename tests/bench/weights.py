"""By which rule should a reranker's weight beside its retriever's scores be chosen?

    python tests/bench/weights.py DATASET RETRIEVER RERANKER [--passages 1000 10000] [--depth 20] [--resamplings 100]

Directories that `recipes.py` (or nearer) has made. Each rule chooses from the validation queries, which are drawn anew,
with replacement, as often as is said; what is printed is the gain in nDCG@10 on the test queries, over the whole corpus,
that comes with the weights so chosen: mean and standard deviation over the draws, and for the queries as they are. The
lists of the validation queries are over so many passages as `--passages` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nearer.corpus.dataset import Dataset
from nearer.models.contract import render_passage
from nearer.models.load import load_embedder, load_reranker
from nearer.models.score import Reranker
from nearer.models.source import ModelSource
from nearer.ranking import dense
from nearer.ranking.fuse import interpolate
from nearer.ranking.metrics import NDCG, evaluate, on_documents, relevant, to_documents
from nearer.records import Hit, Judgment
from nearer.train.lists import retrieve
from nearer.train.rows import prepare
from nearer.train.weight import _tops, likeliest
from nearer.train.world import ALONE

WEIGHTS = np.round(np.linspace(0, 1, 101), 2)
Rule = Callable[[np.ndarray, Sequence[object]], float]


def source(path: Path) -> ModelSource:
    return ModelSource(name=str(path), path=path, fingerprint="", origin="directory", revision="")


def reranked(
    reranker: Reranker,
    lists: Mapping[str, list[Hit]],
    queries: Mapping[str, str],
    texts: Mapping[str, str],
    *,
    depth: int,
) -> dict[str, dict[str, float]]:
    """The reranker's score of each list's first passages."""
    pairs = [(query, hit.target) for query, hits in lists.items() for hit in hits[:depth]]
    found = reranker.score([(queries[query], texts[key]) for query, key in pairs], batch_tokens=2048)
    scores: dict[str, dict[str, float]] = {query: {} for query in lists}
    for (query, key), score in zip(pairs, found.tolist(), strict=True):
        scores[query][key] = score
    return scores


def curves(
    lists: Mapping[str, list[Hit]],
    scores: Mapping[str, Mapping[str, float]],
    judgments: Sequence[Judgment],
    document_of: Callable[[str], str],
    *,
    depth: int,
) -> np.ndarray:
    """nDCG@10 by weight and query, (101, queries in ascending order)."""
    whole, answers = on_documents(judgments), relevant(judgments, document_of)
    rows = []
    for weight in WEIGHTS.tolist():
        run = {query: interpolate(hits, scores[query], depth=depth, weight=weight) for query, hits in lists.items()}
        run = {query: to_documents(hits, document_of) if query in whole else hits for query, hits in run.items()}
        found = evaluate(run, answers, [10]).per_query
        rows.append([found[query][NDCG] for query in sorted(found)])
    return np.array(rows)


def best_of_eleven(values: np.ndarray, _lists: Sequence[object]) -> float:
    mean = values[::10].mean(axis=1)
    return float(WEIGHTS[::10][int(mean.argmax())])


def running_mean(values: np.ndarray, _lists: Sequence[object]) -> float:
    mean = np.pad(values[::5].mean(axis=1), 3, mode="edge")
    smooth = np.convolve(mean, np.ones(7) / 7, mode="valid")
    return float(WEIGHTS[::5][int(smooth.argmax())])


def the_likeliest(values: np.ndarray, tops: Sequence[object]) -> float:
    weight = round(likeliest(tops), 2)  # type: ignore[arg-type]
    gain = values[round(weight * 100)] - values[0]
    return 0.0 if gain.mean() < -gain.std() / np.sqrt(len(gain)) else weight


RULES: dict[str, Rule] = {
    "best nDCG@10 of 11 weights": best_of_eleven,
    "best running mean of 7 of 21": running_mean,
    "the likeliest (nearer's)": the_likeliest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("retriever", type=Path)
    parser.add_argument("reranker", type=Path)
    parser.add_argument("--passages", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--queries", type=int, default=200, help="validation queries at most")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--resamplings", type=int, default=100)
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    embedder = load_embedder(source(options.retriever), device="cpu")
    reranker = load_reranker(source(options.reranker), device="cpu")
    texts = {
        passage.id: render_passage(dataset.chunking.template, title=passage.title, path=passage.path, text=passage.text)
        for passage in dataset.passages.values()
    }
    tested = {judgment.query_id: dataset.queries[judgment.query_id].text for judgment in dataset.test}
    vectors = embedder.encode_queries(list(tested.values())), embedder.encode_passages(list(texts.values()))
    lists = dict(zip(tested, dense.search(*vectors, list(texts), 100), strict=True))
    scores = reranked(reranker, lists, tested, texts, depth=options.depth)
    test = curves(lists, scores, dataset.test, lambda key: dataset.passages[key].document_id, depth=options.depth).mean(
        axis=1
    )
    best = int(test.argmax())
    print(
        f"{len(tested)} test queries: {test[0]:.4f}; best at a weight of {WEIGHTS[best]}: {test[best] / test[0] - 1:+.1%}"
    )
    for passages in options.passages:
        material = prepare(
            dataset,
            val_split=0.1,
            validation_queries_max=options.queries,
            validation_passages_max=passages,
            seed=options.seed,
        )
        validation = material.validation
        lists = dict(retrieve(embedder, material, depth=None, passages=1, seed=options.seed, world=ALONE).candidates)
        scores = reranked(reranker, lists, validation.queries, material.texts, depth=options.depth)
        values = curves(lists, scores, validation.judgments, validation.document_of.__getitem__, depth=options.depth)
        tops = _tops({query: lists[query] for query in sorted(lists)}, scores, validation, depth=options.depth)
        print(f"{len(tops)} validation queries over {len(validation.passages)} passages: {values[0].mean():.4f}")
        for name, rule in RULES.items():
            draw = np.random.default_rng(options.seed)
            gains = []
            for _ in range(options.resamplings):
                rows = draw.integers(len(tops), size=len(tops))
                weight = rule(values[:, rows], [tops[row] for row in rows])
                gains.append(test[round(weight * 100)] / test[0] - 1)
            weight = rule(values, tops)
            own = test[round(weight * 100)] / test[0] - 1
            print(f"  {name:<32} {np.mean(gains):+.1%} ± {np.std(gains):.1%}; as they are: {weight} → {own:+.1%}")


if __name__ == "__main__":
    main()
