"""What each step sees: every row each epoch, rotating negatives, drawn from the seed and the step's number alone."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.testing import korean_dataset
from nearer.train.collate import length_groups
from nearer.train.rows import Material, prepare
from nearer.train.schedule import Schedule, evaluation_steps, rotate, steps_of


@pytest.fixture(scope="module")
def material() -> Material:
    return prepare(korean_dataset(30, 1), val_split=0.2, validation_queries_max=50, validation_passages_max=50, seed=1)


def test_an_epoch_sees_every_row_once(material: Material) -> None:
    """Epochs are permutations of the rows, each another one, whatever the batch size is."""
    schedule = Schedule(material=material, hard=1, random=0, seed=5)
    size = len(material.rows)
    epochs = [[schedule.example(epoch * size + place).row for place in range(size)] for epoch in range(3)]
    assert all(Counter(epoch) == Counter(material.rows) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    stream = [example for step in range(2 * size // 7 + 1) for example in schedule.batch(step, rows=7)]
    assert [example.row for example in stream][: 2 * size] == epochs[0] + epochs[1]


def test_a_step_does_not_depend_on_the_steps_before(material: Material) -> None:
    """A schedule that starts at any step gives what one that started at 0 gives there: resuming needs no state."""
    whole = Schedule(material=material, hard=2, random=1, seed=5)
    batches = [whole.batch(step, rows=8) for step in range(20)]
    for step in (13, 2, 19):
        assert Schedule(material=material, hard=2, random=1, seed=5).batch(step, rows=8) == batches[step]
    assert Schedule(material=material, hard=2, random=1, seed=6).batch(3, rows=8) != batches[3]


def test_negatives_rotate_through_the_mined_list(material: Material) -> None:
    """Three mined negatives, one an epoch: after three epochs each was used once, for every row."""
    schedule = Schedule(material=material, hard=1, random=0, seed=5)
    size = len(material.rows)
    used: dict[object, list[str]] = {}
    for position in range(3 * size):
        example = schedule.example(position)
        used.setdefault(example.row, []).extend(example.negatives)
    whole = [row for row in material.rows if len(material.negatives[row.query_id]) == 3]
    assert len(whole) > size / 2
    assert all(sorted(used[row]) == sorted(material.negatives[row.query_id]) for row in whole)


def test_negatives_begin_random_and_end_with_the_first_ranks(material: Material) -> None:
    """Over the ease the share of a list grows from none to all, and its ranks come down to the nearest ones."""
    query = material.rows[0].query_id
    ranks = [key for key in material.pool if material.relations.is_negative(query, key)][:20]
    others = tuple(key for key in material.pool if key not in ranks)
    only = replace(material, rows=material.rows[:1], negatives={query: tuple(ranks)}, pool=others)
    schedule = Schedule(material=only, hard=4, random=1, seed=5, nearest=5, ease=100)
    places = [[ranks.index(key) for key in schedule.example(at).negatives if key in ranks] for at in range(200)]
    assert [len(places[at]) for at in (0, 50, 99, 150)] == [0, 2, 4, 4]
    assert len(schedule.example(0).negatives) == 5
    middle = [place for found in places[40:60] for place in found]
    assert max(middle) > 8
    late = [place for found in places[100:] for place in found]
    assert set(late) == set(range(5))
    for at in (0, 37, 150):
        again = Schedule(material=only, hard=4, random=1, seed=5, nearest=5, ease=100)
        assert again.example(at) == schedule.example(at)


def test_too_few_mined_negatives_are_filled_up(material: Material) -> None:
    """A query with one mined negative gets the others from the pool, other ones each epoch, none of them its answer."""
    query = material.rows[0].query_id
    material = replace(material, negatives={**material.negatives, query: material.negatives[query][:1]})
    schedule = Schedule(material=material, hard=3, random=0, seed=5)
    found = [
        example.negatives
        for position in range(2 * len(material.rows))
        if (example := schedule.example(position)).row == material.rows[0]
    ]
    assert [len(keys) for keys in found] == [3, 3]
    assert found[0][0] == found[1][0] == material.negatives[query][0]
    assert found[0] != found[1]
    assert all(key in material.pool and material.relations.is_negative(query, key) for key in found[0][1:])


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8])
def test_pairs_are_the_stream_cut_anywhere(material: Material, count: int) -> None:
    """Steps of any number of pairs hold the same stream: an answer, its hard and its random negatives."""
    schedule = Schedule(material=material, hard=1, random=2, seed=5)
    pairs = [pair for step in range(24 // count) for pair in schedule.pairs(step, count=count)]
    assert [pair.label for pair in pairs] == ([1, 0, 0, 0] * 6)[: len(pairs)]
    assert [pair.query_id for pair in pairs[::4]] == [
        schedule.example(position).row.query_id for position in range(len(pairs[::4]))
    ]
    assert all(len(schedule.pairs(step, count=count)) == count for step in range(5))


@given(size=st.integers(0, 9), count=st.integers(0, 5), turn=st.integers(0, 50))
def test_a_turn_repeats_nothing(size: int, count: int, turn: int) -> None:
    """A turn holds distinct items, as many as are wanted and there."""
    found = rotate(range(size), count=count, turn=turn)
    assert len(set(found)) == len(found) == min(size, count)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=70), min_rows=st.integers(1, 9))
def test_length_groups_hold_every_row_once(lengths: list[int], min_rows: int) -> None:
    """Every row is in one group, and no group is smaller than the minimum unless all rows are."""
    groups = length_groups(lengths, min_rows=min_rows)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert all(len(group) >= min(min_rows, len(lengths)) for group in groups)


def test_length_groups_save_padding() -> None:
    """Rows of two lengths do not pad each other."""
    assert length_groups([90] * 8 + [20] * 8, min_rows=8) == [list(range(8)), list(range(8, 16))]


def test_steps_and_validations() -> None:
    """Epochs become steps; validations stand evenly in each epoch, and always at the end."""
    assert steps_of(100, epochs=3, per_step=10, max_steps=None) == 30
    assert steps_of(100, epochs=3, per_step=10, max_steps=7) == 7
    assert steps_of(3, epochs=0.1, per_step=10, max_steps=None) == 1
    assert evaluation_steps(30, rows=100, per_step=10, per_epoch=2) == (5, 10, 15, 20, 25, 30)
    assert evaluation_steps(7, rows=100, per_step=10, per_epoch=2) == (5, 7)
    assert evaluation_steps(2, rows=4, per_step=4, per_epoch=9) == (1, 2)
