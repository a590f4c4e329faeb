"""What every step of a training run sees, drawn from the seed alone.

A step's content is a pure function of its number, so a run that was killed goes on exactly where it stood, and no state
of a sampler has to be kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from nearer.train.rows import Material, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row with the negatives that it is given this time."""

    row: Row
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A query with a text that answers it (label 1) or does not (label 0)."""

    query_id: str
    key: str
    label: int


@dataclass(kw_only=True)
class Schedule:
    """Rows in a new order each epoch, each with negatives that rotate through its mined list from epoch to epoch.

    Args:
        material: rows and negatives.
        hard: mined negatives a row; filled up with random ones where there are too few.
        random: random negatives a row, beside.
        seed: of order, rotation and random negatives.
        nearest: of lists that are drawn from instead of rotated through, best first: how many of a list count in the
            end; at the beginning all do.
        ease: examples over which hard negatives take the place of random ones, and come from ever fewer ranks.
    """

    material: Material
    hard: int
    random: int
    seed: int
    nearest: int | None = None
    ease: int = 0
    _order: tuple[int, list[int]] | None = field(default=None, init=False)

    def example(self, position: int) -> Example:
        """The example at a position of the endless stream of epochs."""
        rows = self.material.rows
        epoch, place = divmod(position, len(rows))
        if self._order is None or self._order[0] != epoch:
            order = list(range(len(rows)))
            random.Random(f"order {self.seed} {epoch}").shuffle(order)
            self._order = (epoch, order)
        number = self._order[1][place]
        share = min(1.0, position / self.ease) if self.ease else 1.0
        return Example(row=rows[number], negatives=self._negatives(number, epoch, share))

    def batch(self, step: int, *, rows: int) -> list[Example]:
        """The examples of a step (from 0), `rows` each; the last ones of an epoch share a step with the next epoch."""
        return [self.example(position) for position in range(step * rows, (step + 1) * rows)]

    def pairs(self, step: int, *, count: int) -> list[Pair]:
        """The pairs of a step (from 0): each answer followed by its negatives, cut into steps of `count`."""
        width = 1 + self.hard + self.random
        found: list[Pair] = []
        for position in range(step * count // width, ((step + 1) * count - 1) // width + 1):
            example = self.example(position)
            query = example.row.query_id
            pairs = [Pair(query_id=query, key=example.row.positive, label=1)]
            pairs += [Pair(query_id=query, key=key, label=0) for key in example.negatives]
            first = position * width
            found += [pair for place, pair in enumerate(pairs, start=first) if place // count == step]
        return found

    def _negatives(self, number: int, epoch: int, share: float) -> tuple[str, ...]:
        row = self.material.rows[number]
        known = list(self.material.negatives[row.query_id])
        count = round(self.hard * share)
        if self.nearest is None:
            random.Random(f"rotation {self.seed} {number}").shuffle(known)
            chosen = rotate(known, count=count, turn=epoch)
        else:
            ranks = round(len(known) + (min(self.nearest, len(known)) - len(known)) * share)
            first = known[: max(ranks, count)]
            chosen = random.Random(f"ranks {self.seed} {epoch} {number}").sample(first, min(count, len(first)))
        draw = random.Random(f"random {self.seed} {epoch} {number}")
        missing = self.hard - len(chosen) + self.random
        chosen += self.material.relations.draw_negatives(
            row.query_id, missing, pool=self.material.pool, taken=[*chosen, row.positive], draw=draw
        )
        return tuple(chosen)


def rotate(items: Sequence[T], *, count: int, turn: int) -> list[T]:
    """The `turn`-th `count` items of a ring, no item twice; fewer when the ring is smaller."""
    size = len(items)
    return [items[(turn * count + place) % size] for place in range(min(count, size))]


def steps_of(rows: int, *, epochs: float, per_step: float, max_steps: int | None) -> int:
    """How many steps see `rows` rows `epochs` times; at least one."""
    steps = max(1, round(rows * epochs / per_step))
    return min(steps, max_steps) if max_steps else steps


def evaluation_steps(total: int, *, rows: int, per_step: float, per_epoch: int) -> tuple[int, ...]:
    """Numbers of the steps after which the model is validated: `per_epoch` each epoch, and the last one."""
    between = rows / per_step / per_epoch
    count = int(total / between)
    marks = {max(1, round(between * number)) for number in range(1, count + 1)}
    return tuple(sorted({mark for mark in marks if mark < total} | {total}))
