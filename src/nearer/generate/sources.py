"""Where queries come from: the user's files, the documents' own questions, their headings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from nearer.corpus.link import Linker
from nearer.corpus.read import read_queries
from nearer.corpus.sameness import normal
from nearer.errors import InputError
from nearer.generate.audit import Audit
from nearer.generate.candidates import Candidate, from_file, from_questions, merge_by_id
from nearer.generate.corpus import Corpus
from nearer.generate.headings import from_headings
from nearer.progress import Progress

Source = Literal["queries", "hypothetical", "headings", "enhanced"]


def gather(
    corpus: Corpus,
    *,
    sources: Literal["auto"] | Collection[Source],
    queries: Path | None,
    enhanced: Path | None,
    min_query_characters: int,
    llm_model: str | None,
    audit: Audit,
    progress: Progress,
) -> list[Candidate]:
    """Every query that something is known to answer, from all sources that are asked for.

    `auto` takes the user's queries, the enhanced file and the hypothetical questions as far as they are there, and the
    headings only when none of these gives a query with an answer. Somebody who names an LLM wants its questions, so
    then headings must be asked for by name.

    Raises:
        InputError: a source that is asked for by name was not given, no source gives a query with an answer, or two
            queries have one id.
    """
    wanted = {"queries", "enhanced", "hypothetical"} if sources == "auto" else set(sources)
    for name, path in (("queries", queries), ("enhanced", enhanced)):
        if sources != "auto" and name in wanted and path is None:
            raise InputError(
                f"generate.sources asks for {name!r} and generate.{name} names no file",
                where=f"generate.{name}",
                rule="a source that is asked for is there",
                way_out=f"set generate.{name}, or take {name!r} out of generate.sources",
            )
    own, extra = (
        _read(path if name in wanted else None, corpus, audit=audit)
        for name, path in (("queries", queries), ("enhanced", enhanced))
    )
    candidates = merge_by_id(own, extra, audit=audit)
    candidates += from_questions(corpus) if "hypothetical" in wanted else []
    unjudged = [candidate for candidate in candidates if not candidate.judged()]
    for candidate in unjudged:
        audit.drop("no-judgment", query_id=candidate.query.id, text=candidate.query.text)
    if unjudged:
        progress.warn("queries without a judgment are left out", queries=len(unjudged), of=len(candidates))
    judged = [candidate for candidate in candidates if candidate.judged()]
    if "headings" in wanted or (sources == "auto" and not judged and not llm_model):
        headings = from_headings(corpus, audit=audit)
        if headings and sources == "auto":
            progress.warn(
                "no other source gives a query with an answer: headings are the queries", queries=len(headings)
            )
        judged += headings
    if not judged:
        raise _nothing(corpus, unjudged, queries=queries or enhanced, llm_model=llm_model)
    if llm_model:
        progress.warn("this release asks no LLM: queries come from what is there", llm_model=llm_model)
    return _usable(judged, min_query_characters=min_query_characters, audit=audit)


def _read(path: Path | None, corpus: Corpus, *, audit: Audit) -> list[Candidate]:
    if path is None:
        return []
    file = read_queries(path)
    linker = Linker(corpus.passages.values()) if file.positives else None
    return from_file(file, corpus, linker=linker, audit=audit)


def _usable(judged: Sequence[Candidate], *, min_query_characters: int, audit: Audit) -> list[Candidate]:
    seen: dict[str, str] = {}
    usable = []
    for candidate in judged:
        id_, text = candidate.query.id, candidate.query.text
        if id_ in seen:
            raise InputError(
                f"two queries have the id {id_!r}: {seen[id_]!r} and {text!r}",
                rule="query ids are distinct; `<document>:h<n>` and `<document>:s<n>` are nearer's own",
                way_out="rename the query",
            )
        seen[id_] = text
        if len(normal(text)) < min_query_characters:
            audit.drop("too-short", query_id=id_, text=text)
        else:
            usable.append(candidate)
    return usable


def _nothing(
    corpus: Corpus, unjudged: Sequence[Candidate], *, queries: Path | None, llm_model: str | None
) -> InputError:
    """Why there is no query with an answer, and what would give some."""
    count = len(corpus.of_document)
    if unjudged:
        named = ", ".join(repr(candidate.query.id) for candidate in unjudged[:5])
        more = f" and {len(unjudged) - 5} more" if len(unjudged) > 5 else ""
        what = f"no query has a judgment that says what answers it: {named}{more}"
    else:
        what = f"nothing gives a query: the {count} documents have no hypothetical questions (and no usable headings)"
    if llm_model:
        what += f"; generate.llm_model names {llm_model!r}, but asking an LLM for questions is not in this release"
    return InputError(
        what,
        where=str(queries) if unjudged and queries else "generate",
        rule="at least one source gives queries with answers",
        way_out="give one of: `ground_truth_doc_id` in the queries, `hypothetical_questions` in the documents, "
        "an eval_enhanced.jsonl (generate.enhanced), or documents with `## ` headings and generate.sources: [headings]",
    )
