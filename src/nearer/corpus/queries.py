"""The user's queries and what answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from nearer.corpus.lines import BadLineError, BadLines, decode, get_id, get_text, get_texts, json_lines, require
from nearer.errors import InputError
from nearer.records import Judgment, Query

Form = Literal["guide", "enhanced", "beir", "flagembedding", "triplet"]

FORMS: Final = (
    "the forms of queries that are read: JSON lines with `eval_id`, `msg` and `ground_truth_doc_id` (the guide's "
    "eval.jsonl), `eval_id`, `query`, `ideal_context` and `hard_negative_context` (its eval_enhanced.jsonl), `query`, "
    "`pos` and `neg` (FlagEmbedding), `anchor`, `positive` and `negative` (sentence-transformers); a BEIR directory "
    "(queries.jsonl beside qrels/*.tsv). UTF-8, ids distinct, texts not empty"
)


@dataclass(frozen=True, kw_only=True)
class QueryFile:
    """Queries as one file has them, in its order.

    `judgments` name documents, `positives` and `negatives` are texts by query id. `answers` are the guide's ideal
    answers. `places` says where a query, or one of its judgments (query id, target), stands: `file:line`.
    """

    form: Form
    queries: tuple[Query, ...]
    judgments: tuple[Judgment, ...] = ()
    positives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str | tuple[str, str], str] = field(default_factory=dict)


def query_parts(path: Path) -> tuple[Path, ...]:
    """The files and folders that make the queries what they are: for BEIR its queries and its judgments."""
    if path.is_dir():
        return (path / "queries.jsonl", path / "qrels")
    return (
        (path, path.parent / "qrels") if (path.parent / "qrels").is_dir() and path.name == "queries.jsonl" else (path,)
    )


def read_queries(path: Path) -> QueryFile:
    """The queries of a file or BEIR directory; the form is told by the keys of the first line.

    Raises:
        InputError: the path is missing, the form is none of those that are read, lines are bad (they are counted, the
            first few shown), or there is no query.
    """
    require(path)
    file = query_parts(path)[0]
    bad = BadLines(file, forms=FORMS)
    rows = json_lines(file, bad)
    first = next(rows, None)
    if first is None:
        bad.settle(what="queries")
        raise AssertionError("settle raises when nothing was read")
    form = _form(first, file)
    found = _Found(form)
    for where, row in _chain(first, rows):
        try:
            _READERS[form](found, row, where)
            bad.read += 1
        except BadLineError as error:
            bad.add(where, str(error), str(dict(row)))
    bad.settle(what="queries")
    if form == "beir":
        _read_qrels(found, file.parent / "qrels")
    return found.frozen()


class _Found:
    """What was read so far."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.queries: dict[str, Query] = {}
        self.judgments: dict[tuple[str, str], Judgment] = {}
        self.positives: dict[str, dict[str, None]] = {}
        self.negatives: dict[str, dict[str, None]] = {}
        self.answers: dict[str, str] = {}
        self.places: dict[str | tuple[str, str], str] = {}
        self.by_text: dict[str, str] = {}

    def add(self, id_: str, text: str, where: str) -> None:
        if id_ in self.queries:
            raise BadLineError(f"duplicate id {id_!r}, first at {self.places[id_]}")
        self.queries[id_] = Query(id=id_, text=" ".join(text.split()), origin="real")
        self.places[id_] = where

    def add_text(self, text: str, where: str) -> str:
        """A query without an id of its own: lines with the same text are one query."""
        text = " ".join(text.split())
        if text not in self.by_text:
            self.by_text[text] = f"pair-{len(self.by_text) + 1:06d}"
            self.add(self.by_text[text], text, where)
        return self.by_text[text]

    def judge(self, id_: str, target: str, where: str) -> None:
        self.judgments[id_, target] = Judgment(query_id=id_, target=target, level="document")
        self.places.setdefault((id_, target), where)

    def texts(self, id_: str, *, positives: tuple[str, ...], negatives: tuple[str, ...]) -> None:
        for store, texts in ((self.positives, positives), (self.negatives, negatives)):
            if texts:
                store.setdefault(id_, {}).update(dict.fromkeys(texts))

    def frozen(self) -> QueryFile:
        return QueryFile(
            form=self.form,
            queries=tuple(self.queries.values()),
            judgments=tuple(self.judgments.values()),
            positives={id_: tuple(texts) for id_, texts in self.positives.items()},
            negatives={id_: tuple(texts) for id_, texts in self.negatives.items()},
            answers=self.answers,
            places=self.places,
        )


def _chain(
    first: tuple[str, Mapping[str, Any]], rest: Iterator[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield first
    yield from rest


def _form(first: tuple[str, Mapping[str, Any]], file: Path) -> Form:
    where, row = first
    keys: dict[Form, tuple[str, ...]] = {
        "guide": ("msg",),
        "enhanced": ("ideal_context",),
        "flagembedding": ("query", "pos"),
        "triplet": ("anchor", "positive"),
        "beir": ("_id", "text"),
    }
    for form, needed in keys.items():
        if all(key in row for key in needed):
            return form
    has = ", ".join(f"`{key}`" for key in list(row)[:8]) or "none"
    raise InputError(
        f"{file} is no form of queries that is read: the keys of its first line are {has}",
        where=where,
        rule=FORMS,
        way_out="rename the keys to one of these forms",
    )


def _guide(found: _Found, row: Mapping[str, Any], where: str) -> None:
    id_ = get_id(row, "eval_id")
    truth = row.get("ground_truth_doc_id")
    targets = [target for target in (truth if isinstance(truth, list) else [truth]) if target not in (None, "")]
    targets = [get_id({"ground_truth_doc_id": target}, "ground_truth_doc_id") for target in targets]
    found.add(id_, _last_user_message(row), where)
    for target in targets:
        found.judge(id_, target, where)


def _last_user_message(row: Mapping[str, Any]) -> str:
    messages = row.get("msg")
    rule = '`msg` must be a list of {"role", "content"}'
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadLineError(rule)
    asked = [message for message in messages if message.get("role") == "user"]
    if not asked:
        raise BadLineError(f"{rule} with a message of the user's")
    return get_text(asked[-1], "content")


def _enhanced(found: _Found, row: Mapping[str, Any], where: str) -> None:
    id_ = get_id(row, "eval_id")
    text = get_text(row, "query")
    positives, negatives = get_texts(row, "ideal_context"), get_texts(row, "hard_negative_context")
    answer = get_text(row, "ideal_answer", optional=True)
    found.add(id_, text, where)
    found.texts(id_, positives=positives, negatives=negatives)
    if answer.strip():
        found.answers[id_] = answer


def _flagembedding(found: _Found, row: Mapping[str, Any], where: str) -> None:
    text, positives, negatives = get_text(row, "query"), get_texts(row, "pos"), get_texts(row, "neg")
    found.texts(found.add_text(text, where), positives=positives, negatives=negatives)


def _triplet(found: _Found, row: Mapping[str, Any], where: str) -> None:
    text, positive = get_text(row, "anchor"), get_text(row, "positive")
    numbered = [key for key in row if key == "negative" or key.removeprefix("negative_").isdigit()]
    negatives = tuple(text for key in numbered for text in get_texts(row, key))
    found.texts(found.add_text(text, where), positives=(positive,), negatives=negatives)


def _beir(found: _Found, row: Mapping[str, Any], where: str) -> None:
    found.add(get_id(row, "_id"), get_text(row, "text"), where)


_READERS: Final[Mapping[Form, Callable[[_Found, Mapping[str, Any], str], None]]] = {
    "guide": _guide,
    "enhanced": _enhanced,
    "flagembedding": _flagembedding,
    "triplet": _triplet,
    "beir": _beir,
}


def _read_qrels(found: _Found, directory: Path) -> None:
    """All judgments above zero of all `qrels/*.tsv`: nearer makes its own split."""
    files = sorted(directory.glob("*.tsv"))
    if not files:
        raise InputError(
            "BEIR queries without judgments", where=str(directory), rule="qrels/*.tsv stand beside queries.jsonl"
        )
    bad = BadLines(directory, forms="a line of qrels is query-id, corpus-id and score, between tabs")
    for file in files:
        with file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                where = f"{file}:{number}"
                try:
                    line = decode(raw, first=number == 1, where=str(file)).rstrip("\r\n")
                    judged = _qrel(line, found.queries, header=number == 1)
                except (BadLineError, UnicodeDecodeError) as error:
                    bad.add(where, str(error), raw.decode("utf-8", "replace"))
                    continue
                bad.read += 1
                if judged:
                    found.judge(*judged, where)
    bad.settle(what="judgments")


def _qrel(line: str, queries: Mapping[str, Query], *, header: bool) -> tuple[str, str] | None:
    """Query and document of one line; None for the header, blank lines and judgments of zero."""
    parts = line.split("\t")
    if not line.strip() or (header and not parts[-1].strip().lstrip("-").isdigit()):
        return None
    if len(parts) != 3:
        raise BadLineError(f"three columns are expected, there are {len(parts)}")
    if not parts[2].strip().lstrip("-").isdigit():
        raise BadLineError("the score must be an integer")
    if int(parts[2]) <= 0:
        return None
    row = {"query-id": parts[0], "corpus-id": parts[1]}
    query, target = get_id(row, "query-id"), get_id(row, "corpus-id")
    if query not in queries:
        raise BadLineError(f"judges a query {query!r} that is not in queries.jsonl")
    return query, target
