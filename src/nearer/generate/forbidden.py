"""What is never a hard negative, whatever a model thinks of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from nearer.corpus.link import Linker
from nearer.corpus.sameness import Shingles, alike, normal, shingles
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.ranking.mine import NEAR_DUPLICATE
from nearer.records import Passage

_SHINGLED: Final = 8192  # texts; of a thousand characters each, they take 64 MB


class Forbidden:
    """What is never a negative of a training query, by rule."""

    def __init__(
        self,
        train: Sequence[Candidate],
        passages: Mapping[str, Passage],
        corpus: Corpus,
        positives: Mapping[str, tuple[str, ...]],
        *,
        test_groups: Collection[str],
        near_duplicate: float,
    ) -> None:
        self._train = train
        self._near_duplicate = near_duplicate
        self._shingles_of = lru_cache(_SHINGLED)(lambda id_: shingles(passages[id_].text))
        self._answers: tuple[int, list[Shingles]] = (-1, [])  # of the query that was asked about last
        self._passages = passages
        self._corpus = corpus
        self._positives = positives
        self._same: dict[str, list[str]] = {}
        self._texts = {id_: normal(passage.text) for id_, passage in passages.items()}
        for id_, text in self._texts.items():
            self._same.setdefault(text, []).append(id_)
        self._of_group: dict[str, list[str]] = {}
        for id_, passage in passages.items():
            self._of_group.setdefault(corpus.groups[passage.document_id], []).append(id_)
        self._test_linker: Linker | None = None
        self.test = frozenset(id_ for group in sorted(test_groups) for id_ in self._of_group.get(group, ()))

    def known(self, index: int) -> set[str]:
        """Passages that answer the query, or may: the positives, and all passages of documents judged as wholes."""
        candidate = self._train[index]
        whole = {id_ for document in candidate.documents for id_ in self._corpus.of_document[document]}
        return whole.union(self._positives[candidate.query.id])

    def positive_texts(self, index: int) -> set[str]:
        """Normal forms of all positives."""
        candidate = self._train[index]
        of_passages = {self._texts[id_] for id_ in self._positives[candidate.query.id]}
        return of_passages | {normal(text) for text in candidate.positives}

    def rules(self, index: int) -> dict[str, Collection[str]]:
        """Rule → passage ids, as `mine` takes them."""
        same = {id_ for text in self.positive_texts(index) for id_ in self._same.get(text, ())}
        return {
            "known-positive": self.known(index),
            "same-text": same,
            "test-document": self.test,
            NEAR_DUPLICATE: self.near(index),
        }

    def near(self, index: int) -> set[str]:
        """Passages of near-duplicates of the documents that answer."""
        candidate = self._train[index]
        answered = {self._passages[id_].document_id for id_ in self._positives[candidate.query.id]}
        answered.update(candidate.documents)
        return {
            id_
            for document in answered
            for id_ in self._of_group[self._corpus.groups[document]]
            if self._passages[id_].document_id not in answered
        }

    def repeats(self, index: int, id_: str) -> bool:
        """Whether a passage nearly repeats a positive."""
        return self._nearly_repeats(index, self._shingles_of(id_))

    def _nearly_repeats(self, index: int, text: Shingles) -> bool:
        if index != self._answers[0]:
            candidate = self._train[index]
            answers = [self._shingles_of(id_) for id_ in self._positives[candidate.query.id]]
            self._answers = index, answers + [shingles(given) for given in candidate.positives]
        return any(alike(text, answer, self._near_duplicate) for answer in self._answers[1])

    def forbids_text(self, index: int, text: str) -> str | None:
        """The rule that a given negative breaks, if any."""
        wanted = normal(text)
        if wanted in self.positive_texts(index):
            return "same-text"
        if self._nearly_repeats(index, shingles(text)):
            return NEAR_DUPLICATE
        if self._test_linker is None:
            self._test_linker = Linker(self._passages[id_] for id_ in sorted(self.test))
        link = self._test_linker.link(text)
        if link is not None and link.kind == "exact":
            return "test-document"
        here = self._same.get(wanted, ())
        return next((rule for rule, ids in self.rules(index).items() if any(id_ in ids for id_ in here)), None)


class Given:
    """Negatives that came with the queries: somebody wrote or chose them, so only the hard rules apply."""

    def __init__(self, forbidden: Forbidden) -> None:
        self._forbidden = forbidden
        self._dropped: dict[str, int] = {}
        self._kept = 0

    def allowed(self, index: int, candidate: Candidate) -> list[str]:
        """The candidate's given negatives that break no rule."""
        kept = []
        for text in candidate.negatives:
            rule = self._forbidden.forbids_text(index, text)
            if rule is None:
                kept.append(text)
            else:
                self._dropped[rule] = self._dropped.get(rule, 0) + 1
        self._kept += len(kept)
        return kept

    def believed(
        self, scored: Iterable[tuple[float, str]], *, zero: float, limit: float | None
    ) -> list[tuple[float, str]]:
        """Those whose centred score is within the limit; all of them where there is none."""
        kept = []
        for score, text in scored:
            if limit is None or (limit > 0 and score - zero <= limit):
                kept.append((score, text))
            else:
                self._dropped["false-negative"] = self._dropped.get("false-negative", 0) + 1
                self._kept -= 1
        return kept

    def as_json(self) -> dict[str, Any]:
        """Counts for the audit."""
        return {"allowed": self._kept, "dropped": dict(sorted(self._dropped.items()))}
