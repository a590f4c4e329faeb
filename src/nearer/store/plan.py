"""What a job would do, for `--dry-run`: nothing is touched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """An input and its state: "there", "made by `generate` first", "hub id, resolved when it runs", "missing"."""

    name: str
    address: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job's inputs, its output, the output's state (see `Store.foresee`), and what else is worth knowing."""

    job: str
    inputs: tuple[PlannedInput, ...]
    output: str
    state: str
    notes: tuple[str, ...] = ()
