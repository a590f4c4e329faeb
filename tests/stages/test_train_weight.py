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
from nearer.train.weight import Top, likeliest, weigh

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
    assert found.weight > 0.5
    found = chosen(Scripted(lambda query, passage: -right(query, passage)), place=0)
    assert (found.weight, found.interpolated, found.without) == (0.0, 1.0, 1.0)
    assert found.alone < 1.0


def test_only_the_top_is_scored() -> None:
    """What stands below the depth costs nothing, and cannot be found by the reranker."""
    reranker = Scripted(right)
    found = chosen(reranker, place=4, depth=3)
    assert len(reranker.pairs) == 3 * len(QUERIES)
    assert found.weight == 0.0


def drawn(*, own: float, others: float, lists: int, seed: int = 1) -> list[Top]:
    """Lists of 20 whose answer was drawn by both scores, each so many times."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(lists):
        first, second = draw.random((2, 20))
        odds = np.exp(own * first + others * second)
        found.append((first, second, np.arange(20) == draw.choice(20, p=odds / odds.sum())))
    return found


@pytest.mark.parametrize(("own", "others"), [(4.0, 8.0), (9.0, 3.0), (5.0, 0.0), (0.0, 5.0)])
def test_the_weight_is_what_the_answers_were_drawn_by(own: float, others: float) -> None:
    """Closely with many lists, and not far from it with as few as there are in practice."""
    right = others / (own + others)
    assert likeliest(drawn(own=own, others=others, lists=3000)) == pytest.approx(right, abs=0.04)
    few = [likeliest(drawn(own=own, others=others, lists=100, seed=seed)) for seed in range(20)]
    assert np.abs(np.array(few) - right).max() < 0.25
    assert np.abs(np.array(few) - right).mean() < 0.08


def test_which_side_is_which_decides_nothing_else() -> None:
    """The two scores change places: the rest is the weight. Lists that say nothing change nothing."""
    tops = drawn(own=2.0, others=6.0, lists=60)
    weight = likeliest(tops)
    assert likeliest([(others, own, answers) for own, others, answers in tops]) == pytest.approx(1 - weight, abs=1e-4)
    own, others, answers = tops[0]
    silent = [(own, others, np.zeros_like(answers)), (own, others, np.ones_like(answers))]
    assert likeliest([*tops, *silent]) == pytest.approx(weight, abs=1e-9)
    assert likeliest(silent) == likeliest([]) == 0.0


def test_a_weight_that_makes_the_order_worse_is_not_taken() -> None:
    """A reranker that tells two passages from all others, and takes the wrong one of the two for the answer."""

    def errs(query: str, passage: str) -> float:
        return 1.0 if passage == "글 p7" else 0.99 * right(query, passage)

    ranked = {}
    for query, answer in ANSWER.items():
        names = [answer, "p7", *(key for key in PASSAGES if key not in (answer, "p7"))]
        scores = [1.0, 0.999, 0.998, 0.997, *(0.0 for _ in names[4:])]
        ranked[query] = [Hit(key, score) for key, score in zip(names, scores, strict=True)]
    model: Any = Scripted(errs)
    found = weigh(model, ranked, VALIDATION, TEXTS, depth=5, batch_tokens=100, progress=Silent())
    assert found.alone < found.without == 1.0
    assert (found.weight, found.interpolated) == (0.0, 1.0)
    shares = np.array([1.0, 0.999, 0.998, 0.997, 0.0])
    alike = [(shares, np.array([0.99, 1.0, 0, 0, 0]), np.arange(5) == 0)] * 4
    assert likeliest(alike) > 0.2, "else it was not taken for another reason"


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
        if contract.rerank_weight == 0:
            assert manifest.metrics["ndcg_interpolated"] == manifest.metrics["ndcg_without_reranker"]
        assert 0 <= contract.rerank_weight <= 1
        assert store.verify("r") == ()
    else:
        assert contract.rerank_weight is None
        assert "rerank_weight" not in manifest.metrics
