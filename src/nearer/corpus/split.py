"""Which groups of documents are held out for testing."""

from __future__ import annotations

import random
from collections.abc import Mapping


def split_groups(queries: Mapping[str, int], *, test_share: float, seed: int) -> set[str]:
    """Draw groups until about the wanted share of the queries is held out.

    Groups come in a random order; one that would carry the held-out part past its target is passed over, so a lump of
    near-duplicates lands in the train part rather than in a test part of twice the size. When nothing fits, the
    smallest group is held out, so that there is something to test on.

    Args:
        queries: group id → how many queries it answers; groups without queries have no side.
        test_share: wanted share of the queries, in (0, 1).
        seed: of the order.

    Returns:
        The held-out group ids; all others train. At least one group stays on each side when there are two.
    """
    order = sorted(group for group, count in queries.items() if count > 0)
    random.Random(seed).shuffle(order)
    target = max(1.0, test_share * sum(queries[group] for group in order))
    held_out: set[str] = set()
    count = 0
    for group in order:
        if count + queries[group] <= target and len(held_out) < len(order) - 1:
            held_out.add(group)
            count += queries[group]
    if not held_out and len(order) > 1:
        held_out.add(min(order, key=lambda group: (queries[group], group)))
    return held_out
