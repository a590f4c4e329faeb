"""How much a reranker counts: chosen where the right weight is known."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.models.contract import Contract
from nearer.progress import Silent
from nearer.records import Hit, Judgment
from nearer.settings.model import Settings
from nearer.store import Manifest, open_store
from nearer.testing import korean_dataset, tiny_embedder
from nearer.train.holdout import Validation
from nearer.train.run import plan, run
from nearer.train.weight import weigh

QUERIES = {f"q{number}": f"질문 {number}" for number in range(4)}
PASSAGES = tuple(f"p{number}" for number in range(8))
TEXTS = {key: f"글 {key}" for key in PASSAGES}
ANSWER = {query: f"p{number}" for number, query in enumerate(QUERIES)}
VALIDATION = Validation(
    queries=QUERIES,
    judgments=tuple(Judgment(query_id=query, target=key) for query, key in ANSWER.items()),
    passages=PASSAGES,
    candidates={},
    document_of={key: key for key in PASSAGES},
)


class Scripted:
    """A reranker that gives what it is told to."""

    def __init__(self, score: Callable[[str, str], float]) -> None:
        self._score = score
        self.pairs: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]], **_: object) -> np.ndarray:
        self.pairs += pairs
        return np.array([self._score(query, passage) for query, passage in pairs], dtype=np.float32)


def lists(place: int) -> dict[str, list[Hit]]:
    """Every query's answer stands at this place, the others as their names go."""
    found = {}
    for query, answer in ANSWER.items():
        others = [key for key in PASSAGES if key != answer]
        order = [*others[:place], answer, *others[place:]]
        found[query] = [Hit(key, 1.0 - rank / 10) for rank, key in enumerate(order)]
    return found


def chosen(reranker: Scripted, *, place: int, depth: int = 5) -> Any:
    model: Any = reranker
    return weigh(model, lists(place), VALIDATION, TEXTS, depth=depth, batch_tokens=100, progress=Silent())


def right(query: str, passage: str) -> float:
    number = query.rpartition(" ")[2]
    return float(passage == f"글 p{number}")


def test_a_reranker_that_knows_gets_a_weight_and_one_that_errs_gets_none() -> None:
    """What it was worth is told at both ends."""
    found = chosen(Scripted(right), place=3)
    assert found.interpolated == found.alone == 1.0
    assert found.without < 0.5
    assert 0 < found.weight <= 0.5  # the smallest that puts the answer first
    found = chosen(Scripted(lambda query, passage: -right(query, passage)), place=0)
    assert (found.weight, found.interpolated, found.without) == (0.0, 1.0, 1.0)
    assert found.alone < 1.0


def test_only_the_top_is_scored() -> None:
    """What stands below the depth costs nothing, and cannot be found by the reranker."""
    reranker = Scripted(right)
    found = chosen(reranker, place=4, depth=3)
    assert len(reranker.pairs) == 3 * len(QUERIES)
    assert found.weight == 0.0


@pytest.mark.parametrize("named", [False, True])
def test_the_weight_is_published_with_the_model(workdir: Path, *, named: bool) -> None:
    """In the contract and in the manifest, where the retriever is known; the embedder is an input then."""
    store = open_store(".")
    tiny_embedder(workdir / "base", sentence_transformer=True)
    data = korean_dataset(30, 1)
    with store.scratch() as directory:
        data.write(directory)
        store.publish("data", directory, Manifest(kind="dataset", name="generate", fingerprint="d" * 64))
    section = {
        "dataset": "data", "base_model": str(workdir / "base"), "output_dir": "r", "epochs": 1, "max_steps": 2,
        "batch_size": 4, "device": "cpu", "rerank_depth": 4, "validation_passages": 20, "precision": "fp32",
    }  # fmt: skip
    if named:
        section["retriever"] = str(workdir / "base")
    settings = Settings.model_validate({"train": {"reranker": section}})
    planned = {one.name: one.state for one in plan(settings, store, model="reranker").inputs}
    assert planned.get("retriever") == ("there" if named else None)
    manifest = run(settings, store, Silent(), model="reranker")
    contract = Contract.load(store.open("r").path)
    assert contract
    assert ("retriever" in manifest.inputs) is named
    if named:
        assert contract.rerank_weight == manifest.metrics["rerank_weight"]
        ends = [manifest.metrics[name] for name in ("ndcg_without_reranker", "ndcg_reranker_alone")]
        assert manifest.metrics["ndcg_interpolated"] >= max(ends)
        assert store.verify("r") == ()
    else:
        assert contract.rerank_weight is None
        assert "rerank_weight" not in manifest.metrics
