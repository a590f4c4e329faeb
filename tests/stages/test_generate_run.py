"""`nearer generate` as a job: settings and a store in, an artifact out, with a real (tiny) model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearer.corpus.dataset import Dataset
from nearer.errors import ArtifactExists, InputError
from nearer.generate.run import plan, run
from nearer.models.contract import render_passage
from nearer.models.load import load_embedder, load_reranker
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.settings.model import Settings
from nearer.store import Store, open_store
from nearer.testing import korean_documents, tiny_cross_encoder, tiny_embedder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, questions and a model; not to be written to."""
    directory = tmp_path_factory.mktemp("files")
    documents = korean_documents(40, seed=11)
    questions = [
        {
            "eval_id": f"q{n}",
            "msg": [{"role": "user", "content": f"{row['title']} 알려 주세요"}],
            "ground_truth_doc_id": row["docid"],
        }
        for n, row in enumerate(documents[:8])
    ]
    for name, rows in (("documents", documents), ("eval", questions)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (directory / f"{name}.jsonl").write_text(text, encoding="utf-8")
    tiny_embedder(directory / "model", sentence_transformer=True)
    return directory


def settings(files: Path, root: Path, **changes: object) -> Settings:
    own = {
        "documents": str(files / "documents.jsonl"),
        "queries": str(files / "eval.jsonl"),
        "embedder": str(files / "model"),
        "output_dir": "datasets/d",
        "chunk": {"max_tokens": 30},
        "negatives": {"per_query": 3, "depth": 15, "max_share_of_positive": 1.2},
        **changes,
    }
    return Settings.model_validate({"artifacts": str(root), "generate": own})


def store(root: Path, *, overwrite: bool = False) -> Store:
    return open_store(str(root), overwrite=overwrite)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_the_artifact_holds_a_dataset_its_audit_and_the_counts(files: Path, tmp_path: Path) -> None:
    """Passages fit the model's own tokenizer; the manifest names inputs and counts; a second run is a no-op."""
    chosen = settings(files, tmp_path)
    manifest = run(chosen, store(tmp_path), Silent())
    assert (manifest.kind, manifest.name, manifest.outcome.code) == ("dataset", "generate", 0)
    assert set(manifest.inputs) == {"documents", "queries", "embedder"}
    artifact = store(tmp_path).open("datasets/d", kind="dataset")
    dataset = Dataset.load(artifact.path)
    embedder = load_embedder(find_model(str(files / "model"), store=store(tmp_path)))
    texts = [passage.text for passage in dataset.passages.values()]
    assert max(embedder.count_tokens(texts)) <= 30
    assert dataset.chunking.tokenizer_sha256 == embedder.contract.tokenizer_sha256
    assert manifest.metrics["test_by_origin"] == {"real": 8}
    assert manifest.metrics["negatives"] == sum(len(found) for found in dataset.negatives.values()) > 0
    rendered = render_passage(dataset.chunking.template, title="제목", path=("가", "나"), text=texts[0])
    assert rendered == f"제목\n가 > 나\n{texts[0]}"
    again = run(chosen, store(tmp_path), Silent())
    assert again.created_at == manifest.created_at
    assert plan(chosen, store(tmp_path)).inputs[0].state == "there"


def test_other_settings_do_not_replace_it_unless_told(files: Path, tmp_path: Path) -> None:
    """Exit 2 names both; the documents' address does not count, their content does."""
    first = run(settings(files, tmp_path), store(tmp_path), Silent())
    changed = settings(files, tmp_path, test_share=0.3)
    with pytest.raises(ArtifactExists):
        run(changed, store(tmp_path), Silent())
    assert run(changed, store(tmp_path, overwrite=True), Silent()).fingerprint != first.fingerprint
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes((files / "documents.jsonl").read_bytes())
    moved = settings(files, tmp_path, documents=str(copy), test_share=0.3)
    assert run(moved, store(tmp_path), Silent()).fingerprint != first.fingerprint


def test_a_cross_encoder_judges_where_it_is_asked_to(files: Path, tmp_path: Path) -> None:
    """Every mined negative carries the cross-encoder's own score of its pair; another judge is other work."""
    reranker = str(tiny_cross_encoder(tmp_path / "cross"))
    mined = {"per_query": 3, "depth": 15, "max_share_of_positive": 1.2, "teacher": "reranker"}
    manifest = run(settings(files, tmp_path, negatives=mined, reranker=reranker), store(tmp_path), Silent())
    assert "reranker" in manifest.inputs
    dataset = Dataset.load(store(tmp_path).open("datasets/d", kind="dataset").path)
    found = [(query, one) for query, negatives in dataset.negatives.items() for one in negatives if one.corpus_id]
    assert found
    passages = [dataset.passages[one.corpus_id] for _, one in found]
    pairs = [
        (
            dataset.queries[query].text,
            render_passage(dataset.chunking.template, title=each.title, path=each.path, text=each.text),
        )
        for (query, _), each in zip(found, passages, strict=True)
    ]
    scored = load_reranker(find_model(reranker, store=store(tmp_path))).score(pairs)
    audit = json.loads((tmp_path / "datasets/d/audit.json").read_text(encoding="utf-8"))
    zero = audit["mining"]["teacher_zero"]
    assert scored.tolist() == pytest.approx([zero + one.score for _, one in found], abs=1e-4)
    with pytest.raises(ArtifactExists):
        run(settings(files, tmp_path), store(tmp_path), Silent())
    with pytest.raises(InputError, match=r"generate\.reranker names none"):
        run(settings(files, tmp_path, negatives=mined), store(tmp_path), Silent())


def test_wrong_documents_are_told_before_the_model_is_loaded(files: Path, tmp_path: Path) -> None:
    """A model that cannot be loaded is not reached."""
    broken = tmp_path / "broken-model"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    (tmp_path / "bad.jsonl").write_text('{"docid": "a"}\n')
    bad = settings(files, tmp_path, documents=str(tmp_path / "bad.jsonl"), queries=None, embedder=str(broken))
    with pytest.raises(InputError, match="1 of 1 entries"):
        run(bad, store(tmp_path), Silent())
    assert not (tmp_path / "datasets").exists()


def test_the_plan_says_what_is_missing_and_touches_nothing(files: Path, tmp_path: Path) -> None:
    """Inputs with their state, the output, and that the language model is not asked where questions are there."""
    root = tmp_path / "root"
    made = plan(settings(files, root, queries="gone.jsonl", llm_model="gpt-4o-mini", embedder="org/model"), store(root))
    states = {item.name: item.state for item in made.inputs}
    assert states == {"documents": "there", "queries": "missing", "embedder": "hub id, resolved when it runs"}
    assert any("gpt-4o-mini" in note for note in made.notes)
    assert not root.exists()


def test_planning_and_importing_load_nothing_heavy(files: Path, tmp_path: Path) -> None:
    """`--dry-run` answers at once."""
    script = (
        "import sys\nfrom nearer.generate.run import plan\nfrom nearer.settings.model import Settings\n"
        "from nearer.store import open_store\n"
        f"settings = Settings.model_validate_json({settings(files, tmp_path).model_dump_json()!r})\n"
        f"plan(settings, open_store({str(tmp_path)!r}))\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy', 'kiwipiepy', 'datasketch', 'boto3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("delay", [1.5, 4.0])
def test_killed_and_run_again_it_gives_the_same_bytes(files: Path, tmp_path: Path, delay: float) -> None:
    """kill -9 at two moments, then the same command: the result equals an undisturbed one's."""
    config = tmp_path / "nearer.yaml"
    config.write_text(settings(files, tmp_path / "killed").model_dump_json())
    command = [sys.executable, "-m", "nearer", "generate", "-c", str(config)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(settings(files, tmp_path / "killed"), store(tmp_path / "killed"), Silent())
    run(settings(files, tmp_path / "calm"), store(tmp_path / "calm"), Silent())
    assert contents(tmp_path / "killed/datasets/d") == contents(tmp_path / "calm/datasets/d")
