"""The dataset on disk and in memory, and whether it leaks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nearer.corpus.dataset import Chunking, Dataset
from nearer.corpus.leak import find_leaks
from nearer.errors import ArtifactCorrupt
from nearer.records import Judgment, Negative, Passage, Query
from nearer.testing import korean_documents


def example() -> Dataset:
    """Six documents of two passages each; the last two are held out."""
    documents = korean_documents(6, seed=4)
    passages = {}
    for row in documents:
        first, second = row["content"].split("\n## ")
        heading, _, rest = second.partition("\n")
        for number, (path, text) in enumerate((((), first), ((heading,), rest))):
            id_ = f"{row['docid']}#{number}"
            passages[id_] = Passage(id=id_, document_id=row["docid"], title=row["title"], path=path, text=text)
    ids = [row["docid"] for row in documents]
    queries = {f"q{n}": Query(id=f"q{n}", text=row["title"], origin="real") for n, row in enumerate(documents)}
    queries["h"] = Query(id="h", text="\u2028줄\t바꿈 query", origin="hypothetical")
    return Dataset(
        passages=passages,
        queries=queries,
        train=(
            *(Judgment(query_id=f"q{n}", target=f"{ids[n]}#0") for n in range(3)),
            Judgment(query_id="h", target=f"{ids[3]}#1"),
            Judgment(query_id="h", target=ids[3], level="document"),
        ),
        test=(
            Judgment(query_id="q4", target=f"{ids[4]}#0", relevance=2),
            Judgment(query_id="q5", target=ids[5], level="document"),
        ),
        positives={"q3": ("어느 문서에도 없는 글",)},
        negatives={
            "q0": (Negative(miner="bm25+dense", score=0.25, corpus_id=f"{ids[1]}#0"),),
            "q3": (Negative(miner="enhanced", score=-0.5, text="지어낸 글"),),
        },
        groups={id_: id_ for id_ in ids},
        chunking=Chunking(chunker="kiwi-sentences-v1", max_tokens=60, tokenizer_sha256="0" * 64),
    )


def test_what_is_written_is_read_and_written_again_the_same(tmp_path: Path) -> None:
    """All fields survive, and the bytes are stable."""
    example().write(tmp_path / "one")
    loaded = Dataset.load(tmp_path / "one")
    assert loaded == example()
    loaded.write(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert [str(file) for file in files] == [
        "README.md",
        "chunking.json",
        "corpus.jsonl",
        "negatives.jsonl",
        "positives.jsonl",
        *(
            f"qrels/{split}{level}.{suffix}"
            for split in ("test", "train")
            for level in (".documents", "")
            for suffix in ("jsonl", "tsv")
        ),
        "queries.jsonl",
    ]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_layout_is_beirs(tmp_path: Path) -> None:
    """Names of fields and columns that other tools read."""
    example().write(tmp_path)
    row = json.loads((tmp_path / "corpus.jsonl").read_text(encoding="utf-8").split("\n")[1])
    assert set(row) == {"_id", "title", "text", "metadata"}
    assert set(row["metadata"]) == {"document_id", "path", "group"}
    assert (tmp_path / "qrels/test.tsv").read_text(encoding="utf-8").startswith("query-id\tcorpus-id\tscore\n")
    assert json.loads((tmp_path / "negatives.jsonl").read_text(encoding="utf-8").split("\n")[1]) == {
        "query_id": "q3",
        "negatives": [{"miner": "enhanced", "score": -0.5, "text": "지어낸 글"}],
    }


def test_datasets_reads_every_configuration(tmp_path: Path) -> None:
    """`datasets.load_dataset(directory, name)` works for all names in the README."""
    import datasets

    example().write(tmp_path / "d")
    names = datasets.get_dataset_config_names(str(tmp_path / "d"))
    assert set(names) == {"corpus", "queries", "default", "documents", "positives", "negatives"}
    rows = {
        name: {
            split: len(part)
            for split, part in datasets.load_dataset(str(tmp_path / "d"), name, cache_dir=str(tmp_path / "c")).items()
        }
        for name in names
    }
    assert rows["corpus"] == {"corpus": 12}
    assert rows["queries"] == {"queries": 7}
    assert rows["default"] == {"train": 4, "test": 1}
    assert rows["documents"] == {"train": 1, "test": 1}
    assert rows["negatives"] == {"train": 2}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("corpus.jsonl", lambda text: text.replace('"_id"', '"id"', 1)),
        ("queries.jsonl", lambda text: text[:-5]),
        ("negatives.jsonl", lambda text: text.replace("miner", "who", 1)),
        ("qrels/test.tsv", lambda text: text + "a b c\n"),
        ("chunking.json", lambda text: "[]"),
        ("queries.jsonl", None),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, change: object) -> None:
    """Which file is not what was written."""
    example().write(tmp_path)
    path = tmp_path / file
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8") if callable(change) else path.unlink()
    with pytest.raises(ArtifactCorrupt) as caught:
        Dataset.load(tmp_path)
    assert file in str(caught.value.where)


def leaks(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(leak.kind, leak.train, leak.test) for leak in find_leaks(dataset, near_duplicate=0.7, seed=13)]


def test_a_clean_dataset_has_no_leak() -> None:
    """The example is clean."""
    assert leaks(example()) == []


def test_every_kind_of_leak_is_found() -> None:
    """Query text, document, near-duplicate in spite of its recorded group, mined negative, given text."""
    clean = example()
    ids = list(clean.groups)
    held_out = clean.passages[f"{ids[4]}#0"]
    asked = {**clean.queries, "q1": replace(clean.queries["q1"], text=f"  {clean.queries['q4'].text.upper()}?!")}
    assert leaks(replace(clean, queries=asked)) == [("query", "q1", "q4")]
    both = replace(clean, train=(*clean.train, Judgment(query_id="q3", target=f"{ids[4]}#1")))
    assert leaks(both) == [("document", ids[4], ids[4])]
    copied = {
        id_: replace(passage, text=clean.passages[id_.replace(ids[2], ids[4])].text + " 끝")
        if passage.document_id == ids[2]
        else passage
        for id_, passage in clean.passages.items()
    }
    assert leaks(replace(clean, passages=copied)) == [("near-duplicate", ids[2], ids[4])]
    mined = replace(clean, negatives={"q1": (Negative(miner="bm25", score=0.1, corpus_id=f"{ids[5]}#1"),)})
    assert leaks(mined) == [("negative", "q1", ids[5])]
    given = replace(clean, positives={"q3": (held_out.text,)})
    assert leaks(given) == [("text", "q3", ids[4])]
    written = replace(clean, negatives={"q1": (Negative(miner="enhanced", score=0.1, text=held_out.text[:40]),)})
    assert leaks(written) == [("text", "q1", ids[4])]
