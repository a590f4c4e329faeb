"""What was left out and why: exact counts, and a few cases of each rule. Nothing is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_SAMPLES: Final = 5

RULES: Final[Mapping[str, str]] = {
    "no-judgment": "nothing says what answers the query",
    "no-ideal-context": "the language model finds no answer in the passages that were retrieved for it",
    "not-in-corpus": "its ideal contexts stand in no document, so it cannot be tested",
    "too-short": "shorter than generate.min_query_characters, or without a word",
    "too-long": "longer than generate.llm.max_query_characters",
    "other-language": "a Korean corpus is asked in another language",
    "depends-on-passage": "only makes sense beside the passage that it was written to",
    "copied": "repeats the passage's own words beyond generate.llm.max_copied_share",
    "near-duplicate-query": "nearly repeats another query, by generate.llm.near_duplicate_query",
    "not-found-again": "neither BM25 nor the dense model finds its passage within generate.llm.round_trip_depth",
    "not-answered": "its passages do not answer it, by generate.llm.answerable_by",
    "duplicate": "the same text with the same answer, kept once",
    "ambiguous": "the same text with different answers, and no title tells them apart",
    "recurs-on-many-pages": "a heading of so many pages names nothing",
    "heading-in-text": "the section's text repeats its heading, which would give the answer away",
    "section-too-short": "the section says too little to answer anything",
    "not-drawn": "left out by generate.max_queries",
    "answers-from-a-test-document": "its document is held out for the real queries",
    "spans-train-and-test": "its answers lie on both sides of the split",
}


@dataclass
class Audit:
    """Counts by rule and by stage, for audit.json and for the summary."""

    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def drop(self, rule: str, *, query_id: str, text: str, detail: str = "") -> None:
        """Count one query that was left out; the rule is one of `RULES`."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        cases = self.samples.setdefault(rule, [])
        if len(cases) < _SAMPLES:
            cases.append({"query_id": query_id, "text": text[:200], **({"detail": detail[:200]} if detail else {})})

    def as_json(self) -> dict[str, Any]:
        """Plain values in a fixed order."""
        dropped = {
            rule: {"meaning": RULES[rule], "count": self.counts[rule], "samples": self.samples[rule]}
            for rule in RULES
            if rule in self.counts
        }
        return {**self.facts, "dropped": dropped}
