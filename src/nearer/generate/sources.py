"""Where queries come from: the user's files, the documents' own questions, their headings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
from nearer.generate.written import Writer
from nearer.progress import Progress

Source = Literal["queries", "hypothetical", "headings", "enhanced", "llm"]


def gather(
    corpus: Corpus,
    *,
    sources: Literal["auto"] | Collection[Source],
    queries: Path | None,
    enhanced: Path | None,
    min_query_characters: int,
    writer: Callable[[], Writer] | None,
    audit: Audit,
    progress: Progress,
    may_be_empty: bool = False,
) -> list[Candidate]:
    """Every query that something is known to answer, from all sources that are asked for.

    `auto` takes the user's queries, the enhanced file and the hypothetical questions as far as they are there. When
    none of these gives a query with an answer, the language model writes some, or there is none and headings serve.
    The user's queries that nothing judges are judged by the language model, if there is one.

    Args:
        corpus: the documents.
        sources: `auto`, or by name.
        queries: the user's own, if any.
        enhanced: an `eval_enhanced.jsonl`, if any.
        min_query_characters: shorter queries are left out.
        writer: makes the language model ready; called when it is needed only. None: none is named.
        audit: hears of every query that is left out.
        progress: told what happens.
        may_be_empty: no query is no error.

    Raises:
        InputError: a source that is asked for by name was not given, no source gives a query with an answer, two
            queries have one id, or the language model cannot be asked.
        OutOfReach: the language model does not answer.
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
    if "llm" in wanted and writer is None:
        raise InputError(
            "generate.sources asks for 'llm' and generate.llm_model names none",
            where="generate.llm_model",
            rule="a source that is asked for is there",
            way_out="set generate.llm_model, or take 'llm' out of generate.sources",
        )
    own, extra = (
        _read(path if name in wanted else None, corpus, audit=audit)
        for name, path in (("queries", queries), ("enhanced", enhanced))
    )
    candidates = merge_by_id(own, extra, audit=audit)
    candidates += from_questions(corpus) if "hypothetical" in wanted else []
    unjudged = [candidate for candidate in candidates if not candidate.judged()]
    judged = _judged(candidates, unjudged, corpus, writer=writer, audit=audit, progress=progress)
    if "headings" in wanted or (sources == "auto" and not judged and writer is None):
        headings = from_headings(corpus, audit=audit)
        if headings and sources == "auto":
            progress.warn(
                "no other source gives a query with an answer: headings are the queries", queries=len(headings)
            )
        judged += headings
    if writer is not None and ("llm" in wanted or (sources == "auto" and not judged and not unjudged)):
        judged += writer().write(corpus, known=judged, audit=audit)
    if not judged and not may_be_empty:
        raise _nothing(corpus, unjudged, queries=queries or enhanced, audit=audit)
    return _usable(judged, min_query_characters=min_query_characters, audit=audit)


def _judged(
    candidates: Sequence[Candidate],
    unjudged: Sequence[Candidate],
    corpus: Corpus,
    *,
    writer: Callable[[], Writer] | None,
    audit: Audit,
    progress: Progress,
) -> list[Candidate]:
    """The candidates with an answer, in their order: those that the language model finds one for among them."""
    marked: dict[str, Candidate] = {}
    if unjudged and writer is not None:
        marked = {candidate.query.id: candidate for candidate in writer().mark(unjudged, corpus, audit=audit)}
    for candidate in unjudged if writer is None else ():
        audit.drop("no-judgment", query_id=candidate.query.id, text=candidate.query.text)
    if left := len(unjudged) - len(marked):
        progress.warn("queries without a judgment are left out", queries=left, of=len(candidates))
    found = (marked.get(candidate.query.id, candidate) for candidate in candidates)
    return [candidate for candidate in found if candidate.judged()]


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
                rule="query ids are distinct; `<document>:h<n>`, `:s<n>` and `:q<hash>` are nearer's own",
                way_out="rename the query",
            )
        seen[id_] = text
        if len(normal(text)) < min_query_characters:
            audit.drop("too-short", query_id=id_, text=text)
        else:
            usable.append(candidate)
    return usable


def _nothing(corpus: Corpus, unjudged: Sequence[Candidate], *, queries: Path | None, audit: Audit) -> InputError:
    """Why there is no query with an answer, and what would give some."""
    count = len(corpus.of_document)
    if unjudged:
        named = ", ".join(repr(candidate.query.id) for candidate in unjudged[:5])
        more = f" and {len(unjudged) - 5} more" if len(unjudged) > 5 else ""
        what = f"no query has a judgment that says what answers it: {named}{more}"
    else:
        what = f"nothing gives a query: the {count} documents have no hypothetical questions (and no usable headings)"
    if audit.counts:
        what += "; left out: " + ", ".join(f"{rule} {number}" for rule, number in sorted(audit.counts.items()))
    return InputError(
        what,
        where=str(queries) if unjudged and queries else "generate",
        rule="at least one source gives queries with answers",
        way_out="give one of: `ground_truth_doc_id` in the queries, `hypothetical_questions` in the documents, "
        "an eval_enhanced.jsonl (generate.enhanced), a language model (generate.llm_model), or documents with `## ` "
        "headings and generate.sources: [headings]",
    )
