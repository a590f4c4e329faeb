"""How often the verdict is wrong: simulated evaluations whose truth is known, queries clustered in documents."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from nearer.evaluate.verdict import Check, primary
from nearer.ranking.compare import Comparison, compare, queries_needed

MINIMUM, CONFIDENCE, POWER, STATED = 0.01, 0.95, 0.8, 0.05


def evaluation(draw: np.random.Generator, *, effect: float, queries: int, samples: int) -> Comparison:
    """One to eight queries a document; documents differ in how much the new system changes them.

    Most queries tie, as in real evaluations, and the others change by a lot.
    """
    before, after, groups = {}, {}, {}
    number = 0
    while len(before) < queries:
        number += 1
        of_group = draw.normal(0, 0.15)
        for _ in range(int(draw.integers(1, 9))):
            name = f"q{len(before):05d}"
            changed = draw.random() < 0.4
            before[name] = 0.5
            after[name] = 0.5 + effect + changed * (of_group + draw.normal(0, 0.3))
            groups[name] = f"d{number}"
    return compare(before, after, groups, seed=int(draw.integers(2**31)), samples=samples, confidence=CONFIDENCE)


def verdict(found: Comparison, *, minimum: float = MINIMUM) -> Check:
    words = {"before": "incumbent", "after": "tuned", "measure": "nDCG@10", "population": "real"}
    return primary(found, **words, minimum=minimum, confidence=CONFIDENCE, power=POWER)


def states(times: int, *, effect: float, queries: int, samples: int, minimum: float = MINIMUM) -> Counter[str]:
    draw = np.random.default_rng(7)
    made = (evaluation(draw, effect=effect, queries=queries, samples=samples) for _ in range(times))
    return Counter(verdict(found, minimum=minimum).state for found in made)


def most_by_chance(times: int, rate: float) -> int:
    """So many or fewer happen in 999 of 1,000 series."""
    return int(stats.binom.ppf(0.999, times, rate))


def needed() -> int:
    """Queries for the stated power, from one large evaluation's standard error."""
    pilot = evaluation(np.random.default_rng(1), effect=STATED, queries=4000, samples=2000)
    error = {"standard_error": pilot.standard_error, "queries": pilot.queries, "groups": pilot.effective_groups}
    count = queries_needed(effect=STATED, minimum=MINIMUM, **error, confidence=CONFIDENCE, power=POWER)
    assert count is not None
    return count


def test_a_model_without_effect_is_shipped_no_more_often_than_stated() -> None:
    """A sample of the exhaustive simulation; without the minimum effect, which would make it rarer still."""
    times = 60
    found = states(times, effect=0.0, queries=150, samples=1000, minimum=0.0)
    assert found["pass"] <= most_by_chance(times, (1 - CONFIDENCE) / 2)


def test_a_real_effect_is_found_about_as_often_as_stated() -> None:
    """A sample of the exhaustive simulation, with the number of queries that the report would ask for."""
    times = 40
    found = states(times, effect=STATED, queries=needed(), samples=1000)
    assert found["pass"] >= times - most_by_chance(times, 1 - POWER)
    assert found["fail"] == 0


@pytest.mark.full
@pytest.mark.parametrize("queries", [40, 150, 600])
def test_the_rate_of_wrong_shipping_over_thousands_of_evaluations(queries: int) -> None:
    """Two thousand evaluations without any effect, few queries and many."""
    times = 2000
    for minimum in (0.0, MINIMUM):
        found = states(times, effect=0.0, queries=queries, samples=2000, minimum=minimum)
        rate = found["pass"] / times
        print(
            f"{queries} queries, no effect, minimum {minimum}: {times} evaluations, shipped {rate:.2%}, {dict(found)}"
        )
        assert found["pass"] <= most_by_chance(times, (1 - CONFIDENCE) / 2)


@pytest.mark.full
def test_the_power_over_a_thousand_evaluations() -> None:
    """The stated effect, with the number of queries that the report would ask for."""
    times, queries = 1000, needed()
    found = states(times, effect=STATED, queries=queries, samples=2000)
    rate = found["pass"] / times
    print(
        f"{queries} queries, effect {STATED}: {times} evaluations, shipped {rate:.2%} (stated {POWER:.0%}), {dict(found)}"
    )
    assert rate >= POWER - 3 * math.sqrt(POWER * (1 - POWER) / times)
    assert found["fail"] == 0
