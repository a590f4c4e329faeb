"""What is never a hard negative, whatever a model thinks of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Any

from nearer.corpus.link import Linker
from nearer.corpus.sameness import Shingles, alike, normal, shingles
from nearer.generate.candidates import Candidate
from nearer.generate.corpus import Corpus
from nearer.records import Passage


class Near:
    """Passages of certain documents, and those that nearly repeat an answer: compared when they are asked for.

    Args:
        passages: ids that are in it anyway.
        answers: shingles of the answers' texts.
        shingles_of: those of a passage.
        threshold: Jaccard similarity from which on a text repeats another.
    """

    def __init__(
        self,
        passages: Collection[str],
        answers: Sequence[Shingles],
        shingles_of: Callable[[str], Shingles],
        *,
        threshold: float,
    ) -> None:
        self._passages = passages
        self._answers = answers
        self._shingles_of = shingles_of
        self._threshold = threshold

    def __contains__(self, id_: object) -> bool:
        return id_ in self._passages or self.repeats(self._shingles_of(str(id_)))

    def repeats(self, text: Shingles) -> bool:
        """Whether a text nearly repeats an answer."""
        return any(alike(text, answer, self._threshold) for answer in self._answers)


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
        self._shingles: dict[str, Shingles] = {}
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

    def rules(self, index: int) -> dict[str, Container[str]]:
        """Rule → passage ids, as `mine` takes them."""
        same = {id_ for text in self.positive_texts(index) for id_ in self._same.get(text, ())}
        return {
            "known-positive": self.known(index),
            "same-text": same,
            "test-document": self.test,
            "near-duplicate": self.near(index),
        }

    def near(self, index: int) -> Near:
        """Passages of near-duplicates of the documents that answer, and whatever nearly repeats a positive."""
        candidate = self._train[index]
        answered = {self._passages[id_].document_id for id_ in self._positives[candidate.query.id]}
        answered.update(candidate.documents)
        near = {
            id_
            for document in answered
            for id_ in self._of_group[self._corpus.groups[document]]
            if self._passages[id_].document_id not in answered
        }
        answers = [self._shingles_of(id_) for id_ in self._positives[candidate.query.id]]
        answers += [shingles(text) for text in candidate.positives]
        return Near(near, answers, self._shingles_of, threshold=self._near_duplicate)

    def _shingles_of(self, id_: str) -> Shingles:
        if id_ not in self._shingles:
            self._shingles[id_] = shingles(self._passages[id_].text)
        return self._shingles[id_]

    def forbids_text(self, index: int, text: str) -> str | None:
        """The rule that a given negative breaks, if any."""
        wanted = normal(text)
        if wanted in self.positive_texts(index):
            return "same-text"
        if self.near(index).repeats(shingles(text)):
            return "near-duplicate"
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
