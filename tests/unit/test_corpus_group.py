"""Near-duplicates, grouping and the split by group."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.corpus.group import group
from nearer.corpus.sameness import jaccard, normal, shingles
from nearer.corpus.split import split_groups
from nearer.testing import korean_documents


def runs(text: str, size: int = 5) -> set[str]:
    text = normal(text)
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def reference_jaccard(left: str, right: str) -> float:
    one, other = runs(left), runs(right)
    return len(one & other) / len(one | other)


def test_normal_form_ignores_case_width_spaces_and_punctuation_and_nothing_else() -> None:
    """What extraction and people change without meaning it."""
    assert normal("Ｗｉ-Fi  설정,\n방법?") == normal("wifi 설정방법")
    assert normal("한글") == normal("\u1112\u1161\u11ab글")
    assert normal("C++ 설치") != normal("C 설치")
    assert normal("C# 설치") != normal("C 설치")


@given(left=st.text(min_size=1, max_size=80), right=st.text(min_size=1, max_size=80))
@settings(deadline=None)
def test_hashed_shingles_give_the_true_jaccard(left: str, right: str) -> None:
    """Of the sets of substrings, computed naively."""
    if normal(left) and normal(right):
        assert jaccard(shingles(left), shingles(right)) == reference_jaccard(left, right)


def test_near_duplicates_are_grouped_and_others_are_not() -> None:
    """An edited copy and a copy of the copy join the original; documents of one template do not."""
    documents = [(row["docid"], row["content"]) for row in korean_documents(60, seed=1)]
    original = " ".join(text for _, text in documents[:3])
    copies = [
        ("copy-1", original.replace("담당", "맡은 이")),
        ("copy-2", original.replace("담당", "맡은 이") + " 끝."),
        ("z", original),
    ]
    found = group([*documents, *copies], threshold=0.7, seed=13)
    assert {id_: found[id_] for id_ in ("copy-1", "copy-2", "z")} == dict.fromkeys(("copy-1", "copy-2", "z"), "copy-1")
    assert sum(found[id_] == id_ for id_, _ in documents) == len(documents)


def test_groups_are_those_of_comparing_all_pairs() -> None:
    """On texts around the threshold, LSH misses no pair of these."""
    draw = random.Random(0)
    base = ["".join(draw.choice("가나다라마바사아자차") for _ in range(300)) for _ in range(12)]
    texts = {}
    for number, text in enumerate(base):
        for copy, changes in enumerate((0, 5, 10, 14, 20)):
            letters = list(text)
            for _ in range(changes):
                letters[draw.randrange(300)] = "하"
            texts[f"{number}-{copy}"] = "".join(letters)
    found = group(texts.items(), threshold=0.7, seed=13)
    sets = {id_: runs(text) for id_, text in texts.items()}
    for one, other in itertools.combinations(texts, 2):
        if len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= 0.7:
            assert found[one] == found[other]
        elif one.split("-")[0] != other.split("-")[0]:
            assert found[one] != found[other]


def test_grouping_is_repeatable_and_ignores_the_order_of_documents() -> None:
    """Same documents and seed, same groups; a group's name is its smallest id."""
    documents = [(f"d{n}", "같은 글을 조금 고친 문서이다. " * 5 + str(n % 3)) for n in range(9)]
    assert group(documents, threshold=0.7, seed=1) == group(documents, threshold=0.7, seed=1)
    assert dict(sorted(group(documents[::-1], threshold=0.7, seed=1).items())) == group(
        documents, threshold=0.7, seed=1
    )
    assert set(group(documents, threshold=0.7, seed=1).values()) == {"d0"}


@given(
    counts=st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 9), max_size=60),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_the_split_holds_out_about_the_share(counts: dict[str, int], share: float, seed: int) -> None:
    """Never more than the share (or one query, or the smallest group), never everything, never an empty group."""
    held_out = split_groups(counts, test_share=share, seed=seed)
    with_queries = {name: count for name, count in counts.items() if count}
    total, held = sum(counts.values()), sum(counts[name] for name in held_out)
    assert held_out <= set(with_queries)
    assert held_out == split_groups(dict(reversed(counts.items())), test_share=share, seed=seed)
    if len(with_queries) > 1:
        assert 0 < len(held_out) < len(with_queries)
        assert held <= max(share * total, 1, min(with_queries.values()))
    else:
        assert not held_out


def test_a_lump_of_near_duplicates_trains() -> None:
    """A group larger than the test part is passed over, and the share is still met."""
    counts = {"lump": 400, **{f"g{n}": 1 for n in range(600)}}
    held_out = split_groups(counts, test_share=0.2, seed=3)
    assert "lump" not in held_out
    assert len(held_out) == 200
