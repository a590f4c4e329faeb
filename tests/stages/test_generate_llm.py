"""`nearer generate` with a language model: a real HTTP server that answers by a script, a real (tiny) embedder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from llm_server import DUPLICATE, Script, ScriptedLlm
from safetensors.torch import load_file, save_file

from nearer.corpus.dataset import Dataset
from nearer.corpus.leak import find_leaks
from nearer.errors import InputError
from nearer.generate.run import plan, run
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import Manifest, open_store
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder

SETTINGS: dict[str, Any] = {
    "documents": "data/documents.jsonl",
    "output_dir": "datasets/d",
    "embedder": "model",
    "chunk": {"max_tokens": 60},
    "llm_model": "scripted",
    "max_concurrent": 4,
    "negatives": {"per_query": 3, "depth": 15, "max_share_of_positive": 1.5},
}
LLM: dict[str, Any] = {"timeout_seconds": 0.5, "round_trip_depth": 60, "near_duplicate_query": 0.9}


class Job:
    """A user's directory, and the job in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def settings(self, url: str, **changes: Any) -> Settings:
        llm = {**LLM, "base_url": url, **changes.pop("llm", {})}
        own = {**SETTINGS, "llm": llm, **changes}
        return Settings.model_validate({"artifacts": str(self.directory), "seed": 3, "generate": own})

    def __call__(self, url: str, *, overwrite: bool = False, **changes: Any) -> Manifest:
        return run(self.settings(url, **changes), open_store(str(self.directory), overwrite=overwrite), Silent())

    def dataset(self) -> Dataset:
        found = Dataset.load(self.directory / "datasets/d")
        assert find_leaks(found, near_duplicate=0.7, seed=3) == []
        return found

    @property
    def audit(self) -> dict[str, Any]:
        return json.loads((self.directory / "datasets/d/audit.json").read_text(encoding="utf-8"))

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "model", sentence_transformer=True)


def bare(count: int) -> list[dict[str, Any]]:
    rows = korean_documents(count, seed=11)
    return [{key: row[key] for key in row if key != "hypothetical_questions"} for row in rows]


@pytest.fixture
def job(tmp_path: Path, model: Path) -> Job:
    """Thirty documents without any query."""
    shutil.copytree(model, tmp_path / "model")
    made = Job(tmp_path)
    made.write("data/documents.jsonl", bare(30))
    return made


def test_documents_alone_become_a_dataset(job: Job) -> None:
    """Queries of the asked kinds, each tied to its passage, bad ones counted with samples, failures kept with replies."""
    script = Script(
        seed=1, too_many=0.05, broken=0.01, half=0.08, always_half=0.04, empty=0.05, foreign=0.1, duplicate=0.15,
        dependent=0.1,
    )  # fmt: skip
    with ScriptedLlm(script) as server:
        manifest = job(server.url, llm={"negatives_per_query": 2})
        assert server.repeated() == 0
        assert server.most <= 4
    dataset, audit = job.dataset(), job.audit
    assert {query.origin for query in dataset.queries.values()} == {"llm"}
    assert manifest.metrics["train_queries"] > 10
    assert manifest.metrics["test_queries"] > 2
    by_kind = audit["written_queries"]["kept_by_kind"]
    assert {"natural", "keyword", "colloquial"} <= set(by_kind)
    for judgment in (*dataset.train, *dataset.test):
        assert judgment.query_id.startswith(dataset.passages[judgment.target].document_id + ":q")
    dropped = audit["dropped"]
    for rule in ("other-language", "depends-on-passage", "near-duplicate-query"):
        assert dropped[rule]["count"] >= len(dropped[rule]["samples"]) > 0, rule
    assert [query.text for query in dataset.queries.values()].count(DUPLICATE) <= 1
    failures = [
        json.loads(line)
        for line in (job.directory / "datasets/d/llm_failures.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    account = audit["language_model"]
    assert failures
    assert sum(account["failed"].values()) == len(failures)
    assert all(failure["raw"] and failure["problem"].startswith("unreadable") for failure in failures)
    assert account["repaired"] > 0
    assert account["calls"] == sum(server.good.values()) + sum(server.empty.values())
    written = [n for found in dataset.negatives.values() for n in found if n.miner == "llm"]
    assert written
    texts = {passage.text for passage in dataset.passages.values()}
    assert all(negative.text and negative.text not in texts and negative.corpus_id is None for negative in written)
    mined = [n for found in dataset.negatives.values() for n in found if n.corpus_id]
    assert all(negative.share is not None and negative.share <= 1.5 for negative in (*mined, *written))


def test_a_changed_document_repeats_only_its_own_calls(job: Job) -> None:
    """Also after the dataset was published, and in another order; other prompts ask everything anew."""
    with ScriptedLlm() as server:
        job(server.url)
        first = len(server.calls)
        rows = bare(30)
        rows[4]["content"] = rows[4]["content"].replace("## ", "## 새 ") + " 그리고 새로운 문장 하나를 덧붙인다."
        job.write("data/documents.jsonl", rows[::-1])
        job(server.url, overwrite=True)
        again = server.calls[first:]
        assert 0 < len(again) < first / 5
        asked = [call["messages"][1]["content"] for call in again]
        others = [row["title"] for row in rows if row["title"] != rows[4]["title"]]
        assert all(f"문서 제목: {title}\n" not in text for text in asked for title in others)
        assert server.repeated() == 0
        before = len(server.calls)
        (job.directory / "prompts").mkdir()
        (job.directory / "prompts/natural.md").write_text("아주 짧은 질문")
        job(server.url, overwrite=True, llm={"prompts": "prompts"})
        assert "아주 짧은 질문" in json.dumps(server.calls[before:], ensure_ascii=False)


def test_the_users_queries_get_passages_that_answer_them(job: Job) -> None:
    """The guide's eval.jsonl without ground truth: marked passages, an ideal answer, and what nothing answers."""
    documents = bare(30)
    questions = [
        {"eval_id": n, "msg": [{"role": "user", "content": row["content"].split(". ")[0]}]}
        for n, row in enumerate(documents[:14])
    ]
    questions.append({"eval_id": 99, "msg": [{"role": "user", "content": "qwerty asdf zxcv"}]})
    job.write("data/eval.jsonl", questions)
    with ScriptedLlm() as server:
        job(server.url, queries="data/eval.jsonl")
        assert len(server.calls) == 15
    dataset = job.dataset()
    assert {query.origin for query in dataset.queries.values()} == {"real"}
    judged: dict[str, set[str]] = {}
    for judgment in (*dataset.train, *dataset.test):
        judged.setdefault(judgment.query_id, set()).add(dataset.passages[judgment.target].document_id)
        words = [
            set(text.split())
            for text in (dataset.queries[judgment.query_id].text, dataset.passages[judgment.target].text)
        ]
        assert len(words[0] & words[1]) > 1
    assert sum(documents[int(query)]["docid"] in found for query, found in judged.items()) > len(judged) / 2
    assert all(judgment.level == "passage" for judgment in (*dataset.train, *dataset.test))
    rows = [
        json.loads(line)
        for line in (job.directory / "datasets/d/enhanced.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert rows
    assert all(row["ideal_answer"] and row["ideal_context"] for row in rows)
    assert [sample["query_id"] for sample in job.audit["dropped"]["no-ideal-context"]["samples"]] == ["99"]


def cross_encoder(directory: Path, *, bias: float) -> None:
    weights = tiny_cross_encoder(directory) / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"] = torch.full_like(tensors["classifier.bias"], bias)
    save_file(tensors, weights, metadata={"format": "pt"})


def test_a_cross_encoder_says_what_is_answered(job: Job) -> None:
    """In the language model's place, which is not asked then; above 0 is answered."""
    cross_encoder(job.directory / "cross", bias=100.0)
    with ScriptedLlm(Script()) as server:
        job(server.url, reranker="cross", llm={"answerable_by": "reranker"})
        assert "not-answered" not in job.audit["dropped"]
        kept, calls = set(job.dataset().queries), len(server.calls)
        job(server.url, overwrite=True, llm={"answerable_by": "nobody"})
        assert (set(job.dataset().queries), len(server.calls)) == (kept, calls)
        job(server.url, overwrite=True, llm={"answerable_by": "llm"})
        assert len(server.calls) > calls
        cross_encoder(job.directory / "cross", bias=-100.0)
        with pytest.raises(InputError, match="quer"):
            job(server.url, overwrite=True, reranker="cross", llm={"answerable_by": "reranker"})


def test_pods_share_the_calls_and_the_last_makes_the_dataset(
    job: Job, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is made once by one of them; the dataset is the one that a single pod makes, byte for byte."""
    single = Job(tmp_path_factory.mktemp("single") / "d")
    shutil.copytree(job.directory, single.directory)
    monkeypatch.setenv("NNODES", "3")
    with ScriptedLlm(Script(duplicate=0.2)) as server:
        for index in (2, 0):
            monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
            assert job(server.url).kind == "llm-replies"
            assert not (job.directory / "datasets/d/manifest.json").exists()
        before = len(server.calls)
        assert job(server.url).kind == "llm-replies"  # restarted: nothing is asked again
        assert len(server.calls) == before
        monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
        made = job(server.url)
        assert made.kind == "dataset"
        monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
        assert job(server.url).created_at == made.created_at
        total = len(server.calls)
        assert server.repeated() == 0
    monkeypatch.delenv("NNODES")
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    with ScriptedLlm(Script(duplicate=0.2)) as server:
        single(server.url)
        assert len(server.calls) <= total
    names = ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv", "negatives.jsonl", "enhanced.jsonl"]
    for name in names:
        one, many = (each.directory / "datasets/d" / name for each in (single, job))
        assert one.read_bytes() == many.read_bytes(), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sources": ["llm"], "llm": {"base_url": None}}, ["'scripted'", "OPENAI_API_KEY", "generate.llm.base_url"]),
        ({"llm": {"base_url": None}}, ["nothing says how to reach it"]),
        ({"llm": {"answerable_by": "reranker"}}, ["generate.reranker names none"]),
        ({"llm": {"prompts": "prompts"}}, ["'querys'", "did you mean queries?"]),
    ],
)
def test_what_is_missing_is_told_before_anything_is_paid(job: Job, changes: dict[str, Any], words: list[str]) -> None:
    """Exit 2 with the way out; no call was made."""
    (job.directory / "prompts").mkdir()
    (job.directory / "prompts/querys.md").write_text("$passages")
    with ScriptedLlm() as server:
        with pytest.raises(InputError) as caught:
            job(server.url, **changes)
        assert not server.calls
    for word in words:
        assert word in str(caught.value)


def test_the_plan_estimates_calls_tokens_and_cost(job: Job) -> None:
    """About what then is asked; nothing is called or written for it."""
    with ScriptedLlm() as server:
        chosen = job.settings(server.url, llm={"prompt_price": 0.15, "completion_price": 0.6, "token_budget": 1000})
        before = sorted(job.directory.rglob("*"))
        notes = plan(chosen, open_store(str(job.directory))).notes
        assert sorted(job.directory.rglob("*")) == before
        assert not server.calls
        job(server.url)
        made = len(server.calls)
    (line,) = [note for note in notes if "calls of scripted" in note]
    estimated = int(line.split("about ")[1].split(" calls")[0].replace(",", ""))
    assert 0.5 * made <= estimated <= 2 * made
    assert "cost about" in line
    assert any("will probably not be enough" in note for note in notes)
