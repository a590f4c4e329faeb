"""report.html as a reader has it: nothing from the network, readable by everybody, Korean text as text."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from nearer.evaluate.build import build
from nearer.evaluate.first import Caches, Model
from nearer.evaluate.gates import Rules
from nearer.evaluate.leakage import Leakage
from nearer.evaluate.page import Background
from nearer.evaluate.protocol import Protocol
from nearer.models.load import load_embedder
from nearer.models.source import find_model
from nearer.progress import Silent
from nearer.settings.evaluate import VerdictSettings
from nearer.store import open_store
from nearer.testing import korean_dataset, tiny_embedder

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it that a page can show."""
    directory = tmp_path_factory.mktemp("page")
    store = open_store(str(directory))
    dataset = korean_dataset(40, 3, test_share=0.9)
    others = {id_: replace(query, origin="llm") for id_, query in list(dataset.queries.items())[-12:]}
    models = {}
    for seed, role in enumerate(("base", "tuned")):
        source = find_model(str(tiny_embedder(directory / role, sentence_transformer=True, seed=seed)), store=store)

        def load(source: object = source) -> object:
            return load_embedder(source, device="cpu")

        models[role] = Model(name=HOSTILE, fingerprint=role, identity=role, precision="fp32", size=1_000_000, load=load)
    build(
        directory,
        dataset=replace(dataset, queries={**dataset.queries, **others}),
        general=None,
        leakage=Leakage(leaks=(HOSTILE,)),
        embedders=models,
        rerankers={},
        incumbent="base",
        muted=(),
        plan=Protocol(
            ks=[1, 5, 10],
            rerank_depth=5,
            bm25=True,
            alpha=0.8,
            max_queries=None,
            batch_tokens=4096,
            speed_queries=2,
            seed=1,
        ),
        rules=Rules(**VerdictSettings().model_dump()),
        background=Background(
            lineage=["reports/r  report 0123", f"└── dataset: {HOSTILE}"],
            audit={
                "summary": {"documents": 40, "test_by_origin": {"hypothetical": 108}},
                "dropped": {"too-short": {"meaning": "shorter than a word", "count": 3, "samples": []}},
            },
            settings={"seed": 1},
        ),
        ideal_contexts=None,
        caches=Caches(vectors=directory / "v", pair_scores=directory / "p", runs=directory / "r"),
        progress=Silent(),
    )
    return directory


@pytest.fixture(scope="module")
def html(made: Path) -> str:
    """The page."""
    return (made / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """What stands in the page: tags with attributes in order, and the texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_the_page_needs_nothing_from_the_network(html: str) -> None:
    """No script, no link, no image; references point into the page itself."""
    read = Reader(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.tags}
    for _, attributes in read.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"https?:|@import|url\((?!#)", html.replace("<!doctype html>", ""))


def test_names_and_findings_are_text_and_never_markup(html: str) -> None:
    """A model's name may hold anything."""
    assert HOSTILE not in html
    assert HOSTILE in "".join(Reader(html).texts)


def test_the_page_shows_the_verdict_first_and_everything_that_led_to_it(html: str) -> None:
    """Headings in their order, none left out, no level skipped."""
    read = Reader(html)
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    wanted = ["Verdict: ", "The comparison that decides", "Checks", "Systems", "What changed", "Query by query"]
    wanted += ["Most improved", "Most harmed", "Slices", "Speed and size", "The data", "Lineage and settings"]
    places = [read.texts.index(text) for text in wanted]
    assert places == sorted(places)
    assert 'lang="en"' in html.partition("<head>")[0]


def test_every_table_has_a_caption_and_headers_for_its_rows_and_columns(html: str) -> None:
    """Somebody who hears the page knows which cell is read."""
    read = Reader(html)
    assert read.count("table") == read.count("caption") >= 6
    scopes = [attributes.get("scope") for tag, attributes in read.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    rows = html.count("<tr>") - read.count("thead")
    assert scopes.count("row") == rows


def test_every_picture_says_what_it_shows_and_holds_text_as_text(html: str) -> None:
    """An accessible name with the numbers; names of systems can be found in the page, and colours follow the reader."""
    pictures = re.findall(r"<svg role=\"img\".*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        assert re.search(r'aria-label="[^"]{20,}"', picture)
        assert "<text" in picture
        assert "var(--ink)" in picture
        assert not re.search(r"#0[0-9]0[0-9]0[0-9]|DejaVu|#1[0-9]1", picture)
    ids = re.findall(r' id="([^"]+)"', html)
    assert "tuned-hybrid" in pictures[1]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', html)) <= set(ids)


def test_text_stands_out_from_the_ground_in_light_and_dark(html: str) -> None:
    """WCAG 2.2, 1.4.3: a ratio of 4.5 for text, in every colour that text has, on both grounds."""
    found = dict(re.findall(r"--([a-z0-9-]+): light-dark\(([^)]+)\)", html))
    assert {"ink", "soft", "up", "down", "unsure", "ground", "band"} <= found.keys()
    for name in found.keys() - {"ground", "band", "line"}:
        for mode in (0, 1):
            for ground in ("ground", "band"):
                text, back = (luminance(found[one].split(",")[mode].strip()) for one in (name, ground))
                ratio = (max(text, back) + 0.05) / (min(text, back) + 0.05)
                assert ratio >= 4.5, (name, mode, ground, ratio)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_queries_that_changed_most_are_shown_with_what_was_retrieved(made: Path, html: str) -> None:
    """The query's text, what was wanted, and both lists with the wanted ones marked; at most ten of each."""
    rows = [json.loads(line) for line in (made / "per_query.jsonl").read_text(encoding="utf-8").splitlines()]

    def gain(row: dict[str, dict[str, dict[str, float]]]) -> float:
        return row["systems"]["tuned-hybrid"]["nDCG@10"] - row["systems"]["incumbent"]["nDCG@10"]

    best, worst = max(rows, key=gain), min(rows, key=gain)
    texts = "".join(Reader(html).texts)
    assert best["text"] in texts
    assert worst["text"] in texts
    assert 2 <= html.count('<details class="case">') <= 20
    assert "✓ wanted" in texts


def test_a_slice_that_is_too_small_says_so(html: str) -> None:
    """Its figures are shown, and marked."""
    assert "too small to judge" in html
