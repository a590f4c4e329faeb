"""A reranker that gives every pair the same score: told, or the end of the run."""

from __future__ import annotations

from typing import Final

from nearer.errors import GateRefused

COLLAPSED: Final = 0.05
"""Standard deviation of the validation logits below which a reranker has learnt nothing. A trained one has about 3; on
the plateau where it gives every pair the same score it has 0.01."""

COLLAPSE: Final = (
    "the reranker gives every pair all but the same score: it has not left the plateau on which fresh heads start"
)
LEAVE_THE_PLATEAU: Final = (
    "more random_negatives, a higher learning_rate or more epochs, or start from a tuned embedder"
)

STEPS: Final = 500
"""A run that has made so many, and half of those that it will make, has left the plateau or will not: the learning rate
only falls from there. A guess, on the careful side: ours left it within 60, and a shorter run wastes little."""


def refuse_collapsed(deviation: float | None, *, step: int, steps: int) -> None:
    """Stop a run that learns nothing.

    Args:
        deviation: standard deviation of the scores of a validation; None: the model scores no pairs.
        step: after which it was.
        steps: of the whole run.

    Raises:
        GateRefused: there is no hope.
    """
    if deviation is None or deviation >= COLLAPSED or step < max(STEPS, steps / 2):
        return
    raise GateRefused(
        f"{COLLAPSE}, after {step} of {steps} steps: the standard deviation of its scores is {deviation:.4f}",
        where="train.reranker",
        rule=f"at least {COLLAPSED} from the middle of the training on",
        way_out=LEAVE_THE_PLATEAU,
    )
