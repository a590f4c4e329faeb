"""What a language model would be asked and cost, told from the files alone: for `--dry-run`, without a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal

from nearer.corpus.chunk import sections
from nearer.corpus.queries import read_queries
from nearer.corpus.read import read_documents
from nearer.errors import InputError
from nearer.generate.prompts import Prompts
from nearer.llm.prices import Prices

_HANGUL_TOKENS: Final = 0.65
_OTHER_TOKENS: Final = 0.3
"""Tokens a character. Tokenizers differ: o200k has some 0.6 for Korean, older ones above 1. Both are guesses."""
_QUERY_TOKENS: Final = 90  # of a written query with its answer and the JSON around it; a guess
_SEVERAL: Final = ("multi_passage", "comparison")
_MIN_CHARACTERS: Final = 40


def count_tokens(text: str) -> float:
    """About how many tokens a text has."""
    hangul = sum("가" <= character <= "힣" for character in text)
    return hangul * _HANGUL_TOKENS + (len(text) - hangul) * _OTHER_TOKENS


def estimate_calls(
    documents: Path,
    *,
    queries: Path | None,
    enhanced: bool,
    sources: Literal["auto"] | Collection[str],
    prompts: Prompts,
    model: str,
    shares: Mapping[str, float],
    queries_per_passage: int,
    max_queries: int | None,
    passage_tokens: int,
    answerable: bool,
    mark_depth: int,
    negatives_per_query: int,
    prices: Prices,
    token_budget: int | None,
) -> list[str]:
    """Lines that say how many calls there would be, with how many tokens, and what they would cost.

    Nothing that the ledger holds is subtracted: it is not looked at.
    """
    try:
        passages, mean, questions = _passages(documents, passage_tokens=passage_tokens)
        file = read_queries(queries) if queries else None
    except InputError as error:
        return [f"the calls cannot be estimated: {error.what}"]
    judged = {judgment.query_id for judgment in file.judgments} | set(file.positives) if file else set()
    unjudged = [query for query in file.queries if query.id not in judged] if file else []
    auto = sources == "auto"
    marks = len(unjudged) if (auto or "queries" in sources) and not enhanced else 0
    nothing_else = not judged and not enhanced and not questions and not marks
    writes = "llm" in sources or (auto and nothing_else)
    if not marks and not writes:
        return [f"llm_model {model!r} is not asked: every query has a judgment"]
    system = count_tokens(prompts.texts["system"])
    lines, prompt, completion = [], 0.0, 0.0
    if marks:
        prompt += marks * (system + count_tokens(prompts.texts["mark"]) + mark_depth * mean)
        completion += marks * 2 * _QUERY_TOKENS
        lines.append(f"{marks:,} queries are judged")
    calls = marks
    if writes:
        if max_queries is not None:
            passages = min(passages, math.ceil((max_queries + max_queries // 3) / queries_per_passage))
        several = sum(shares.get(kind, 0.0) for kind in _SEVERAL)
        alone, together = 1 - several**queries_per_passage, 1 - (1 - several) ** queries_per_passage
        written = passages * queries_per_passage
        asked = passages * (alone + together)
        kinds = sum(count_tokens(prompts.texts[kind]) for kind in shares) / max(1, len(shares)) * queries_per_passage
        prompt += asked * (system + count_tokens(prompts.texts["queries"]) + kinds)
        prompt += passages * mean * (alone + 2 * together)
        completion += written * _QUERY_TOKENS
        calls += round(asked)
        lines.append(f"{written:,} queries are written to {passages:,} passages")
        if answerable:
            calls += written
            prompt += written * (system + count_tokens(prompts.texts["answerable"]) + mean)
            completion += written * 10
    if negatives_per_query:
        contrasted = marks + (passages * queries_per_passage if writes else 0)
        calls += contrasted
        prompt += contrasted * (system + count_tokens(prompts.texts["negatives"]) + mean)
        completion += contrasted * negatives_per_query * mean
        lines.append(f"{contrasted * negatives_per_query:,} hard negatives are written")
    cost = prices.of(prompt_tokens=round(prompt), completion_tokens=round(completion))
    money = f", cost about {cost:,.2f}" if cost else ", cost unknown: generate.llm.prompt_price is 0"
    lines.append(
        f"at most about {calls:,} calls of {model}: {prompt / 1e6:,.2f} M tokens of prompts, "
        f"{completion / 1e6:,.2f} M of replies{money} (from characters; what the ledger holds is not paid again)"
    )
    if token_budget is not None and prompt + completion > token_budget:
        lines.append(f"generate.llm.token_budget of {token_budget:,} will probably not be enough")
    return lines


def _passages(documents: Path, *, passage_tokens: int) -> tuple[int, float, bool]:
    """About how many passages there are, tokens of one, and whether a document has questions of its own."""
    count, total, questions = 0, 0.0, False
    for document in read_documents(documents):
        questions = questions or bool(document.questions)
        for section in sections(document.text):
            if len(section.text) >= _MIN_CHARACTERS:
                tokens = count_tokens(section.text)
                count += max(1, math.ceil(tokens / passage_tokens))
                total += tokens
    return count, total / max(1, count), questions
