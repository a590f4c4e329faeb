"""The dataset artifact: BEIR's layout on disk, records in memory.

    corpus.jsonl                 `_id`, `title`, `text`, `metadata: {document_id, path, group}`, `source` where known
    queries.jsonl                `_id`, `text`, `metadata: {origin}`
    qrels/<split>.tsv            judgments on passages, with BEIR's header
    qrels/<split>.documents.tsv  judgments on whole documents, only where there are any
    qrels/*.jsonl                the same as JSON lines, for `datasets.load_dataset`, which reads one format a directory
    positives.jsonl              ideal contexts that stand in no document, only where there are any
    negatives.jsonl              hard negatives per training query, hardest first
    ideal_contexts.jsonl         the ideal contexts of each test query, each as the passages that it stands in (none: it
                                 was found nowhere); only where the user's files name any
    chunking.json                how the passages were cut
    README.md                    `configs:` for `datasets.load_dataset`

A train query that its source judges on a document stands in both files of the train split: the document in
`train.documents.tsv` and its best passage in `train.tsv`; the document's other passages are neither positive nor
negative. A test query judged on documents stands in `test.documents.tsv` only: the best passage of a document counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from nearer.errors import ArtifactCorrupt
from nearer.records import Judgment, Negative, Passage, Query

Split = Literal["train", "test"]
Level = Literal["passage", "document"]
T = TypeVar("T")

CORPUS: Final = "corpus.jsonl"
QUERIES: Final = "queries.jsonl"
POSITIVES: Final = "positives.jsonl"
NEGATIVES: Final = "negatives.jsonl"
IDEAL_CONTEXTS: Final = "ideal_contexts.jsonl"
CHUNKING: Final = "chunking.json"


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How the passages were cut; None where somebody else cut them.

    `max_tokens` counts the passage's text alone, in tokens of the tokenizer named by `tokenizer_sha256`.
    """

    chunker: str | None = None
    max_tokens: int | None = None
    template: str = "{title}\n{path}\n{text}"
    tokenizer_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Queries with judgments, train and test apart, over one corpus of passages.

    `positives` (texts) and `negatives` are by query id and only for training; `groups` says for each document id which
    group of near-duplicate documents it belongs to. `ideal_contexts` are by test query: of each snippet that somebody
    named as ideal, the passages that it stands in, none if it stands in no document.
    """

    passages: dict[str, Passage]
    queries: dict[str, Query]
    train: tuple[Judgment, ...]
    test: tuple[Judgment, ...]
    positives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    negatives: dict[str, tuple[Negative, ...]] = field(default_factory=dict)
    ideal_contexts: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    chunking: Chunking = field(default_factory=Chunking)

    def write(self, directory: Path) -> None:
        """Write all files into the directory, which may be empty or not be there yet.

        The same dataset gives the same bytes; records keep the order that they have here.
        """
        (directory / "qrels").mkdir(parents=True, exist_ok=True)
        _write_lines(directory / CORPUS, map(self._passage_line, self.passages.values()))
        _write_lines(directory / QUERIES, map(_query_line, self.queries.values()))
        if self.positives:
            lines = ({"query_id": query, "positives": list(texts)} for query, texts in self.positives.items())
            _write_lines(directory / POSITIVES, lines)
        negatives = ({"query_id": query, "negatives": [*map(_short, hard)]} for query, hard in self.negatives.items())
        _write_lines(directory / NEGATIVES, negatives)
        if self.ideal_contexts:
            snippets = (
                {"query_id": query, "contexts": [*map(list, found)]} for query, found in self.ideal_contexts.items()
            )
            _write_lines(directory / IDEAL_CONTEXTS, snippets)
        for name, judgments in (("train", self.train), ("test", self.test)):
            _write_qrels(directory / "qrels" / f"{name}.tsv", judgments, level="passage")
            if any(judgment.level == "document" for judgment in judgments):
                _write_qrels(directory / "qrels" / f"{name}.documents.tsv", judgments, level="document")
        chunking = json.dumps(asdict(self.chunking), ensure_ascii=False, indent=2) + "\n"
        (directory / CHUNKING).write_text(chunking, encoding="utf-8")
        (directory / "README.md").write_text(self._readme(), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Dataset:
        """Read a dataset that `write` wrote.

        Raises:
            ArtifactCorrupt: a file is missing or a line is not what `write` writes.
        """
        passages, groups = {}, {}
        for passage, group in _read_lines(directory / CORPUS, _to_passage):
            passages[passage.id] = passage
            groups[passage.document_id] = group
        positives, contexts = directory / POSITIVES, directory / IDEAL_CONTEXTS
        return cls(
            passages=passages,
            queries={query.id: query for query in _read_lines(directory / QUERIES, _to_query)},
            train=_read_split(directory, "train"),
            test=_read_split(directory, "test"),
            positives=dict(_read_lines(positives, _to_positives)) if positives.exists() else {},
            negatives=dict(_read_lines(directory / NEGATIVES, _to_negatives)),
            ideal_contexts=dict(_read_lines(contexts, _to_contexts)) if contexts.exists() else {},
            groups=groups,
            chunking=_read_chunking(directory / CHUNKING),
        )

    def _passage_line(self, passage: Passage) -> dict[str, Any]:
        group = self.groups.get(passage.document_id, passage.document_id)
        metadata = {"document_id": passage.document_id, "path": list(passage.path), "group": group}
        metadata |= {"source": passage.source} if passage.source else {}
        return {"_id": passage.id, "title": passage.title, "text": passage.text, "metadata": metadata}

    def _readme(self) -> str:
        """The dataset card: what `datasets.load_dataset(directory, <config>)` reads, and what the files mean."""
        configs = [_config("corpus", {"corpus": CORPUS}), _config("queries", {"queries": QUERIES})]  # mteb's names
        splits: dict[Split, tuple[Judgment, ...]] = {"train": self.train, "test": self.test}
        for config, suffix, level in (("default", "", "passage"), ("documents", ".documents", "document")):
            files = {
                split: f"qrels/{split}{suffix}.jsonl"
                for split, judgments in splits.items()
                if any(judgment.level == level for judgment in judgments)
            }
            configs += [_config(config, files)] if files else []
        configs += [_config("positives", {"train": POSITIVES})] if self.positives else []
        configs += [_config("negatives", {"train": NEGATIVES})] if self.negatives else []
        train, test = (len({judgment.query_id for judgment in part}) for part in (self.train, self.test))
        documents = len({passage.document_id for passage in self.passages.values()})
        return (
            "---\nconfigs:\n" + "".join(configs) + "---\n\n"
            "# A retrieval dataset made by nearer\n\n"
            f"{len(self.passages)} passages of {documents} documents; {len(self.queries)} queries, "
            f"{train} judged for training and {test} held out.\n\n"
            "BEIR's layout. `qrels` judge passages, those named `documents` whole documents: there the best passage of "
            "a document counts.\n`negatives` and `positives` (ideal contexts that stand in no document) are for "
            "training only.\n`metadata.group` names the group of near-duplicate documents; train and test share none.\n"
        )


def _passage_of(raw: Mapping[str, Any]) -> Passage:
    metadata = raw["metadata"]
    return Passage(
        id=raw["_id"],
        document_id=metadata["document_id"],
        text=raw["text"],
        title=raw["title"],
        path=tuple(metadata["path"]),
        source=metadata.get("source", ""),
    )


def _to_passage(raw: Mapping[str, Any]) -> tuple[Passage, str]:
    return _passage_of(raw), raw["metadata"]["group"]


def _to_query(raw: Mapping[str, Any]) -> Query:
    return Query(id=raw["_id"], text=raw["text"], origin=raw["metadata"]["origin"])


def _to_positives(raw: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return raw["query_id"], tuple(raw["positives"])


def _to_contexts(raw: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, ...], ...]]:
    return raw["query_id"], tuple(tuple(passages) for passages in raw["contexts"])


def _to_negatives(raw: Mapping[str, Any]) -> tuple[str, tuple[Negative, ...]]:
    return raw["query_id"], tuple(Negative(**negative) for negative in raw["negatives"])


def _query_line(query: Query) -> dict[str, Any]:
    return {"_id": query.id, "text": query.text, "metadata": {"origin": query.origin}}


def _short(negative: Negative) -> dict[str, Any]:
    return {key: value for key, value in asdict(negative).items() if value is not None}


def _config(name: str, files: Mapping[Any, str]) -> str:
    lines = [f"- config_name: {name}\n", "  data_files:\n"]
    for split, path in files.items():
        lines += [f"  - split: {split}\n", f"    path: {path}\n"]
    return "".join(lines)


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _read_lines(path: Path, convert: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
    """Convert each line of a JSON lines file."""
    for number, line in _lines(path):
        try:
            yield convert(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(
                f"not a line of a dataset: {error!r}",
                where=f"{path}:{number}",
                rule="the files of a dataset are those that `nearer generate` wrote",
                way_out="make the dataset again: nearer generate --overwrite",
            ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            yield from ((number, line) for number, line in enumerate(stream, start=1) if line.strip())
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ArtifactCorrupt(
            "a file of the dataset is missing or not UTF-8",
            where=str(path),
            rule="the files of a dataset are those that `nearer generate` wrote",
            way_out="make the dataset again: nearer generate --overwrite",
        ) from error


def _write_qrels(path: Path, judgments: Iterable[Judgment], *, level: Level) -> None:
    kept = [judgment for judgment in judgments if judgment.level == level]
    target = "corpus-id" if level == "passage" else "document-id"
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f"query-id\t{target}\tscore\n")
        stream.writelines(f"{one.query_id}\t{one.target}\t{one.relevance}\n" for one in kept)
    if kept:
        rows = ({"query-id": one.query_id, target: one.target, "score": one.relevance} for one in kept)
        _write_lines(path.with_suffix(".jsonl"), rows)


def _read_split(directory: Path, split: Split) -> tuple[Judgment, ...]:
    documents = directory / "qrels" / f"{split}.documents.tsv"
    found = list(_read_qrels(directory / "qrels" / f"{split}.tsv", level="passage"))
    if documents.exists():
        found += _read_qrels(documents, level="document")
    return tuple(found)


def _read_qrels(path: Path, *, level: Level) -> Iterator[Judgment]:
    for number, line in _lines(path):
        if number == 1:
            continue
        try:
            query, target, score = line.rstrip("\n").split("\t")
            yield Judgment(query_id=query, target=target, relevance=int(score), level=level)
        except ValueError as error:
            raise ArtifactCorrupt(
                "not a line of qrels", where=f"{path}:{number}", rule="query-id, target and score between tabs"
            ) from error


def _read_chunking(path: Path) -> Chunking:
    try:
        return Chunking(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactCorrupt(f"not a chunking record: {error}", where=str(path)) from error
