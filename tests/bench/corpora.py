"""More corpora for `recipes.py`, in BEIR's form: other kinds of queries for the same documents, and a reading test's.

Their queries are judged on documents. None is used where it would answer itself: what a query is made of is taken out of
its document, but for keywords, which are the document's own words and so are BM25's to win.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from kiwipiepy import Kiwi

from nearer.corpus.read import read_documents
from nearer.ranking.tokenise import tokenise
from nearer.records import Document

KEYWORDS: Final = 3
SHORTEST: Final = 15
"""Characters of a description; what is shorter is mostly a label."""
REST: Final = 200
"""Characters that a document must still have when its description is gone."""


def descriptions(documents: Path, folder: Path) -> None:
    """The first sentence of each document asks for the rest of it."""
    kept: list[Document] = []
    queries: list[tuple[str, str, str]] = []
    kiwi = Kiwi()
    for document in read_documents(documents):
        lines = document.text.splitlines()
        place = next((row for row, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
        sentences = kiwi.split_into_sents(lines[place]) if place is not None else []
        first = sentences[0].text.strip() if sentences else ""
        rest = document.text.replace(first, "").strip()
        asks = len(first) >= SHORTEST and len(rest) >= REST
        if asks:
            queries.append((f"description-{document.id}", first, document.id))
        kept.append(replace(document, text=rest) if asks else document)
    _write(folder, kept, queries)


def keywords(documents: Path, folder: Path) -> None:
    """The three words that tell each document best from the others (the highest tf-idf of its morphemes) ask for it."""
    kept = list(read_documents(documents))
    words = list(tokenise([document.text for document in kept]))
    frequency = Counter(word for of in words for word in set(of))
    queries = []
    for document, of in zip(kept, words, strict=True):
        counts = Counter(word for word in of if len(word) > 1 and not word.isdigit())
        value = {word: (1 + math.log(count)) * math.log(len(kept) / frequency[word]) for word, count in counts.items()}
        best = sorted(value, key=lambda word: (-value[word], word))[:KEYWORDS]
        if len(best) == KEYWORDS:
            queries.append((f"keywords-{document.id}", " ".join(best), document.id))
    _write(folder, kept, queries)


def reading_test(file: Path, folder: Path) -> None:
    """A file in SQuAD's form, as KorQuAD 1.0 is: each paragraph is a document, people's questions about it are queries."""
    kept: list[Document] = []
    queries: list[tuple[str, str, str]] = []
    for number, article in enumerate(json.loads(file.read_text(encoding="utf-8"))["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            id_ = f"{number}-{place}"
            title = article["title"].replace("_", " ")
            kept.append(Document(id=id_, title=title, text=paragraph["context"]))
            queries += [(question["id"], question["question"], id_) for question in paragraph["qas"]]
    _write(folder, kept, queries)


def _write(folder: Path, documents: Iterable[Document], queries: Iterable[tuple[str, str, str]]) -> None:
    """A BEIR directory; a query is its id, its text, and the document that answers it."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = list(queries)
    lines = {
        "corpus.jsonl": [{"_id": each.id, "title": each.title, "text": each.text} for each in documents],
        "queries.jsonl": [{"_id": id_, "text": text} for id_, text, _ in rows],
    }
    for name, of in lines.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in of)
        (folder / name).write_text(text, encoding="utf-8")
    judged = "".join(f"{id_}\t{document}\t1\n" for id_, _, document in rows)
    (folder / "qrels" / "all.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
