"""The small frozen records that rooms hand to each other. Ids are plain strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Origin = Literal["real", "hypothetical", "heading", "llm"]
ORIGINS: tuple[Origin, ...] = ("real", "hypothetical", "heading", "llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of the user's, as it was found.

    `text` keeps its headings as Markdown lines (`## …`); `questions` are the document's own hypothetical questions.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    questions: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk of a document; the unit of retrieval.

    `path` is the heading path, outermost first; `source` is where the document comes from, in its owner's words.
    """

    id: str
    document_id: str
    text: str
    title: str = ""
    path: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question or search phrase, and where it comes from."""

    id: str
    text: str
    origin: Origin = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """`target` answers `query_id`. `level` says whether the target is a passage or a whole document."""

    query_id: str
    target: str
    relevance: int = 1
    level: Literal["passage", "document"] = "passage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """A text that looks relevant and is not. Texts that stand in no document have no `corpus_id`.

    `miner` says where it comes from, `share` why it was believed: its centred teacher score as a share of the
    positive's, which a rule keeps below a limit.
    """

    miner: str
    score: float
    corpus_id: str | None = None
    text: str | None = None
    share: float | None = None


class Hit(NamedTuple):
    """One line of a run: a target (passage or document id) and its score."""

    target: str
    score: float


Run = Mapping[str, list[Hit]]
"""A ranked list per query id, best first, ties in ascending order of target."""
