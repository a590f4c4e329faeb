"""`nearer doctor data`: what it finds in datasets that are wrong on purpose, and its page."""

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nearer.cli.app import run
from nearer.corpus.dataset import Dataset
from nearer.doctor.data import Diagnosis, Reading, diagnose
from nearer.doctor.page import page
from nearer.doctor.shape import language
from nearer.records import Judgment, Negative, Query
from nearer.store import Manifest, open_store
from nearer.testing import korean_dataset


@pytest.fixture(scope="module")
def clean() -> Dataset:
    return korean_dataset(40, seed=2)


def look(dataset: Dataset, reading: Reading | None = None) -> Diagnosis:
    return diagnose(dataset, name="d", near_duplicate=0.7, max_share=0.9, seed=1, reading=reading)


def cases(dataset: Dataset, reading: Reading | None = None) -> dict[str, int]:
    return {finding.name: finding.count for finding in look(dataset, reading).findings if finding.count}


def first(dataset: Dataset) -> tuple[Judgment, Judgment]:
    return dataset.train[0], dataset.test[0]


def test_a_clean_dataset_has_no_leak_and_its_counts(clean: Dataset) -> None:
    """Documents, queries by origin, labels and languages."""
    found = look(clean)
    assert found.leaks == 0
    assert found.counts["dataset"]["documents"] == 40
    assert found.counts["test queries by origin"] == {"hypothetical": 24}
    assert found.counts["hard negatives of a train query"] == {"3": 96}
    assert found.counts["queries by language"] == {"Korean": 120}
    assert cases(clean)["too few test queries"] == 26


def spoiled(clean: Dataset) -> Iterator[tuple[str, Dataset]]:
    train, test = first(clean)
    asked = clean.queries[test.query_id].text
    yield (
        "leak: query",
        replace(clean, queries={**clean.queries, train.query_id: Query(id=train.query_id, text=f" {asked}?")}),
    )
    yield "leak: document", replace(clean, train=(*clean.train, replace(train, target=test.target)))
    copied = {
        **clean.passages,
        train.target: replace(clean.passages[train.target], text=clean.passages[test.target].text),
    }
    own = clean.passages[train.target].document_id
    other = clean.passages[test.target].document_id
    for number in (0, 1):
        copied[f"{own}#{number}"] = replace(copied[f"{own}#{number}"], text=clean.passages[f"{other}#{number}"].text)
    yield "leak: near-duplicate", replace(clean, passages=copied)
    hard = Negative(miner="m", score=0.1, corpus_id=test.target)
    yield "leak: negative", replace(clean, negatives={**clean.negatives, train.query_id: (hard,)})
    said = Negative(miner="llm", score=0.1, text=clean.passages[test.target].text)
    yield "leak: text", replace(clean, negatives={**clean.negatives, train.query_id: (said,)})
    near = asked[:-1] + "까"
    yield (
        "near-duplicate queries",
        replace(clean, queries={**clean.queries, train.query_id: Query(id=train.query_id, text="정말 " + near)}),
    )
    answer = clean.passages[train.target].text
    yield (
        "false negative: repeats an answer",
        replace(
            clean, negatives={**clean.negatives, train.query_id: (Negative(miner="m", score=1, text=answer + "!"),)}
        ),
    )
    second = next(judgment for judgment in clean.train if judgment.target[:8] != train.target[:8])
    yield (
        "false negative: judged an answer",
        replace(
            clean,
            queries={**clean.queries, second.query_id: replace(clean.queries[train.query_id], id=second.query_id)},
            negatives={**clean.negatives, train.query_id: (Negative(miner="m", score=1, corpus_id=second.target),)},
        ),
    )
    close = replace(clean.negatives[train.query_id][0], share=0.89)
    yield "false negative: scored like one", replace(clean, negatives={**clean.negatives, train.query_id: (close,)})
    yield "no hard negative", replace(clean, negatives={})
    twice = {**clean.passages, "x#0": replace(clean.passages[train.target], id="x#0", document_id="x")}
    yield "repeated passages", replace(clean, passages=twice)


def test_each_kind_of_trouble_is_found(clean: Dataset) -> None:
    """Every spoiled dataset has the finding that it was made for, with a sample; a clean one has none of them."""
    known = cases(clean)
    names = []
    for name, dataset in spoiled(clean):
        finding = next(each for each in look(dataset).findings if each.name == name)
        assert finding.count > known.get(name, 0), name
        assert finding.samples, name
        names.append(name)
    assert len(names) == 11


def test_what_training_would_not_read_is_counted(clean: Dataset) -> None:
    """In tokens of the model, with the longest first."""
    reading = Reading(
        count_tokens=lambda texts: [len(text) for text in texts],
        max_query_tokens=15,
        max_passage_tokens=60,
        render=lambda passage: passage.text,
    )
    found = cases(clean, reading)
    assert found["cut query"] == sum(len(query.text) > 15 for query in clean.queries.values()) > 0
    assert found["cut passage"] == sum(len(passage.text) > 60 for passage in clean.passages.values()) > 0
    assert sum(count for _, count in look(clean, reading).histograms[1].bars) == len(clean.passages)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_needs_nothing_else_and_shows_texts_as_texts(clean: Dataset) -> None:
    """No script, no link; a passage that holds HTML stays a passage."""
    evil = {**clean.passages}
    for id_ in list(evil)[:2]:
        evil[id_] = replace(evil[id_], text="<script>alert(1)</script> 같은 글이 두 번 있다")
    html = page(look(replace(clean, passages=evil)))
    reader = Reader()
    reader.feed(html)
    assert "script" not in reader.tags
    assert not reader.links
    assert "&lt;script&gt;" in html
    assert "No leak from test to train was found" in html


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("VLOOKUP 함수", "Korean"),
        ("how to", "Latin script"),
        ("方法について", "Japanese"),
        ("方法", "Chinese characters"),
        ("12 %", "no letters"),
        ("как", "other script"),
    ],
)
def test_languages_are_told_by_script(text: str, name: str) -> None:
    """Korean with Latin terms is Korean."""
    assert language(text) == name


@pytest.mark.parametrize(("leaks", "code"), [(False, 0), (True, 3)])
def test_the_command_ends_with_3_when_the_dataset_leaks(
    clean: Dataset, workdir: Path, capfd: pytest.CaptureFixture[str], *, leaks: bool, code: int
) -> None:
    """A table on the terminal, a page beside it; without a tokenizer lengths are characters."""
    dataset = next(made for name, made in spoiled(clean) if name == "leak: document") if leaks else clean
    dataset.write(workdir / "made")
    store = open_store(str(workdir))
    store.publish("datasets/d", workdir / "made", Manifest(kind="dataset", name="generate", fingerprint="f" * 64))
    (workdir / "nearer.yaml").write_text("generate: {output_dir: datasets/d, embedder: ./no-model}\n")
    assert run(["doctor", "data", "--page", "out/page.html"]) == code
    out, err = capfd.readouterr()
    assert "leak: document" in out
    assert "lengths are in characters" in err
    assert ("the dataset leaks from test to train" in err) is leaks
    assert (workdir / "out/page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_without_a_dataset_it_says_what_to_run(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit 2."""
    (workdir / "nearer.yaml").write_text("seed: 1\n")
    assert run(["doctor", "data"]) == 2
    assert "nearer generate" in capfd.readouterr().err
