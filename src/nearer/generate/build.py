"""Documents and queries in, a dataset out: the steps in their order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from nearer.corpus.dataset import Chunking, Dataset
from nearer.corpus.leak import find_leaks
from nearer.errors import InputError, NearerError
from nearer.generate.audit import RULES, Audit
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus, read_corpus
from nearer.generate.facts import facts_of, say, summarise
from nearer.generate.headings import without_headings
from nearer.generate.judges import Encode, ScorePairs
from nearer.generate.language_model import LanguageModel, keep
from nearer.generate.negatives import Mining, TrainingPart, choose_training_part
from nearer.generate.retrieval import Retrieval
from nearer.generate.sides import RealQueries, Sides, choose_sides, draw
from nearer.generate.sources import Source, gather
from nearer.generate.unique import unique
from nearer.generate.written import Writer
from nearer.progress import Progress
from nearer.records import Judgment

AUDIT: Final = "audit.json"
ENHANCED: Final = "enhanced.jsonl"


def build_dataset(
    directory: Path,
    *,
    documents: Path,
    queries: Path | None,
    enhanced: Path | None,
    sources: Literal["auto"] | Collection[Source],
    real_queries: RealQueries,
    test_share: float,
    near_duplicate: float,
    min_query_characters: int,
    max_queries: int | None,
    chunking: Chunking,
    max_tokens: int,
    mining: Mining,
    seed: int,
    count_tokens: Callable[[Sequence[str]], list[int]],
    encode: Encode,
    score_pairs: ScorePairs | None = None,
    language_model: LanguageModel | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Write the dataset, its audit and its guide form into the directory.

    Args:
        directory: receives the files.
        documents: file or folder.
        queries: the user's own, if any.
        enhanced: an `eval_enhanced.jsonl`, if any.
        sources: where queries come from; see `gather`.
        real_queries: see `choose_sides`.
        test_share: see `choose_sides`.
        near_duplicate: see `nearer.corpus.group.group`.
        min_query_characters: shorter queries are left out.
        max_queries: at most so many, drawn with the seed.
        chunking: recorded in the dataset; its template renders passages.
        max_tokens: of a passage.
        mining: of hard negatives.
        seed: of every draw.
        count_tokens: of the embedder.
        encode: of the embedder.
        score_pairs: of a cross-encoder that judges hard negatives in the embedder's place, if any.
        language_model: writes and judges queries, if one is named.
        progress: told what happens.

    Returns:
        The counts, for the manifest.

    Raises:
        InputError: documents or queries are wrong, or nothing can be made of them.
        NearerError: the dataset leaks from test to train; a fault of nearer's own.
    """
    audit = Audit()
    retrieval = Retrieval(template=chunking.template, encode=encode, progress=progress)
    writer = None if language_model is None else language_model.at(retrieval)
    corpus, gathered = gather_all(
        documents=documents,
        queries=queries,
        enhanced=enhanced,
        sources=sources,
        near_duplicate=near_duplicate,
        min_query_characters=min_query_characters,
        max_tokens=max_tokens,
        seed=seed,
        count_tokens=count_tokens,
        writer=writer,
        audit=audit,
        progress=progress,
    )
    sizes = Counter(corpus.groups.values())
    kept = draw(unique(gathered, corpus, audit=audit), at_most=max_queries, seed=seed, audit=audit)
    sides = choose_sides(kept, corpus, real_queries=real_queries, test_share=test_share, seed=seed, audit=audit)
    _require_queries(sides, audit, progress)
    if writer is not None and language_model is not None and language_model.writing.negatives_per_query:
        sides = replace(sides, train=writer().contrast(sides.train, corpus.passages))
    passages = without_headings(corpus, (*sides.train, *sides.test))
    part = choose_training_part(
        sides.train,
        passages,
        corpus,
        test_groups=sides.test_groups,
        mining=mining,
        retrieval=retrieval,
        encode=encode,
        score_pairs=score_pairs,
    )
    dataset = Dataset(
        passages=passages,
        queries={candidate.query.id: candidate.query for candidate in (*sides.train, *sides.test)},
        train=tuple(_train_judgments(sides.train, part)),
        test=tuple(_test_judgments(sides.test)),
        positives={candidate.query.id: candidate.positives for candidate in sides.train if candidate.positives},
        negatives=part.negatives,
        ideal_contexts={candidate.query.id: candidate.contexts for candidate in sides.test if candidate.contexts},
        groups=corpus.groups,
        chunking=chunking,
    )
    _require_no_leaks(dataset, near_duplicate=near_duplicate, seed=seed)
    dataset.write(directory)
    _write_enhanced(directory / ENHANCED, sides.train, dataset, part)
    summary = summarise(corpus, sides, part, audit, sizes)
    audit.facts.update(facts_of(corpus, sides, part, sizes, gathered, tokens=count_tokens(_texts(dataset))))
    if language_model is not None and (author := language_model.asked):
        summary["language_model"] = audit.facts["language_model"] = author.summary()
        keep(author, directory, progress=progress)
    text = json.dumps({"summary": summary, **audit.as_json()}, ensure_ascii=False, indent=2) + "\n"
    (directory / AUDIT).write_text(text, encoding="utf-8")
    say(summary, progress)
    return summary


def gather_all(
    *,
    documents: Path,
    queries: Path | None,
    enhanced: Path | None,
    sources: Literal["auto"] | Collection[Source],
    near_duplicate: float,
    min_query_characters: int,
    max_tokens: int,
    seed: int,
    count_tokens: Callable[[Sequence[str]], list[int]],
    writer: Callable[[], Writer] | None,
    audit: Audit,
    progress: Progress,
    may_be_empty: bool = False,
) -> tuple[Corpus, list[Candidate]]:
    """The documents, cut and grouped, and every query to them; arguments as of `build_dataset`.

    `may_be_empty`: no query is no error, because this pod's share of the calls may give none.
    """
    corpus = read_corpus(
        documents,
        max_tokens=max_tokens,
        count_tokens=count_tokens,
        near_duplicate=near_duplicate,
        seed=seed,
        progress=progress,
    )
    sizes = Counter(corpus.groups.values())
    progress.say(
        "documents read",
        documents=len(corpus.of_document),
        passages=len(corpus.passages),
        groups=len(sizes),
        largest_group=max(sizes.values()),
    )
    gathered = gather(
        corpus,
        sources=sources,
        queries=queries,
        enhanced=enhanced,
        min_query_characters=min_query_characters,
        writer=writer,
        audit=audit,
        progress=progress,
        may_be_empty=may_be_empty,
    )
    return corpus, gathered


def _require_queries(sides: Sides, audit: Audit, progress: Progress) -> None:
    if not sides.train and not sides.test:
        counts = ", ".join(f"{rule} {count} ({RULES[rule]})" for rule, count in sorted(audit.counts.items()))
        raise InputError(
            f"no query is left; dropped: {counts}",
            where="generate",
            rule="at least one query trains or tests",
            way_out="give more documents or queries, or other generate.sources",
        )
    if not sides.train:
        progress.warn("no query can train: this dataset can only evaluate")
    if not sides.test:
        progress.warn("no query is held out: nothing can be proved with this dataset")


def _train_judgments(train: Sequence[Candidate], part: TrainingPart) -> Iterator[Judgment]:
    for candidate in train:
        for passage in part.positives[candidate.query.id]:
            yield Judgment(query_id=candidate.query.id, target=passage)
        for document in candidate.documents:
            yield Judgment(query_id=candidate.query.id, target=document, level="document")


def _test_judgments(test: Sequence[Candidate]) -> Iterator[Judgment]:
    """Documents where the source knows documents: they were judged by people, links were found by us."""
    for candidate in test:
        for document in candidate.documents:
            yield Judgment(query_id=candidate.query.id, target=document, level="document")
        for passage in candidate.passages if not candidate.documents else ():
            yield Judgment(query_id=candidate.query.id, target=passage)


def _require_no_leaks(dataset: Dataset, *, near_duplicate: float, seed: int) -> None:
    leaks = find_leaks(dataset, near_duplicate=near_duplicate, seed=seed)
    if leaks:
        shown = "\n    ".join(str(leak) for leak in leaks[:5])
        raise NearerError(f"the dataset would leak from test to train in {len(leaks)} places\n    {shown}")


def _texts(dataset: Dataset) -> list[str]:
    return [passage.text for passage in dataset.passages.values()]


def _write_enhanced(path: Path, train: Sequence[Candidate], dataset: Dataset, part: TrainingPart) -> None:
    """The training queries in the guide's own form."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for candidate in train:
            id_ = candidate.query.id
            positives = [dataset.passages[passage].text for passage in part.positives[id_]]
            negatives = [
                dataset.passages[negative.corpus_id].text if negative.corpus_id is not None else negative.text
                for negative in part.negatives.get(id_, ())
            ]
            row = {
                "eval_id": id_,
                "query": candidate.query.text,
                "ideal_context": [*positives, *candidate.positives],
                "ideal_answer": candidate.answer,
                "hard_negative_context": negatives,
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
