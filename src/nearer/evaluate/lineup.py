"""Which systems stand side by side, and which two of them the verdict is about."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nearer.errors import InputError

BM25: Final = "bm25"
INCUMBENT: Final = "incumbent"
OWN_EMBEDDER: Final = "incumbent_embedder"
"""Role of the incumbent's embedder, where it is none of the others."""
OWN_RERANKER: Final = "incumbent_reranker"
BASE_RERANKER: Final = "base_reranker"
RERANKER: Final = "reranker"
ROLES: Final = (
    BM25,
    INCUMBENT,
    OWN_EMBEDDER,
    OWN_RERANKER,
    BASE_RERANKER,
    RERANKER,
    "base",
    "tuned",
    "dataset",
    "general",
)
"""Names that no further model may take."""

Kind = Literal["bm25", "dense", "weighted", "rrf"]


@dataclass(frozen=True, kw_only=True)
class Retriever:
    """First stage: BM25, an embedder, or both fused (`weighted` by alpha, `rrf` by reciprocal ranks)."""

    name: str
    kind: Kind
    embedder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A system: a retriever, and a reranker after it or none."""

    name: str
    retriever: str
    reranker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """The systems in the order in which they are shown; `baseline` and `candidate` name two of them, or none.

    `muted` are the roles of rerankers whose weight is 0: they leave every list as it is.
    """

    retrievers: tuple[Retriever, ...]
    entries: tuple[Entry, ...]
    baseline: str | None
    candidate: str | None
    muted: frozenset[str] = frozenset()

    def entry(self, name: str | None) -> Entry | None:
        """The system of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def plain(self, retriever: str) -> str | None:
        """Name of the system that is this retriever without a reranker."""
        return next((one.name for one in self.entries if one.retriever == retriever and one.reranker is None), None)

    def without_reranker(self) -> str | None:
        """Name of the candidate's own list as it was before its reranker; None where it has none."""
        candidate = self.entry(self.candidate)
        return self.plain(candidate.retriever) if candidate is not None and candidate.reranker is not None else None

    def retriever(self, name: str) -> Retriever:
        """The retriever of that name."""
        return next(retriever for retriever in self.retrievers if retriever.name == name)

    def pairs(self) -> list[tuple[str, str]]:
        """Every before and after that is compared, each once; the verdict's comes first, if there is one."""
        found = [(self.baseline, self.candidate), ("base", "tuned"), (self.baseline, "tuned"), (BM25, "tuned")]
        found += [(self.baseline, self.without_reranker())]
        for entry in self.entries:
            if entry.reranker in self.muted:
                continue
            if entry.reranker is not None:
                found.append((self.plain(entry.retriever), entry.name))
            if entry.reranker == RERANKER:
                found.append((f"{entry.retriever}+{BASE_RERANKER}", entry.name))
        embedders = [one.name for one in self.retrievers if one.kind == "dense" and one.name not in ("base", "tuned")]
        found += [(name, "tuned") for name in embedders] + [("tuned", "tuned-hybrid")]
        known = {entry.name for entry in self.entries}
        return [
            (before, after)
            for before, after in dict.fromkeys(found)
            if before is not None and after is not None and before != after and {before, after} <= known
        ]


def roles(models: Sequence[str]) -> dict[str, str]:
    """Roles of further models, each the last part of its name: what they are called in the report and in file names."""
    found: dict[str, str] = {}
    for model in models:
        plain = re.sub(r"[^a-z0-9_.]+", "_", model.rstrip("/").rpartition("/")[2].lower()).strip("_.") or "model"
        numbered = (plain if number == 1 else f"{plain}_{number}" for number in itertools.count(1))
        found[next(name for name in numbered if name not in found and name not in ROLES)] = model
    return found


def line_up(
    embedders: Sequence[str],
    rerankers: Sequence[str],
    *,
    bm25: bool,
    incumbent: str | None,
    baseline: str,
    candidate: str | None,
    reranked: Sequence[str] | None = None,
    muted: Collection[str] = (),
) -> Lineup:
    """Combine the models into systems.

    Args:
        embedders: roles, in the order in which they are shown: `base`, `tuned`, names of further ones, `OWN_EMBEDDER`.
        rerankers: roles: `base_reranker`, `reranker`, names of further ones, `OWN_RERANKER`.
        bm25: whether BM25 takes part, alone and in hybrids.
        incumbent: role of the embedder that is in use today.
        baseline: name of the system that the verdict compares with; `incumbent` stands for what there is.
        candidate: name of the system that the verdict is about; None: what would be in use with the tuned models,
            without a reranker that is muted unless nothing else is new.
        reranked: names of the retrievers whose lists the rerankers order anew; None: all. What is in use today is
            always as it is.
        muted: roles of rerankers whose weight is 0.

    Raises:
        InputError: `baseline` or `candidate` is no system, or one of `reranked` no retriever.
    """
    retrievers = list(_retrievers(embedders, bm25=bm25, incumbent=incumbent))
    names = {retriever.name for retriever in retrievers}

    def whole(embedder: str) -> str:
        return f"{embedder}-hybrid" if bm25 else embedder

    for name in reranked or ():
        if name not in names:
            raise InputError(
                f"eval.reranked has {name!r}, and there is no such retriever",
                rule=f"some of {', '.join(sorted(names))}",
                way_out="name some of them, or leave the field out",
            )
    today = whole(incumbent) if incumbent else None
    entries: list[Entry] = []
    tuned = next((name for name in (whole("tuned"), today) if name in names), None)
    for retriever in retrievers:
        name = retriever.name
        if name == today and OWN_RERANKER in rerankers:
            entries.append(Entry(name=INCUMBENT, retriever=name, reranker=OWN_RERANKER))
        renamed = name == today and OWN_RERANKER not in rerankers and (bm25 or incumbent == OWN_EMBEDDER)
        entries.append(Entry(name=INCUMBENT if renamed else name, retriever=name))
        entries += [
            Entry(name=f"{name}+{reranker}", retriever=name, reranker=reranker)
            for reranker in rerankers
            if (reranked is None or name in reranked) and (reranker != OWN_RERANKER or (name == tuned != today))
        ]
    known = {entry.name for entry in entries}
    for field, given in (("baseline", baseline if baseline != INCUMBENT else None), ("candidate", candidate)):
        if given is not None and given not in known:
            raise InputError(
                f"eval.verdict.{field} is {given!r}, and there is no such system",
                rule=f"one of {', '.join(entry.name for entry in entries)}",
                way_out="name one of them, or leave the field out",
            )
    if baseline == INCUMBENT:
        baseline = next((name for name in (INCUMBENT, today, "base", BM25) if name in known), "")
    if candidate is None:
        ends = [f"+{name}" for name in (RERANKER, OWN_RERANKER) if name in rerankers and name not in muted]
        ends += [""] if tuned == whole("tuned") else []
        ends += [f"+{RERANKER}"]  # muted, and nothing else is new
        candidate = next((name for end in ends if (name := f"{tuned}{end}") in known), None)
    same = candidate == baseline
    return Lineup(
        retrievers=tuple(retrievers),
        entries=tuple(entries),
        baseline=baseline or None,
        candidate=None if same else candidate,
        muted=frozenset(muted),
    )


def _retrievers(embedders: Sequence[str], *, bm25: bool, incumbent: str | None) -> Iterator[Retriever]:
    if bm25:
        yield Retriever(name=BM25, kind="bm25")
    for embedder in sorted(embedders, key=lambda name: name not in ("base", OWN_EMBEDDER)):
        own = embedder == OWN_EMBEDDER == incumbent
        if not own or not bm25:
            yield Retriever(name=embedder, kind="dense", embedder=embedder)
        if bm25:
            yield Retriever(name=f"{embedder}-hybrid", kind="weighted", embedder=embedder)
        if bm25 and not own:
            yield Retriever(name=f"{embedder}-rrf", kind="rrf", embedder=embedder)
