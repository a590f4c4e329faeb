"""Calls that are made once: from the ledger where they were made before, else by the back end, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nearer import process
from nearer.errors import InputError, OutOfReach
from nearer.llm.ledger import Ledger
from nearer.llm.prices import Prices
from nearer.llm.request import Backend, Reply, Request
from nearer.progress import Progress

_MOST_UNANSWERED: Final = 0.05
"""Share of the calls that an endpoint may leave unanswered, while it answers others, before the work stops. A guess."""
_MOST_REFUSED: Final = 5  # so many refusals and not one reply: it is not the single request that is wrong


@dataclass
class Usage:
    """What was asked, and paid for. `known` calls were found in the ledger and cost nothing this time."""

    calls: int = 0
    known: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    known_tokens: int = 0
    problems: dict[str, int] = field(default_factory=dict)

    def as_json(self, prices: Prices) -> dict[str, Any]:
        """Plain values for audit and log."""
        cost = prices.of(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)
        return {
            "calls": self.calls,
            "calls_found_in_ledger": self.known,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_found_in_ledger": self.known_tokens,
            "cost": round(cost, 6),
        }


class Asker:
    """Asks a back end, and never twice.

    Args:
        backend: who answers.
        ledger: where replies are kept.
        token_budget: at most so many tokens of prompts and replies, those of the ledger that are used again counted
            too; None: no limit. It may be passed by the calls under way.
        prices: for the account.
        progress: told what happens.
    """

    def __init__(
        self, *, backend: Backend, ledger: Ledger, token_budget: int | None, prices: Prices, progress: Progress
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._budget = token_budget
        self._progress = progress
        self.prices = prices
        self.usage = Usage()
        self.used: dict[str, Reply] = {}

    def ask(self, requests: Sequence[Request], *, what: str) -> list[Reply]:
        """The reply to each request.

        Args:
            requests: equal ones are asked once.
            what: for the progress bar.

        Raises:
            InputError: the budget is used up, or the endpoint refuses the key, the model or every request.
            OutOfReach: the endpoint does not answer, or leaves too many calls unanswered.
            Interrupted: SIGTERM came. All replies that came are in the ledger.
        """
        keys = [request.key(self._backend.model) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        missing = [key for key in by_key if not self._recall(key)]
        if missing:
            problems = self._call(missing, by_key, what=what)
            self._ledger.tick()
        else:
            problems = {}
        return [self.used.get(key) or problems[key] for key in keys]

    def summary(self) -> dict[str, Any]:
        """The account so far."""
        return self.usage.as_json(self.prices)

    def _recall(self, key: str) -> bool:
        if key in self.used:
            return True
        if (reply := self._ledger.get(key)) is None:
            return False
        self.used[key] = reply
        self.usage.known += 1
        self.usage.known_tokens += reply.tokens
        return True

    def _call(self, missing: Sequence[str], by_key: dict[str, Request], *, what: str) -> dict[str, Reply]:
        problems: dict[str, Reply] = {}
        good = 0
        broke = False

        def go_on() -> bool:
            nonlocal broke
            self._ledger.tick()
            broke = broke or self._is_broke()
            return not (process.STOP.is_set() or broke)

        answers = self._backend.answer([by_key[key] for key in missing], go_on=go_on)
        for position, reply in self._progress.track(answers, what=what, total=len(missing)):
            key = missing[position]
            if reply.problem:
                problems[key] = reply
                refused = sum(not each.problem.startswith("unanswered") for each in problems.values())
                if refused >= _MOST_REFUSED and not good:
                    raise InputError(
                        f"the endpoint refuses every request: {reply.problem}",
                        where=f"model {self._backend.model}",
                        rule="an endpoint of the OpenAI kind with chat completions",
                        way_out="correct generate.llm: base_url, max_tokens, temperature; or choose another llm_model",
                    )
                continue
            good += 1
            self._ledger.put(key, reply)
            self.used[key] = reply
            self.usage.calls += 1
            self.usage.prompt_tokens += reply.prompt_tokens
            self.usage.completion_tokens += reply.completion_tokens
        process.STOP.check()
        left = [key for key in missing if key not in self.used and key not in problems]
        if left:
            raise self._used_up(len(left), len(missing))
        unanswered = [each.problem for each in problems.values() if each.problem.startswith("unanswered")]
        if len(unanswered) > _MOST_UNANSWERED * len(missing):
            raise OutOfReach(
                f"{len(unanswered)} of {len(missing)} calls were not answered: {unanswered[0]}",
                where=f"model {self._backend.model}",
                rule=f"at most {_MOST_UNANSWERED:.0%} of the calls may fail for good",
                way_out="run the same command again: only these are asked again",
            )
        return problems

    def _is_broke(self) -> bool:
        return self._budget is not None and self._paid() >= self._budget

    def _paid(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens + self.usage.known_tokens

    def _used_up(self, left: int, of: int) -> InputError:
        return InputError(
            f"the token budget is used up: {self._paid():,} tokens are paid for, and {left} of {of} calls are left",
            where="generate.llm.token_budget",
            rule=f"at most {self._budget:,} tokens of prompts and replies",
            way_out="raise it and run the same command again: nothing that was answered is asked again; "
            "or lower generate.max_queries",
        )
