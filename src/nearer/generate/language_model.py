"""The language model as the dataset's builder sees it: made ready when it is needed, and what it leaves behind."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nearer.generate.author import Author
from nearer.generate.judges import ScorePairs
from nearer.generate.retrieval import Retrieval
from nearer.generate.shards import REPLIES
from nearer.generate.written import Writer, Writing
from nearer.llm.ledger import write_replies
from nearer.progress import Progress

FAILURES: Final = "llm_failures.jsonl"
"""In the dataset: the calls that came to nothing, with what was said instead."""


class LanguageModel:
    """Who writes, not yet made ready.

    Args:
        make: makes the author ready: opens the ledger, checks the endpoint or loads the model.
        writing: how.
        score_pairs: a cross-encoder, where it decides whether a query is answered.
        seed: of the draws.
        progress: told what happens.
    """

    def __init__(
        self,
        make: Callable[[], Author],
        *,
        writing: Writing,
        score_pairs: ScorePairs | None,
        seed: int,
        progress: Progress,
    ) -> None:
        self._make = make
        self.writing = writing
        self._score_pairs = score_pairs
        self._seed = seed
        self._progress = progress
        self.asked: Author | None = None

    def at(self, retrieval: Retrieval) -> Callable[[], Writer]:
        """What makes the writer ready, once."""

        @functools.cache
        def ready() -> Writer:
            self.asked = self._make()
            return Writer(
                author=self.asked,
                writing=self.writing,
                retrieval=retrieval,
                score_pairs=self._score_pairs,
                seed=self._seed,
                progress=self._progress,
            )

        return ready


def keep(author: Author, directory: Path, *, progress: Progress) -> None:
    """Write the replies that were used, and what failed; say both."""
    write_replies(directory / REPLIES, author.asker.used)
    if author.failures:
        with (directory / FAILURES).open("w", encoding="utf-8", newline="\n") as stream:
            for failure in author.failures:
                row = {
                    "purpose": failure.purpose,
                    "about": failure.about,
                    "problem": failure.problem,
                    "raw": failure.raw,
                }
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        first = author.failures[0]
        progress.warn(
            f"replies of the language model that could not be used are kept in {FAILURES}",
            **Counter(failure.purpose for failure in author.failures),
            first=f"{first.about}: {first.problem}"[:200],
        )
    progress.say("language model", **author.summary())


def keep_replies(author: Author | None, directory: Path) -> dict[str, Any]:
    """Write the replies that were used, none where nobody was asked; the account."""
    write_replies(directory / REPLIES, author.asker.used if author else {})
    return {"language_model": author.summary()} if author else {}
