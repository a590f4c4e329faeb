"""The k largest of each row, ties by ascending position: exactly what a stable sort gives, without the sort."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest values of each row, largest first, equal values by ascending column.

    `argpartition` alone picks any of the values that tie at the boundary; rows where that happens are put right.

    Args:
        scores: shape (rows, columns), no NaN.
        k: how many; at most all columns are returned.

    Returns:
        Column numbers, shape (rows, min(k, columns)).
    """
    import numpy as np

    rows, columns = scores.shape
    k = min(k, columns)
    if k == 0 or rows == 0:
        return np.empty((rows, k), dtype=np.int64)
    if k < columns:
        chosen = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        boundary = np.take_along_axis(scores, chosen, axis=1).min(axis=1)  # the k-th largest of each row, (rows,)
        tied = np.flatnonzero((scores >= boundary[:, None]).sum(axis=1) > k)
        for row in tied:
            above = np.flatnonzero(scores[row] > boundary[row])
            equal = np.flatnonzero(scores[row] == boundary[row])
            chosen[row] = np.concatenate([above, equal[: k - len(above)]])
        chosen.sort(axis=1)
    else:
        chosen = np.broadcast_to(np.arange(columns), (rows, columns))
    best_first = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, best_first, axis=1)
