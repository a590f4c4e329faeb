"""The guide's own files run unchanged: its settings, documents, questions and enhanced questions."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from nearer.testing import korean_documents, tiny_embedder

Nearer = Callable[..., tuple[int, str, str]]

SETTINGS = """\
enhanced_validation:
  input_file: data/eval.jsonl
  output_file: data/eval_enhanced.jsonl
  llm_model: gpt-4o-mini
  max_questions: null
  max_concurrent: 2
  request_delay: 1.0

fine_tune:
  model_type: embedding
  base_model: EleutherAI/polyglot-ko-1.3b
  output_dir: models/fine_tuned_embedding
  epochs: 3
  batch_size: 16
  val_split: 0.1

test_fine_tuned:
  embedding_model_path: models/fine_tuned_embedding
  reranker_model_path: models/fine_tuned_reranker

EMBEDDING_MODEL: EleutherAI/polyglot-ko-1.3b
ELASTICSEARCH: {index: docs-ko, alpha: 0.8}
"""
RERANKER = """\
fine_tune:
  model_type: reranker
  base_model: bert-base-multilingual-cased  # or xlm-roberta-base
  output_dir: models/fine_tuned_reranker
  epochs: 3
  batch_size: 8  # Smaller batch size for reranker
  val_split: 0.1
"""


def hub_model(cache: Path, name: str, architecture: str) -> None:
    """A tiny model where huggingface_hub keeps a downloaded one."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    if repository.exists():
        return
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(revision)
    tiny_embedder(repository / "snapshots" / revision, architecture=architecture)


@pytest.fixture
def rag(workdir: Path) -> Path:
    """The user's directory as the guide leaves it, and a hub cache that holds its two base models."""
    cache = Path(os.environ["HF_HUB_CACHE"])
    hub_model(cache, "EleutherAI/polyglot-ko-1.3b", "gpt_neox")
    hub_model(cache, "bert-base-multilingual-cased", "bert")
    documents = korean_documents(48, seed=2)
    rows = [{key: row[key] for key in row if key != "title"} for row in documents]
    questions, enhanced = [], []
    for number, row in enumerate(documents[:36]):
        query = f"{row['content'][:20]} 어떻게 되나요"
        said = [{"role": "user", "content": "안녕하세요"}, {"role": "assistant", "content": "네"}]
        questions.append({"eval_id": number, "msg": [*said, {"role": "user", "content": query}],
                          "ground_truth_doc_id": row["docid"], "domain": "생활", "source": "test"})  # fmt: skip
        enhanced.append({"eval_id": number, "query": query, "ideal_context": [" ".join(row["content"].split())],
                         "ideal_answer": "답", "hard_negative_context": [f"{row['content'][:30]} 그러나 전혀 다른 이야기이다."]})  # fmt: skip
    for name, lines in (("documents", rows), ("eval", questions), ("eval_enhanced", enhanced)):
        path = workdir / f"data/{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    (workdir / "conf").mkdir()
    (workdir / "conf/settings.yaml").write_text(SETTINGS, encoding="utf-8")
    return workdir


def test_generate_train_both_models_and_eval_run_from_the_guides_file(rag: Path, nearer: Nearer) -> None:
    """No option and no edit beyond the guide's own: the models load in plain sentence-transformers, a report stands."""
    paid = (rag / "data/eval_enhanced.jsonl").read_bytes()
    code, out, err = nearer("generate")
    assert code == 0, err
    assert "ELASTICSEARCH" in err
    assert (rag / "data/eval_enhanced/corpus.jsonl").exists()
    code, out, err = nearer("train")
    assert code == 0, err
    edited = SETTINGS[: SETTINGS.index("fine_tune:")] + RERANKER + SETTINGS[SETTINGS.index("\ntest_fine_tuned:") :]
    (rag / "conf/settings.yaml").write_text(edited, encoding="utf-8")
    code, out, err = nearer("train")
    assert code == 0, err
    code, out, err = nearer("eval")
    assert code == 0, err
    assert "R@10" in out
    assert "P@10" in out
    assert "tuned+reranker" in out
    assert (rag / "data/eval_enhanced.jsonl").read_bytes() == paid
    vectors = SentenceTransformer(str(rag / "models/fine_tuned_embedding"), device="cpu").encode(["필터 교체", "보증"])
    assert vectors.shape[0] == 2
    scores = CrossEncoder(str(rag / "models/fine_tuned_reranker"), device="cpu").predict([("필터", "필터를 바꾼다")])
    assert scores.shape == (1,)
    report = json.loads((rag / "reports/report/report.json").read_text(encoding="utf-8"))
    assert report["queries"] > 0
    # The guide's own measures, by ideal context: texts without ids, traced back to the passages that they stand in.
    assert report["snippets"]["snippets"] == report["snippets"]["queries"] > 0
    assert report["snippets"]["unlinked"] == 0
    assert {"R@10", "P@10"} <= report["snippets"]["systems"]["tuned+reranker"].keys()
    assert "as the guide counts" in out
    assert report["verdict"]["decision"] in ("ship", "do not ship", "inconclusive")


def test_enhanced_questions_alone_are_enough(rag: Path, nearer: Nearer) -> None:
    """Without ground truth in eval.jsonl the enhanced file gives queries, ideal contexts and hard negatives."""
    path = rag / "data/eval.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["ground_truth_doc_id"]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    documents = [json.loads(line) for line in (rag / "data/documents.jsonl").read_text(encoding="utf-8").splitlines()]
    bare = [{key: row[key] for key in row if key != "hypothetical_questions"} for row in documents]
    (rag / "data/documents.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in bare))
    code, _, err = nearer("generate")
    assert code == 0, err
    negatives = (rag / "data/eval_enhanced/negatives.jsonl").read_text(encoding="utf-8")
    assert "전혀 다른 이야기" in negatives
    assert "전혀 다른 이야기" not in (rag / "data/eval_enhanced/corpus.jsonl").read_text(encoding="utf-8")


def test_an_llm_alone_is_refused_with_words(rag: Path, nearer: Nearer) -> None:
    """A guide file that names an LLM but has no questions, judgments or enhanced file ends in exit 2."""
    shutil.rmtree(rag / "data")
    (rag / "data").mkdir()
    rows = [{"docid": f"d{n}", "src": "x", "content": f"{n}번째 문서입니다. 내용은 {n * 7}입니다."} for n in range(20)]
    (rag / "data/documents.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    question = {"eval_id": 1, "msg": [{"role": "user", "content": "무엇입니까?"}]}
    (rag / "data/eval.jsonl").write_text(json.dumps(question, ensure_ascii=False) + "\n")
    code, _, err = nearer("generate")
    assert code == 2
    assert "gpt-4o-mini" in err
