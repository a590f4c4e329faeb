"""What is asked of the language model, and in which form it must answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nearer.generate.kinds import KINDS, Task, numbered
from nearer.generate.prompts import Prompts
from nearer.llm.ask import Asker
from nearer.llm.request import Request
from nearer.llm.structured import Answer, ask_for
from nearer.records import Passage

_MOST_WORDS: Final = 2000  # characters of an answer that are kept


class WrittenQuery(BaseModel):
    """A query as it is written."""

    model_config = ConfigDict(extra="ignore")

    kind: str = Field(description=f"one of {', '.join(KINDS)}")
    query: str = Field(min_length=1)
    answer: str = ""
    passages: list[int] = Field(default_factory=lambda: [1], description="numbers of the passages that answer it")


class WrittenQueries(BaseModel):
    """Queries to passages."""

    model_config = ConfigDict(extra="ignore")

    queries: list[WrittenQuery] = Field(min_length=1)


class Marks(BaseModel):
    """Which candidates answer a query, and what an ideal answer says."""

    model_config = ConfigDict(extra="ignore")

    relevant: list[int]
    answer: str = ""


class Answerable(BaseModel):
    """Whether passages answer a query."""

    model_config = ConfigDict(extra="ignore")

    answerable: bool


class WrittenNegatives(BaseModel):
    """Texts that look like answers and are none."""

    model_config = ConfigDict(extra="ignore")

    negatives: list[str] = Field(min_length=1)

    @field_validator("negatives")
    @classmethod
    def _not_empty(cls, texts: list[str]) -> list[str]:
        kept = [text for text in (" ".join(each.split()) for each in texts) if text]
        if not kept:
            raise ValueError("every text is empty")
        return kept


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that came to nothing, with what was said instead."""

    purpose: str
    about: str
    problem: str
    raw: str


@dataclass
class Author:
    """The language model with its prompts.

    Args:
        asker: makes the calls.
        prompts: what is said.
        temperature: of writing; judging is greedy.
        max_tokens: most tokens of a reply.
        repairs: how often an unreadable reply is asked for again.
        mine: whether a document's calls are made here; the others' are another pod's. Asked of a document id, or of a
            query's.
    """

    asker: Asker
    prompts: Prompts
    temperature: float
    max_tokens: int
    repairs: int
    mine: Callable[[str], bool] = lambda _: True
    failures: list[Failure] = field(default_factory=list)
    repaired: int = 0

    def write(self, tasks: Sequence[Task]) -> list[tuple[Task, WrittenQuery]]:
        """Queries to passages; numbers of passages that are not there are left out of a query."""
        tasks = [task for task in tasks if self.mine(task.document)]
        requests = [self._request("queries", self.temperature, **_about(task, self.prompts)) for task in tasks]
        written = []
        answers = self._ask(requests, WrittenQueries, [task.passages[0].id for task in tasks], purpose="queries")
        for task, answer in zip(tasks, answers, strict=True):
            for query in answer.value.queries if answer.value else ():
                numbers = [number for number in dict.fromkeys(query.passages) if 1 <= number <= len(task.passages)]
                kind = query.kind if query.kind in task.kinds else task.kinds[0]
                text = " ".join(query.query.split())
                if text:
                    kept = {"kind": kind, "query": text, "passages": numbers or [1], "answer": query.answer.strip()}
                    written.append((task, WrittenQuery(**{**kept, "answer": kept["answer"][:_MOST_WORDS]})))
        return written

    def mark(self, queries: Mapping[str, str], candidates: Mapping[str, Sequence[Passage]]) -> dict[str, Marks | None]:
        """Which of its candidates answer each query; None: no readable reply came."""
        ids = [id_ for id_ in queries if candidates[id_] and self.mine(id_)]
        requests = [self._request("mark", 0.0, query=queries[id_], passages=numbered(candidates[id_])) for id_ in ids]
        answers = self._ask(requests, Marks, ids, purpose="mark")
        found: dict[str, Marks | None] = {}
        for id_, answer in zip(ids, answers, strict=True):
            found[id_] = answer.value and Marks(
                relevant=[n for n in dict.fromkeys(answer.value.relevant) if 1 <= n <= len(candidates[id_])],
                answer=answer.value.answer.strip()[:_MOST_WORDS],
            )
        return found

    def answerable(self, pairs: Sequence[tuple[str, str, Sequence[Passage]]]) -> dict[str, bool]:
        """Whether the passages answer each (id, query, passages); what got no readable reply counts as no."""
        requests = [
            self._request("answerable", 0.0, query=query, passages=numbered(passages)) for _, query, passages in pairs
        ]
        ids = [id_ for id_, _, _ in pairs]
        answers = self._ask(requests, Answerable, ids, purpose="answerable")
        return {id_: bool(answer.value and answer.value.answerable) for id_, answer in zip(ids, answers, strict=True)}

    def negatives(
        self, pairs: Sequence[tuple[str, str, Sequence[Passage]]], *, count: int
    ) -> dict[str, tuple[str, ...]]:
        """Texts for each (id, query, passages) that look like answers, at most `count`."""
        requests = [
            self._request("negatives", self.temperature, query=query, passages=numbered(passages), count=count)
            for _, query, passages in pairs
        ]
        ids = [id_ for id_, _, _ in pairs]
        answers = self._ask(requests, WrittenNegatives, ids, purpose="negatives")
        return {
            id_: tuple(answer.value.negatives[:count]) if answer.value else ()
            for id_, answer in zip(ids, answers, strict=True)
        }

    def summary(self) -> dict[str, Any]:
        """The account for audit and log."""
        failed: dict[str, int] = {}
        for failure in self.failures:
            failed[failure.purpose] = failed.get(failure.purpose, 0) + 1
        return {**self.asker.summary(), "repaired": self.repaired, "failed": dict(sorted(failed.items()))}

    def _request(self, name: str, temperature: float, **values: object) -> Request:
        system = self.prompts.fill("system")
        user = self.prompts.fill(name, **values)
        return Request(
            messages=(("system", system), ("user", user)), max_tokens=self.max_tokens, temperature=temperature
        )

    def _ask(self, requests: Sequence[Request], form: Any, about: Sequence[str], *, purpose: str) -> list[Answer[Any]]:
        answers: list[Answer[Any]] = ask_for(
            requests,
            form,
            asker=self.asker,
            repairs=self.repairs,
            repair_prompt=self.prompts.texts["repair"],
            what=f"language model: {purpose}",
        )
        for id_, answer in zip(about, answers, strict=True):
            self.repaired += answer.value is not None and answer.repairs > 0
            if answer.value is None:
                self.failures.append(Failure(purpose=purpose, about=id_, problem=answer.problem, raw=answer.raw))
        return answers


def _about(task: Task, prompts: Prompts) -> dict[str, object]:
    kinds = "\n".join(f"{number}. {kind}: {prompts.texts[kind].strip()}" for number, kind in enumerate(task.kinds, 1))
    return {
        "title": task.passages[0].title or "(없음)",
        "passages": numbered(task.passages),
        "kinds": kinds,
        "count": len(task.kinds),
    }
