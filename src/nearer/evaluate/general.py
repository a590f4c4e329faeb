"""A second dataset, from another domain: what a model forgets while it learns."""

from __future__ import annotations

from pathlib import Path

from nearer.corpus.dataset import Dataset
from nearer.corpus.read import read_documents, read_queries
from nearer.errors import InputError
from nearer.records import Judgment, Passage


def read_general(path: Path) -> Dataset:
    """A BEIR directory as a dataset that is only for testing: each of its documents is one passage.

    All judgments of `qrels/*.tsv` count, or those of `qrels/test.tsv` alone where there is one.

    Raises:
        InputError: the directory is none, or its judgments name documents that are not there.
    """
    passages = {
        document.id: Passage(
            id=document.id, document_id=document.id, text=document.text, title=document.title, source=document.source
        )
        for document in read_documents(path)
    }
    file = read_queries(path)
    tested = _tested(path / "qrels" / "test.tsv")
    judged = [one for one in file.judgments if tested is None or (one.query_id, one.target) in tested]
    unknown = [one for one in judged if one.target not in passages]
    if unknown:
        raise InputError(
            f"query {unknown[0].query_id!r} is judged on {unknown[0].target!r}, which is not in the corpus",
            where=str(path),
            rule="judgments name documents of corpus.jsonl",
            way_out="give the corpus that belongs to these judgments",
        )
    return Dataset(
        passages=passages,
        queries={query.id: query for query in file.queries},
        train=(),
        test=tuple(Judgment(query_id=one.query_id, target=one.target) for one in judged),
    )


def _tested(path: Path) -> set[tuple[str, str]] | None:
    if not path.is_file():
        return None
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {(row[0], row[1]) for row in rows if len(row) == 3}
