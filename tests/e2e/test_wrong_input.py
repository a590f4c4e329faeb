"""Wrong input ends in exit 2 with what, where, the rule and the way out, and leaves what is there as it was."""

import ctypes
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import forked
import pytest
import yaml

Nearer = Callable[..., tuple[int, str, str]]
DOCUMENTS = Path("data/documents.jsonl")
QUESTIONS = Path("data/eval.jsonl")
OTHER = ("--set", "generate.output_dir=datasets/other")


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def replace_line(path: Path, number: int, change: Callable[[dict[str, object]], object]) -> None:
    """Rewrite one line (from 1) of a JSON lines file; a string is written as it is."""
    rows = lines(path)
    changed = change(json.loads(rows[number - 1]))
    rows[number - 1] = changed if isinstance(changed, str) else json.dumps(changed, ensure_ascii=False)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def many_documents_one_bad_line() -> None:
    row = json.loads(lines(DOCUMENTS)[0])
    rows = [json.dumps({**row, "docid": f"d{n}", "content": f"{row['content']} {n}"}) for n in range(4016)]
    DOCUMENTS.write_text("\n".join([*rows, '{"docid": "d4017", "content": ']) + "\n", encoding="utf-8")


def latin1() -> None:
    DOCUMENTS.write_bytes(DOCUMENTS.read_bytes() + '{"docid": "x", "content": "café"}\n'.encode("latin-1"))


def another_document() -> None:
    with DOCUMENTS.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"docid": "new", "src": "x", "content": "새로 온 문서입니다. 내용이 다릅니다."}) + "\n")


def broken_model() -> None:
    shutil.copytree("models/base", "models/broken")
    weights = Path("models/broken/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])


def corrupt_dataset() -> None:
    corpus = Path("datasets/d/corpus.jsonl")
    content = bytearray(corpus.read_bytes())
    content[len(content) // 2] ^= 1
    corpus.chmod(0o644)
    corpus.unlink()
    corpus.write_bytes(content)


def not_ours() -> None:
    Path("datasets/mine").mkdir()
    Path("datasets/mine/notes.txt").write_text("precious")


@dataclass(frozen=True)
class Case:
    name: str
    words: tuple[str, ...]
    """What stderr must hold: the thing, its place, the rule or the way out."""
    arguments: tuple[str, ...] = ("generate", *OTHER)
    prepare: Callable[[], None] = lambda: None


CASES = [
    Case("no settings file", ("no settings file", "gone.yaml", "-c"), ("generate", "-c", "gone.yaml")),
    Case(
        "settings that are not YAML",
        ("not YAML", "nearer.yaml:"),
        prepare=lambda: Path("nearer.yaml").write_text("a: ["),
    ),
    Case("unknown key", ("epoch", "did you mean epochs?", "--set"), ("train", "--set", "train.embedding.epoch=3")),
    Case(
        "wrong type", ("batch_size is 'many'", "valid integer"), ("train", "--set", "train.embedding.batch_size=many")
    ),
    Case("val_split 1.5", ("val_split is 1.5", "less than 1"), ("train", "--set", "train.embedding.val_split=1.5")),
    Case("unknown option", ("No such option", "--epochs"), ("train", "--epochs", "3")),
    Case(
        "missing documents", ("gone.jsonl", "way out"), ("generate", *OTHER, "--set", "generate.documents=gone.jsonl")
    ),
    Case("bad JSON line 4017", ("documents.jsonl:4017", "JSON"), prepare=many_documents_one_bad_line),
    Case("empty corpus", ("documents.jsonl", "no document"), prepare=lambda: DOCUMENTS.write_text("")),
    Case(
        "duplicate ids",
        ("documents.jsonl:2", "duplicate"),
        prepare=lambda: replace_line(
            DOCUMENTS, 2, lambda row: {**row, "docid": json.loads(lines(DOCUMENTS)[0])["docid"]}
        ),
    ),
    Case("Latin-1 bytes", ("documents.jsonl:41", "UTF-8", "iconv"), prepare=latin1),
    Case(
        "empty passage",
        ("documents.jsonl:3", "empty"),
        prepare=lambda: replace_line(DOCUMENTS, 3, lambda row: {**row, "content": "  \n "}),
    ),
    Case(
        "50,000-character sentence",
        ("50,000", "20,000"),
        prepare=lambda: replace_line(DOCUMENTS, 3, lambda row: {**row, "content": "가" * 50_000}),
    ),
    Case(
        "unknown form of documents",
        ("documents.jsonl:1", "docid", ".md, .txt and .html"),
        prepare=lambda: DOCUMENTS.write_text('{"foo": 1, "bar": "x"}\n'),
    ),
    Case(
        "a judgment for an unknown document",
        ("eval.jsonl", "no-such-document"),
        prepare=lambda: replace_line(QUESTIONS, 4, lambda row: {**row, "ground_truth_doc_id": "no-such-document"}),
    ),
    Case(
        "queries with no judgment",
        ("judgment", "eval.jsonl"),
        ("generate", *OTHER, "--set", "generate.sources=[queries]"),
        prepare=lambda: QUESTIONS.write_text(
            "".join(
                json.dumps({k: v for k, v in json.loads(line).items() if k != "ground_truth_doc_id"}) + "\n"
                for line in lines(QUESTIONS)
            )
        ),
    ),
    Case(
        "an LLM is named and nothing else gives queries",
        ("gpt-4o-mini", "queries"),
        ("generate", *OTHER, "--set", "generate.llm_model=gpt-4o-mini", "--set", "generate.queries=null"),
        prepare=lambda: DOCUMENTS.write_text(
            "".join(
                json.dumps({k: v for k, v in json.loads(line).items() if k != "hypothetical_questions"}) + "\n"
                for line in lines(DOCUMENTS)
            )
        ),
    ),
    Case(
        "missing model",
        ("no-such-model", "way out"),
        ("generate", *OTHER, "--set", "generate.embedder=./no-such-model"),
    ),
    Case(
        "unreadable model",
        ("models/broken", "header", "weights"),
        ("train", "embedding", "--overwrite", "--set", "train.embedding.base_model=models/broken"),
        prepare=broken_model,
    ),
    Case(
        "no dataset yet",
        ("datasets/none", "nearer generate"),
        ("train", "embedding", "--set", "train.embedding.dataset=datasets/none"),
    ),
    Case(
        "the wrong kind of artifact",
        ("models/e", "embedder", "dataset"),
        ("train", "embedding", "--overwrite", "--set", "train.embedding.dataset=models/e"),
    ),
    Case("an output with another fingerprint", ("datasets/d", "--overwrite"), ("generate",), prepare=another_document),
    Case(
        "an output that is not ours",
        ("datasets/mine",),
        ("generate", "--set", "generate.output_dir=datasets/mine"),
        not_ours,
    ),
    Case(
        "a corrupt dataset",
        ("corpus.jsonl", "sha256"),
        ("train", "reranker"),
        prepare=corrupt_dataset,
    ),
    Case("an address of an unknown scheme", ("gs://x",), ("generate", "--set", "generate.output_dir=gs://x")),
    Case("nothing to export", ("models/r", "nearer train"), ("export-onnx",)),
    Case(
        "nothing to train",
        ("train.embedding", "way out"),
        ("pipeline", "-c", "bare.yaml"),
        lambda: Path("bare.yaml").write_text("seed: 1\n") and None,
    ),
    Case("nothing to roll back to", ("indexes/i",), ("reindex", "--rollback")),
    Case(
        "a job file of another command",
        ("nearer eval",),
        ("generate", "-c", "job.yaml"),
        prepare=lambda: (
            Path("job.yaml").write_text(yaml.safe_dump({"command": "eval", "settings": {"seed": 1}})) and None
        ),
    ),
]


def artifacts(directory: Path) -> dict[str, str]:
    """sha256 of each file of what stood before."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("datasets", "models", "reports", "indexes")
        for path in sorted((directory / name).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_wrong_input_is_told_and_loses_nothing(case: Case, user: Path, nearer: Nearer) -> None:
    """Exit 2, the words, and every artifact as it was."""
    case.prepare()
    before = artifacts(user)
    code, out, err = nearer(*case.arguments)
    assert code == 2, err
    for word in case.words:
        assert word in err + out
    assert "Traceback" not in err
    assert artifacts(user) == before


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_full_disk_is_told_and_loses_nothing(user: Path) -> None:
    """A file that cannot grow ends in exit 2 with words; nothing half-made stands at the output."""
    before = artifacts(user)
    done = forked.run(user, "generate", *OTHER, prepare=small_files)
    assert done.code == 2, done.said
    assert "way out" in done.said
    assert artifacts(user) == before


def elsewhere(user: Path, place: Path) -> list[str]:
    """`generate` with its output and its artifacts root in another place."""
    settings = {
        "generate.output_dir": place / "d",
        "artifacts": place,
        "generate.documents": user / DOCUMENTS,
        "generate.queries": user / QUESTIONS,
        "train.embedding.base_model": user / "models/base",
    }
    return ["generate", *(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))]


def mount_small(place: str) -> None:
    """In a mount namespace of this process alone."""
    assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to mount a small file system",
)
def test_no_space_left_is_told(user: Path) -> None:
    """A real file system without space: exit 2 names it, and the artifacts root stays usable."""
    small = user / "small"
    small.mkdir()
    before = artifacts(user)
    done = forked.run(user, *elsewhere(user, small), prepare=partial(mount_small, str(small)))
    assert done.code == 2, done.said
    assert "No space left" in done.said
    assert artifacts(user) == before


def test_no_permission_is_told(user: Path) -> None:
    """A root that may not be written: exit 2 names the path and the way out."""
    closed = user / "closed"
    closed.mkdir(mode=0o500)

    def without_override() -> None:  # root passes every permission check unless it gives these capabilities up
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)

    done = subprocess.run(
        [sys.executable, "-m", "nearer", *elsewhere(user, closed)],
        cwd=user,
        preexec_fn=without_override,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "closed" in done.stderr
    assert "permissions" in done.stderr
