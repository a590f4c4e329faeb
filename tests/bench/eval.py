"""How long exact evaluation takes: ours, faiss's flat search on the same data, and sentence-transformers' evaluator.

    python tests/bench/eval.py [--queries 10000] [--passages 1000000] [--peer-passages 100000] [--threads N]

Synthetic unit vectors of 384 dimensions, one relevant passage a query (its own vector and noise). Ours is `dense.Index`
(checks, ids, ties by id) with 100 results a query, and then every measure. faiss is `IndexFlatIP.search` with k = 100, the
vectors already in its index; the turns alternate. Each runs in a process of its own, whose peak memory is the kernel's
figure. On a machine with other work CPU-seconds say more than seconds. sentence-transformers' InformationRetrievalEvaluator gets the same vectors through a model that looks them up; it
keeps scores of a chunk for all queries and sorts in Python, so it is given fewer passages, and ours is timed on as many.

Target: at most 1.2 times faiss's search, below 8 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

DIMENSION, K = 384, 100


def vectors(queries: int, passages: int) -> tuple[object, object]:
    """Unit vectors, float32: (queries, 384) and (passages, 384); query i asks for passage i."""
    import numpy as np

    draw = np.random.default_rng(1)
    corpus = np.empty((passages, DIMENSION), dtype=np.float32)
    for start in range(0, passages, 50_000):
        block = draw.standard_normal((min(50_000, passages - start), DIMENSION), dtype=np.float32)
        corpus[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    asked = corpus[:queries] + 0.16 * draw.standard_normal((queries, DIMENSION), dtype=np.float32)
    return asked / np.linalg.norm(asked, axis=1, keepdims=True), corpus


def ours(asked: object, corpus: object) -> dict[str, float]:
    """Search and score."""
    from nearer.ranking import dense, metrics

    ids = [f"p{number:07d}" for number in range(len(corpus))]
    start, cpu = time.perf_counter(), time.process_time()
    hits = dense.Index(corpus, ids).search(asked, K)
    searched, computed = time.perf_counter() - start, time.process_time() - cpu
    names = [f"q{number:05d}" for number in range(len(asked))]
    scores = metrics.evaluate(
        dict(zip(names, hits, strict=True)),
        {name: {ids[number]: 1} for number, name in enumerate(names)},
        [1, 3, 5, 10],
    )
    return {
        "search": searched,
        "cpu": computed,
        "measures": time.perf_counter() - start - searched,
        "nDCG@10": scores.mean["nDCG@10"],
    }


def flat(asked: object, corpus: object) -> dict[str, float]:
    """faiss alone."""
    import faiss

    index = faiss.IndexFlatIP(DIMENSION)
    index.add(corpus)
    start, cpu = time.perf_counter(), time.process_time()
    index.search(asked, K)
    return {"search": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def evaluator(asked: object, corpus: object) -> dict[str, float]:
    """sentence-transformers' evaluator, over a model that looks vectors up."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Lookup(torch.nn.Module):
        similarity_fn_name = "cosine"
        device = torch.device("cpu")
        model_card_data = None

        def encode(self, texts: list[str], **_: object) -> torch.Tensor:
            table = asked if texts[0].startswith("q") else corpus
            return torch.from_numpy(table[[int(text[1:]) for text in texts]])

        encode_query = encode_document = encode

        @staticmethod
        def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a @ b.T

    peer = InformationRetrievalEvaluator(
        {f"q{number}": f"q{number}" for number in range(len(asked))},
        {f"p{number}": f"p{number}" for number in range(len(corpus))},
        {f"q{number}": {f"p{number}"} for number in range(len(asked))},
        map_at_k=[K],
        write_csv=False,
        score_functions={"dot": Lookup.similarity},
    )
    start = time.perf_counter()
    found = peer.compute_metrices(Lookup())
    return {"search": time.perf_counter() - start, "nDCG@10": found["dot"]["ndcg@k"][10]}


def child(name: str, queries: int, passages: int) -> None:
    """One measurement in this process; a line of JSON."""
    data = vectors(queries, passages)
    found = {"ours": ours, "faiss": flat, "evaluator": evaluator}[name](*data)
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found["load"] = os.getloadavg()[0]
    print("\n" + json.dumps(found))


def measure(name: str, queries: int, passages: int, threads: int) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--queries", str(queries), "--passages", str(passages)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
    print(f"{name:10} {queries} x {passages}: {shown}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--peer-passages", type=int, default=100_000)
    parser.add_argument("--peer-queries", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--child", choices=["ours", "faiss", "evaluator"])
    options = parser.parse_args()
    if options.child:
        child(options.child, options.queries, options.passages)
        return
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.repetitions):
        for name in ("faiss", "ours"):
            found = measure(name, options.queries, options.passages, options.threads)
            best[name] = min(best.get(name, found), found, key=lambda one: one["search"])
    whole = best["ours"]["search"] + best["ours"]["measures"]
    print(f"ours / faiss: search {best['ours']['search'] / best['faiss']['search']:.2f}, ", end="")
    print(f"in CPU-seconds {best['ours']['cpu'] / best['faiss']['cpu']:.2f}, ", end="")
    print(f"with measures {whole / best['faiss']['search']:.2f}; peak {best['ours']['peak_gb']:.1f} GB")
    small = (options.peer_queries, options.peer_passages, options.threads)
    peer, own = measure("evaluator", *small), measure("ours", *small)
    print(f"ours / evaluator: {(own['search'] + own['measures']) / peer['search']:.2f}, on {small[0]} x {small[1]}")


if __name__ == "__main__":
    main()
