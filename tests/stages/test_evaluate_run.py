"""`nearer eval` on tiny real models and a real store."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import pytest

from nearer.corpus.dataset import Chunking, Dataset
from nearer.errors import ArtifactExists, ArtifactMissing, InputError
from nearer.evaluate.run import plan, run
from nearer.evaluate.table import table
from nearer.models.load import load_embedder, load_reranker
from nearer.models.save import save_embedder
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.records import Judgment, Passage, Query
from nearer.settings.model import Settings
from nearer.store import InputEntry, Manifest, Store, open_store
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder


class Heard(Silent):
    """Remembers what was said, and may pull the plug at a step."""

    def __init__(self, *, die_while: str | None = None) -> None:
        self.lines: list[str] = []
        self.die_while = die_while

    def say(self, message: str, **facts: object) -> None:
        self.lines.append(message)

    def warn(self, message: str, **facts: object) -> None:
        self.lines.append(f"warning: {message}")

    def track(self, items: Iterable[Any], *, what: str, total: int | None = None) -> Iterable[Any]:
        for number, item in enumerate(items):
            yield item
            if self.die_while and self.die_while in what and number == 0:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two embedders, two cross-encoders, and a bare encoder."""
    directory = tmp_path_factory.mktemp("models")
    tiny_embedder(directory / "base", sentence_transformer=True)
    tiny_embedder(directory / "tuned", sentence_transformer=True, seed=3)
    tiny_embedder(directory / "bare", seed=4)
    tiny_cross_encoder(directory / "cross", seed=1)
    tiny_cross_encoder(directory / "tuned_cross", seed=2)
    tiny_cross_encoder(directory / "third_cross", seed=5)
    return directory


def dataset() -> Dataset:
    """30 documents of two passages; real queries are judged on passages, hypothetical ones on documents."""
    passages, queries, groups, test = {}, {}, {}, []
    for number, row in enumerate(korean_documents(30, seed=1)):
        document = row["docid"]
        groups[document] = f"g{number // 2}"
        for part, text in enumerate(row["content"].split("\n## ")):
            name = f"{document}#{part}"
            passages[name] = Passage(id=name, document_id=document, text=text, title=row["title"])
        question, asked = f"{document}:q", f"{document}:h"
        queries[question] = Query(id=question, text=row["hypothetical_questions"][2][3:])
        queries[asked] = Query(id=asked, text=row["hypothetical_questions"][0][3:], origin="hypothetical")
        if number < 10:
            test.append(Judgment(query_id=question, target=f"{document}#1"))
            test.append(Judgment(query_id=asked, target=document, level="document"))
    chunking = Chunking(chunker="kiwi-sentences-v1", max_tokens=200, template="{title}\n{text}")
    return Dataset(passages=passages, queries=queries, train=(), test=tuple(test), groups=groups, chunking=chunking)


def make_store(root: str) -> Store:
    """A store with a published dataset."""
    found = open_store(root)
    with found.scratch() as directory:
        dataset().write(directory)
        links = {"eval_enhanced": {"exact": 6, "shingles": 1, "unlinked": 3}}
        (directory / "audit.json").write_text(json.dumps({"ideal_contexts": links}), encoding="utf-8")
        found.publish("data", directory, Manifest(kind="dataset", name="generate", fingerprint="d" * 64))
    return found


@pytest.fixture
def store(workdir: Path) -> Store:
    """A store in the current directory."""
    return make_store(".")


@pytest.fixture(scope="module")
def finished(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the evaluation ran, undisturbed."""
    found = make_store(str(tmp_path_factory.mktemp("finished")))
    run(settings(models), found, Silent())
    return found


def settings(models: Path, /, *, train: dict[str, Any] | None = None, **changes: Any) -> Settings:
    fields = {
        "dataset": "data",
        "base_embedder": str(models / "base"),
        "embedder": str(models / "tuned"),
        "base_reranker": str(models / "cross"),
        "reranker": str(models / "tuned_cross"),
        "rerank_depth": 8,
        "speed_queries": 2,
        "output_dir": "report",
    }
    return Settings.model_validate({"eval": {**fields, **changes}, "train": train or {}})


def report_of(store: Store) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((store.open("report").path / "report.json").read_text(encoding="utf-8"))
    return loaded


def hashes(store: Store) -> dict[str, str]:
    """Of what is the same every time: how long it took is not."""
    files = store.open("report").manifest.files
    return {entry.path: entry.sha256 for entry in files if entry.path not in ("speed.json", "report.html")}


def test_every_retriever_stands_alone_and_with_every_reranker(finished: Store) -> None:
    """Names, stages, order, queries by origin, corpus, and what no system can find."""
    report, manifest = report_of(finished), finished.open("report").manifest
    assert list(report["systems"]) == [
        *("bm25", "bm25+base_reranker", "bm25+reranker"),
        *("base", "base+base_reranker", "base+reranker"),
        *("incumbent", "base-hybrid+base_reranker", "base-hybrid+reranker"),
        *("base-rrf", "base-rrf+base_reranker", "base-rrf+reranker"),
        *("tuned", "tuned+base_reranker", "tuned+reranker"),
        *("tuned-hybrid", "tuned-hybrid+base_reranker", "tuned-hybrid+reranker"),
        *("tuned-rrf", "tuned-rrf+base_reranker", "tuned-rrf+reranker"),
    ]
    assert {system["stage"] for name, system in report["systems"].items() if "+" in name} == {"rerank"}
    assert (report["queries"], report["corpus_size"], report["queries_on_documents"]) == (20, 60, 10)
    assert report["origins"] == {"hypothetical": 10, "real": 10}
    assert report["queries_by_population"] == {"real": 10, "synthetic": 10}
    assert report["ideal_contexts"] == {"linked": 7, "unlinked": 3}
    assert report["groups"] == 5
    compared = [(one["before"], one["after"]) for one in report["comparisons"]]
    assert compared[:2] == [("incumbent", "tuned-hybrid+reranker"), ("base", "tuned")]
    assert ("tuned+base_reranker", "tuned+reranker") in compared
    assert manifest.metrics["bm25 nDCG@10"] == round(report["systems"]["bm25"]["metrics"]["nDCG@10"], 4)
    assert report["systems"]["bm25"]["metrics"]["R@10"] > 0.8  # the documents are made to be searchable
    assert report["verdict"]["decision"] in ("do not ship", "inconclusive")  # the models know nothing


def test_real_and_synthetic_queries_are_never_pooled(finished: Store) -> None:
    """The figures are those of the queries that the verdict is about, and each kind has its own."""
    report = report_of(finished)
    assert report["population"] == "synthetic"
    for system in report["systems"].values():
        assert system["metrics"] == system["by_population"]["synthetic"]
        assert system["by_population"].keys() == {"real", "synthetic"}
    assert report["comparisons"][0]["measures"]["nDCG@10"]["queries"] == 10
    assert [len(found) for found in report["comparisons_by_population"].values()] == [len(report["comparisons"])]
    assert any("only 10 real ones" in reason for reason in report["verdict"]["reasons"])


def test_the_secondary_comparisons_are_adjusted_and_the_primary_is_not(finished: Store) -> None:
    """Holm makes p-values larger, never smaller; the one declared beforehand stands for itself."""
    first, *others = report_of(finished)["comparisons"]
    assert first["p_value_holm"] is None
    assert all(one["p_value_holm"] >= one["measures"]["nDCG@10"]["p_value"] for one in others)


def test_speed_is_told_for_every_system_beside_the_report(finished: Store) -> None:
    """Latency, throughput, weights, and the machine; none of it in report.json."""
    path = finished.open("report").path
    speed = json.loads((path / "speed.json").read_text(encoding="utf-8"))
    assert speed["systems"].keys() == report_of(finished)["systems"].keys()
    assert speed["queries"] == 2
    assert speed["machine"]["cores"] >= 1
    hybrid, plain = speed["systems"]["tuned-hybrid+reranker"], speed["systems"]["bm25"]
    assert hybrid["p95_milliseconds"] >= hybrid["p50_milliseconds"] > plain["p50_milliseconds"] > 0
    assert hybrid["model_bytes"] > speed["systems"]["tuned"]["model_bytes"] > plain["model_bytes"] == 0


def test_the_terminal_shows_few_systems_and_says_how_many_more_there_are(finished: Store) -> None:
    """Those that the verdict looks at, and the models alone."""
    shown = table(report_of(finished))
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith(("bm25", "base", "incumbent ", "tuned"))]
    assert rows == ["bm25", "base", "incumbent", "tuned", "tuned+reranker", "tuned-hybrid", "tuned-hybrid+reranker"]
    assert "14 more systems are in the report." in shown


def test_adding_a_system_computes_only_that_system(finished: Store, models: Path) -> None:
    """The vectors, lists and pair scores of the others are there already; a further cross-encoder is a reranker."""

    class Steps(Heard):
        def track(self, items: Iterable[Any], *, what: str, total: int | None = None) -> Iterable[Any]:
            counted = list(items)
            if counted:
                self.lines.append(what)
            return counted

    heard = Steps()
    further = [str(models / "bare"), str(models / "third_cross")]
    changed = settings(models, models=further, output_dir="more")
    run(changed, finished, heard)
    steps = [line for line in heard.lines if line.startswith(("encoding", "BM25", "exact"))]
    assert [line.partition(",")[0] for line in steps] == [
        "encoding passage texts",
        "encoding query texts",
        "exact search",
    ]
    report = json.loads((finished.open("more").path / "report.json").read_text(encoding="utf-8"))
    assert {"bare", "bare-hybrid", "bare+reranker", "tuned+third_cross"} <= report["systems"].keys()
    before = report_of(finished)["systems"]
    assert {name: report["systems"][name] for name in before} == before


def test_the_written_runs_give_our_numbers_in_any_other_tool(finished: Store) -> None:
    """Six columns, and a library that breaks ties its own way finds none to break."""
    report, path = report_of(finished), finished.open("report").path
    first = (path / "runs" / "tuned+reranker.trec").read_text(encoding="utf-8").splitlines()[0].split()
    assert (len(first), first[1], first[3], first[5]) == (6, "Q0", "1", "tuned+reranker")
    qrels = list(ir_measures.read_trec_qrels(str(path / "qrels.synthetic.trec")))
    measures = {name: ir_measures.parse_measure(name) for name in report["measures"]}
    for name, system in report["systems"].items():
        written = list(ir_measures.read_trec_run(str(path / "runs" / f"{name}.trec")))
        found = ir_measures.calc_aggregate(list(measures.values()), qrels, written)
        assert {key: found[measure] for key, measure in measures.items()} == pytest.approx(system["metrics"])


def test_the_values_of_the_queries_average_to_the_systems_values(finished: Store) -> None:
    """One line a query, with what it is and what each system made of it."""
    report, path = report_of(finished), finished.open("report").path
    rows = [json.loads(line) for line in (path / "per_query.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 20
    assert {row["level"] for row in rows} == {"passage", "document"}
    for name, system in report["systems"].items():
        values = [row["systems"][name]["nDCG@10"] for row in rows if row["origin"] == "real"]
        assert sum(values) / len(values) == pytest.approx(system["by_population"]["real"]["nDCG@10"])


def test_the_same_evaluation_again_is_free_and_another_one_is_refused(finished: Store, models: Path) -> None:
    """Same fingerprint: done already. Another K: exit 2, unless --overwrite."""
    first = finished.open("report").manifest
    heard = Heard()
    assert run(settings(models, device="cpu", batch_tokens=100), finished, heard) == first
    assert "already done: eval" in heard.lines
    with pytest.raises(ArtifactExists):
        run(settings(models, ks=[2]), finished, Silent())


@pytest.mark.parametrize("step", ["encoding passage", "scoring"])
def test_a_killed_evaluation_goes_on_and_ends_in_the_same_bytes(
    store: Store, finished: Store, models: Path, step: str
) -> None:
    """The report equals an undisturbed run's, file by file."""
    with pytest.raises(KeyboardInterrupt):
        run(settings(models), store, Heard(die_while=step))
    assert store.manifest("report") is None
    run(settings(models), store, Silent())
    assert hashes(store) == hashes(finished)
    assert {"report.json", "summary.md", "per_query.jsonl", "runs/bm25.trec"} <= set(hashes(store))


def test_a_base_reranker_that_scores_no_pairs_yet_is_left_out(store: Store, models: Path) -> None:
    """A bare encoder has no head; only the tuned reranker takes part."""
    heard = Heard()
    run(settings(models, base_reranker=str(models / "bare")), store, heard)
    assert [name for name in report_of(store)["systems"] if "base_reranker" in name] == []
    assert any("no cross-encoder yet" in line for line in heard.lines)


def test_a_reranker_of_weight_0_is_neither_asked_nor_judged(store: Store, models: Path, tmp_path: Path) -> None:
    """Its lists are those that it is given; the verdict is about the best that training gave, and says so."""
    muted = tmp_path / "muted"
    shutil.copytree(models / "tuned_cross", muted)
    contract = load_reranker(find_model(str(muted), store=store), device="cpu").contract
    replace(contract, rerank_weight=0.0).save(muted)
    given = settings(models, reranker=str(muted), base_reranker=None)
    assert plan(given, store).notes[1] == "verdict: tuned-hybrid against incumbent, by nDCG@10"
    run(given, store, Silent())
    report = report_of(store)
    assert (report["candidate"], report["rerank_weights"]) == ("tuned-hybrid", {"reranker": 0.0})
    assert any("without the tuned reranker, whose weight is 0" in reason for reason in report["verdict"]["reasons"])
    systems = report["systems"]
    assert systems["tuned-hybrid+reranker"]["metrics"] == systems["tuned-hybrid"]["metrics"]
    assert not list(store.cache("pair-scores").iterdir())
    assert "tuned-hybrid" in table(report)
    assert "+reranker" not in table(report)
    asked = settings(models, reranker=str(muted), base_reranker=None, rerank_weight=0.5, output_dir="asked")
    assert plan(asked, store).notes[1].startswith("verdict: tuned-hybrid+reranker against")


def test_without_rerankers_and_bm25_two_embedders_are_left(store: Store, models: Path) -> None:
    """A section that is not configured makes no systems; an incumbent that is the base is shown once, and is beaten."""
    changes = {"reranker": None, "base_reranker": None, "bm25": False, "incumbent": str(models / "base")}
    run(settings(models, **changes), store, Silent())
    report = report_of(store)
    assert list(report["systems"]) == ["base", "tuned"]
    assert (report["baseline"], report["candidate"]) == ("base", "tuned")


def test_an_incumbent_of_its_own_is_what_the_verdict_compares_with(store: Store, models: Path) -> None:
    """Today's embedder, fused with BM25, and today's reranker, which the tuned embedder keeps."""
    changes = {"reranker": None, "base_reranker": None, "incumbent": str(models / "bare")}
    run(settings(models, **changes, incumbent_reranker=str(models / "cross")), store, Silent())
    report = report_of(store)
    assert list(report["systems"]) == [
        *("bm25", "base", "base-hybrid", "base-rrf", "incumbent", "incumbent_embedder-hybrid"),
        *("tuned", "tuned-hybrid", "tuned-hybrid+incumbent_reranker", "tuned-rrf"),
    ]
    assert report["incumbent"] == {"retriever": "incumbent_embedder-hybrid", "reranker": "incumbent_reranker"}
    assert (report["baseline"], report["candidate"]) == ("incumbent", "tuned-hybrid+incumbent_reranker")


@pytest.mark.parametrize("field", ["baseline", "candidate"])
def test_a_verdict_about_a_system_that_is_none_is_refused(store: Store, models: Path, field: str) -> None:
    """The names that there are, before anything is loaded."""
    given = settings(models, reranker=None, base_reranker=None, verdict={field: "tunned"})
    for call in (lambda: plan(given, store), lambda: run(given, store, Silent())):
        with pytest.raises(InputError, match=f"eval.verdict.{field} is 'tunned'") as caught:
            call()
        assert "tuned-hybrid" in str(caught.value)


@pytest.mark.parametrize(
    ("train", "changes", "command"),
    [
        ({"embedding": {}}, {"embedder": None}, "nearer train embedding"),
        ({"reranker": {}}, {"reranker": None}, "nearer train reranker"),
    ],
)
def test_a_model_that_is_not_trained_yet_names_the_command_that_trains_it(
    store: Store, models: Path, train: dict[str, Any], changes: dict[str, Any], command: str
) -> None:
    """Its default address looks like a hub id, and must not be looked for there."""
    given = settings(models, train=train, **changes)
    with pytest.raises(ArtifactMissing) as caught:
        run(given, store, Silent())
    assert command in str(caught.value)
    assert command.removeprefix("nearer ") in str(plan(given, store).inputs)
    assert store.manifest("report") is None


def test_who_only_trains_a_reranker_needs_no_base_embedder(models: Path) -> None:
    """The embedder in use today retrieves; the default base model is not fetched for nothing."""
    given = {"train": {"reranker": {"base_model": str(models / "bare")}}, "eval": {"incumbent": str(models / "base")}}
    names = [entry.name for entry in plan(Settings.model_validate(given), open_store(".")).inputs]
    assert names == ["dataset", "incumbent_embedder", "base_reranker", "reranker"]


def test_a_reranker_that_starts_from_the_tuned_embedder_is_planned_as_made_before(models: Path) -> None:
    """The embedder is no hub id, in the role of the reranker's base model either."""
    train = {
        "embedding": {"base_model": str(models / "base"), "output_dir": "models/mine"},
        "reranker": {"base_model": "models/mine"},
    }
    planned = plan(Settings.model_validate({"train": train}), open_store("."))
    states = {entry.name: entry.state for entry in planned.inputs}
    assert states["tuned"] == states["base_reranker"] == "made by `train embedding` first"


def test_a_model_of_another_dataset_and_chunking_is_warned_about(store: Store, models: Path) -> None:
    """Its training data may hold test queries, and its index will hold other passages."""
    loaded = load_embedder(
        find_model(str(models / "tuned"), store=store), device="cpu", chunker="kiwi-sentences-v1", chunk_tokens=40
    )
    with store.scratch() as directory:
        save_embedder(loaded, directory)
        inputs = {"dataset": InputEntry(address="elsewhere", fingerprint="e" * 64)}
        store.publish("mine", directory, Manifest(kind="embedder", name="train", fingerprint="m" * 64, inputs=inputs))
    heard = Heard()
    run(settings(models, embedder="mine", reranker=None, base_reranker=None), store, heard)
    warnings = [line for line in heard.lines if line.startswith("warning")]
    assert [line for line in warnings if "trained on another dataset" in line]
    assert [line for line in warnings if "tokens a chunk: model '40', dataset '200'" in line]


def test_the_plan_refuses_a_measure_that_is_none_and_says_whether_the_second_dataset_is_there(
    store: Store, models: Path
) -> None:
    """Before anything is loaded; the measures that there are, with the Ks that were asked for."""
    with pytest.raises(InputError, match="nDCG@20") as caught:
        plan(settings(models, verdict={"measure": "nDCG@20"}), store)
    assert "Success@10" in str(caught.value)
    states = {entry.name: entry.state for entry in plan(settings(models, general="elsewhere"), store).inputs}
    assert states["general"] == "missing"


def test_the_plan_says_what_is_there_and_touches_nothing(store: Store, models: Path) -> None:
    """Inputs with their state, the systems, and the output."""

    def everything() -> list[tuple[str, str]]:
        files = sorted(path for path in Path().rglob("*") if path.is_file())
        return [(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    before = everything()
    planned = plan(settings(models, dataset="other", base_reranker=None), store)
    states = {entry.name: entry.state for entry in planned.inputs}
    assert states == {"dataset": "missing", "base": "there", "tuned": "there", "reranker": "there"}
    assert planned.notes[0].startswith(
        "systems: bm25, bm25+reranker, base, base+reranker, incumbent, base-hybrid+reranker"
    )
    assert planned.notes[1] == "verdict: tuned-hybrid+reranker against incumbent, by nDCG@10"
    assert everything() == before
    without = {"reranker": None, "base_reranker": None, "bm25": False}
    assert plan(settings(models, **without), store).state == "would be made"
    run(settings(models, **without), store, Silent())
    assert plan(settings(models, **without), store).state == "already done"
