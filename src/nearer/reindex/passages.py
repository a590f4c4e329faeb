"""Passages as lines of a file: `_id`, `title`, `text`, `metadata: {document_id, path}`, as in BEIR."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from nearer.errors import InputError
from nearer.models.contract import render_passage
from nearer.records import Passage


def write_passages(passages: Iterable[Passage], path: Path) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        InputError: there is not a single passage.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(map(to_line, passages))
    if not temporary.stat().st_size:
        raise InputError("the documents hold no text to index", rule="at least one passage")
    temporary.replace(path)


def read_passages(path: Path) -> Iterator[Passage]:
    """Read the file line by line."""
    with path.open("rb") as stream:
        yield from map(from_line, stream)


def read_shards(path: Path, size: int) -> Iterator[list[Passage]]:
    """Read the file in runs of so many passages."""
    stream = read_passages(path)
    while shard := list(itertools.islice(stream, size)):
        yield shard


def to_line(passage: Passage) -> str:
    """One line, with its end."""
    metadata = {"document_id": passage.document_id, "path": list(passage.path)}
    raw = {"_id": passage.id, "title": passage.title, "text": passage.text, "metadata": metadata}
    return json.dumps(raw, ensure_ascii=False) + "\n"


def from_line(line: str | bytes) -> Passage:
    """The passage of one line."""
    raw = json.loads(line)
    return Passage(
        id=raw["_id"],
        document_id=raw["metadata"]["document_id"],
        text=raw["text"],
        title=raw["title"],
        path=tuple(raw["metadata"]["path"]),
    )


def rendered(passage: Passage, template: str) -> str:
    """What the model is given for a passage, without its prefix."""
    return render_passage(template, title=passage.title, path=passage.path, text=passage.text)
