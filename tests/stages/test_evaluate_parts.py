"""What an evaluation is made of: the held-out part, retrieval, reranking, the tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearer.corpus.dataset import Chunking, Dataset
from nearer.errors import InputError
from nearer.evaluate.evidence import changes, populations
from nearer.evaluate.heldout import HeldOut, held_out
from nearer.evaluate.inputs import disagreements
from nearer.evaluate.lineup import Entry, line_up
from nearer.evaluate.report import assemble
from nearer.evaluate.rerank import pairs_of, rerank, score_pairs
from nearer.evaluate.retrieve import retrieve
from nearer.evaluate.snippets import by_snippet, counts
from nearer.evaluate.systems import system
from nearer.evaluate.table import markdown, table
from nearer.evaluate.verdict import Check, decide
from nearer.models.contract import Contract
from nearer.progress import Silent
from nearer.records import Hit, Judgment, Passage, Query

PASSAGES = [f"D{document}#{number}" for document in range(6) for number in range(4)]


def dataset(test: Sequence[Judgment], **changes: Any) -> Dataset:
    passages = {name: Passage(id=name, document_id=name.split("#")[0], text=f"본문 {name}") for name in PASSAGES}
    queries = {name: Query(id=name, text=f"질문 {name}") for name in ("q1", "q2", "q3", "q4")}
    groups = {f"D{number}": f"G{number // 2}" for number in range(6)}
    return Dataset(passages=passages, queries=queries, train=(), test=tuple(test), groups=groups, **changes)


def judged(**targets: str) -> list[Judgment]:
    return [
        Judgment(query_id=query, target=target, level="passage" if "#" in target else "document")
        for query, target in targets.items()
    ]


def held(**targets: str) -> HeldOut:
    return held_out(dataset(judged(**targets)), max_queries=None, seed=1)


def test_queries_without_a_relevant_target_are_left_out_and_counted() -> None:
    """They are no failures of any system."""
    test = [*judged(q1="D0#1", q2="D3"), Judgment(query_id="q3", target="D1#1", relevance=0)]
    found = held_out(dataset(test), max_queries=None, seed=1)
    assert [query.id for query in found.queries] == ["q1", "q2"]
    assert (found.unscored, found.left_out) == (1, 0)
    assert found.on_documents == {"q2"}
    assert found.groups == {"q1": "G0", "q2": "G1"}


def test_a_limit_draws_queries_with_the_seed() -> None:
    """The same seed draws the same; another one may draw others."""
    test = judged(q1="D0#1", q2="D3", q3="D1#1", q4="D2#2")

    def drawn(seed: int) -> list[str]:
        found = held_out(dataset(test), max_queries=2, seed=seed)
        assert found.left_out == 2
        return [query.id for query in found.queries]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("test", [[], [Judgment(query_id="q1", target="D0#1", relevance=0)]])
def test_a_dataset_without_anything_to_test_is_refused_with_words(test: list[Judgment]) -> None:
    """No judgments, or none that is relevant."""
    with pytest.raises(InputError, match="no test query"):
        held_out(dataset(test), max_queries=None, seed=1)


@pytest.mark.parametrize("target", ["D9#1", "D9"])
def test_a_judgment_on_what_is_not_there_is_refused(target: str) -> None:
    """It could never be found, and would look like a weak system."""
    with pytest.raises(InputError, match="unknown"):
        held_out(dataset(judged(q1=target)), max_queries=None, seed=1)


def test_a_query_judged_on_documents_gets_enough_documents() -> None:
    """Four passages a document: the first three passages are one document, so the list must go deeper."""
    asked = []

    def search(positions: Sequence[int], k: int) -> list[list[Hit]]:
        asked.append((list(positions), k))
        return [[Hit(name, 1.0) for name in PASSAGES[:k]] for _ in positions]

    run = retrieve(held(q1="D0#1", q2="D3"), search, depth=3, documents=5)
    assert asked == [([0, 1], 3), ([1], 12), ([1], 48)]
    assert len(run["q1"]) == 3
    assert len(run["q2"]) == len(PASSAGES)


def test_documents_are_scored_by_their_best_passage() -> None:
    """D3 is second although its passage is fourth."""
    run = {"q2": [Hit(name, 1.0) for name in ("D1#0", "D1#1", "D1#2", "D3#0")]}
    one = system(held(q2="D3"), run, entry=Entry(name="base", retriever="base"), depth=10, ks=[1, 2])
    assert [hit.target for hit in one.run["q2"]] == ["D1", "D3"]
    assert (one.scores.mean["R@1"], one.scores.mean["R@2"], one.scores.mean["RR@10"]) == (0.0, 1.0, 0.5)


def test_reranking_orders_the_top_and_leaves_the_rest() -> None:
    """Equal scores by ascending id; below the depth the retriever's order stays."""
    run = {"q": [Hit(name, 1.0) for name in ("c", "b", "a", "e", "d")]}
    scores = {("q", "a"): 0.5, ("q", "b"): 0.5, ("q", "c"): -1.0}
    assert [hit.target for hit in rerank(run, scores, depth=3)["q"]] == ["a", "b", "c", "e", "d"]


class Counting:
    """A scorer that remembers what it was asked, and dies when told to."""

    contract = Contract(kind="reranker", base_model="m", base_revision="r", weights_sha256="", tokenizer_sha256="")

    def __init__(self, *, die_at: int | None = None) -> None:
        self.batches: list[list[tuple[str, str]]] = []
        self.die_at = die_at

    def score(self, pairs: Sequence[tuple[str, str]], *, batch_tokens: int) -> np.ndarray:
        if len(self.batches) == self.die_at:
            raise KeyboardInterrupt
        self.batches.append(list(pairs))
        return np.array([len(query) + int(passage) / 100 for query, passage in pairs], dtype=np.float32)


def scored(scorer: Counting, directory: Path, *, passages: int = 9) -> dict[tuple[str, str], float]:
    pairs = [("q", f"p{number}") for number in range(passages)]
    texts = {f"p{number}": str(number) for number in range(passages)}
    return score_pairs(
        scorer,
        pairs,
        queries={"q": "질문"},
        passages=texts,
        directory=directory,
        batch_tokens=100,
        progress=Silent(),
        name="m",
    )


def test_a_pair_that_several_retrievers_found_is_scored_once() -> None:
    """Only what lies above the depth, each pair once."""
    runs = [{"q": [Hit("a", 1.0), Hit("b", 0.5)]}, {"q": [Hit("b", 1.0), Hit("c", 0.5), Hit("d", 0.1)]}]
    assert pairs_of(runs, depth=2) == [("q", "a"), ("q", "b"), ("q", "c")]


def test_a_killed_scoring_goes_on_with_the_block_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished blocks are read, the others scored in the same company as without the kill."""
    monkeypatch.setattr("nearer.evaluate.rerank._PAIRS_PER_BLOCK", 4)
    undisturbed = Counting()
    expected = scored(undisturbed, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        scored(Counting(die_at=2), tmp_path / "killed")
    again = Counting()
    assert scored(again, tmp_path / "killed") == expected
    assert again.batches == undisturbed.batches[2:]


def test_a_damaged_cache_file_is_scored_again(tmp_path: Path) -> None:
    """The cache may be lost at any time."""
    expected = scored(Counting(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"half a fi")
    assert scored(Counting(), tmp_path) == expected


def test_scores_that_are_no_numbers_stop_with_words(tmp_path: Path) -> None:
    """A diverged reranker."""
    scorer = Counting()
    scorer.score = lambda pairs, **_: np.full(len(pairs), np.nan, dtype=np.float32)
    with pytest.raises(InputError, match="not numbers"):
        scored(scorer, tmp_path)


def test_a_contract_that_asks_for_other_passages_is_told_with_both_sides() -> None:
    """Template, chunker and size; a dataset that others cut is not compared on chunking."""
    contract = Contract(
        kind="embedder",
        base_model="m",
        base_revision="r",
        weights_sha256="",
        tokenizer_sha256="",
        passage_template="{text}",
        chunker="kiwi-sentences-v1",
        chunk_tokens=100,
    )
    ours = dataset((), chunking=Chunking(chunker="kiwi-sentences-v1", max_tokens=200, template="{title}\n{text}"))
    assert disagreements(ours, contract) == [
        "passage template: model '{text}', dataset '{title}\\n{text}'",
        "tokens a chunk: model '100', dataset '200'",
    ]
    assert disagreements(dataset((), chunking=Chunking(template="{text}")), contract) == []


def small_report() -> dict[str, Any]:
    """Base finds q1 second and q2 not at all; tuned finds both first."""
    test = held(q1="D0#1", q2="D3", q3="D4#0")
    base = {"q1": [Hit("D1#0", 2.0), Hit("D0#1", 1.0)], "q3": [Hit("D4#0", 1.0)]}
    tuned = {"q1": [Hit("D0#1", 2.0)], "q2": [Hit("D3#3", 1.0)], "q3": [Hit("D4#0", 1.0)]}
    line = line_up(["base", "tuned"], [], bm25=False, incumbent="base", baseline="incumbent", candidate=None)
    systems = [
        system(test, run, entry=entry, depth=100, ks=[1, 3])
        for entry, run in zip(line.entries, (base, tuned), strict=True)
    ]
    queries = populations(test)["real"]
    compared = changes(
        systems,
        line.pairs(),
        queries=queries,
        groups=test.groups,
        measure="nDCG@10",
        primary=("base", "tuned"),
        confidence=0.95,
        seed=1,
    )
    check = Check(name="primary", state="unclear", sentence="tuned against base: these queries cannot tell.")
    return assemble(
        test,
        systems,
        line_up=line,
        population="real",
        queries=queries,
        changes={"real": compared},
        slices=[],
        verdict=decide([check], context=["The verdict is about the real queries."]),
        rules={"measure": "nDCG@10", "confidence": 0.95, "minimum_effect": 0.01, "detect_effect": 0.03, "power": 0.8},
        detectable=None,
        ks=[1, 3],
        depth=100,
        rerank_depth=30,
        rerank_weights={},
        alpha=0.8,
        ideal_contexts={"linked": 5, "unlinked": 2},
        models={"base": {"name": "<models>/base", "fingerprint": "f" * 64}},
    )


def test_the_terminal_shows_what_was_measured_every_system_and_the_verdict_last() -> None:
    """The whole output, because a person reads it."""
    assert (
        table(small_report())
        == """\
3 test queries (3 real); 1 of them judged on whole documents; 3 groups of documents, 24 passages.
Attainable at most: P@3 .333. MAP looks at the first 100 results.
Queries without any result (they count as 0): base 1.
2 of the 7 ideal contexts that the user's files name stand in no document: no system can find them, and they are not judged.

system    R@1    R@3   P@3  hit@3  MRR@10  nDCG@10    MAP
─────────────────────────────────────────────────────────
base     .333   .667  .222   .667    .500     .544   .500
tuned   1.000  1.000  .333  1.000   1.000    1.000  1.000

verdict: inconclusive
- tuned against base: these queries cannot tell.
- The verdict is about the real queries."""
    )


def test_report_json_holds_no_nan() -> None:
    """Other languages' JSON readers refuse it; null says that a value is not defined."""
    report = small_report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["comparisons"][0]["measures"]["R@1"]["relative_high"] is None
    assert report["systems"]["base"]["queries_without_results"] == 1


def test_the_summary_is_markdown_with_the_verdict_first() -> None:
    """What a reader of CI sees at once, then the checks, the systems and the changes."""
    lines = markdown(small_report()).splitlines()
    assert lines[:3] == ["# ❔ Verdict: inconclusive", "", "- tuned against base: these queries cannot tell."]
    assert "| primary | unclear | tuned against base: these queries cannot tell. |" in lines
    assert "| system | R@1 | R@3 | P@3 | hit@3 | MRR@10 | nDCG@10 | MAP |" in lines
    assert "| tuned | 1.000 | 1.000 | .333 | 1.000 | 1.000 | 1.000 | 1.000 |" in lines
    (change,) = [line for line in lines if line.startswith("| nDCG@10 | .544")]
    assert change.startswith("| nDCG@10 | .544 | 1.000 | +45.6 | +83.9 % | ")
    assert change.endswith(" | 2 | 0 | 1 | .500 |")  # 4 of the 8 sign patterns of three groups, one of which is even


def test_snippets_count_as_the_guide_counts() -> None:
    """A snippet is found when any passage that it stands in is; what stands in no document is counted and left out."""
    contexts = {"q1": (("a", "b"), ("c",), ()), "q2": ((),), "q3": (("d",),)}
    run = {"q1": [Hit("b", 3.0), Hit("x", 2.0), Hit("c", 1.0)], "q3": [Hit("x", 1.0)]}
    values = by_snippet(run, contexts, [1, 3])
    assert values == {"R@1": 0.25, "R@3": 0.5, "P@1": 0.5, "P@3": pytest.approx(1 / 3)}
    assert counts(contexts) == {"queries": 3, "queries_scored": 2, "snippets": 5, "unlinked": 2}
    assert by_snippet(run, {"q2": ((),)}, [1]) == {}
