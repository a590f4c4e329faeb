"""Which systems there are, and which two the verdict is about."""

from typing import Any

import pytest

from nearer.errors import InputError
from nearer.evaluate.lineup import OWN_EMBEDDER, OWN_RERANKER, Lineup, line_up, roles


def made(
    embedders: str, rerankers: str = "", *, bm25: bool = True, incumbent: str | None = "base", **given: Any
) -> Lineup:
    options: dict[str, Any] = {"baseline": "incumbent", "candidate": None, **given}
    return line_up(embedders.split(), rerankers.split(), bm25=bm25, incumbent=incumbent, **options)


@pytest.mark.parametrize(
    ("line", "baseline", "candidate"),
    [
        (made("base tuned"), "incumbent", "tuned-hybrid"),
        (made("base tuned", "reranker"), "incumbent", "tuned-hybrid+reranker"),
        (made("base tuned", "reranker", reranked=["tuned"]), "incumbent", "tuned-hybrid"),
        (made("base tuned", bm25=False), "base", "tuned"),
        (made("base", "reranker"), "incumbent", "base-hybrid+reranker"),
        (made(f"base tuned {OWN_EMBEDDER}", incumbent=OWN_EMBEDDER), "incumbent", "tuned-hybrid"),
        (made(OWN_EMBEDDER, "reranker", incumbent=OWN_EMBEDDER), "incumbent", f"{OWN_EMBEDDER}-hybrid+reranker"),
        (made("base tuned", f"{OWN_RERANKER}"), "incumbent", f"tuned-hybrid+{OWN_RERANKER}"),
        (made("base tuned", f"{OWN_RERANKER} reranker"), "incumbent", "tuned-hybrid+reranker"),
        (made("tuned", "reranker", incumbent=None), "bm25", "tuned-hybrid+reranker"),
        (made("base"), "incumbent", None),
        (made("base tuned", "reranker", muted=["reranker"]), "incumbent", "tuned-hybrid"),
        (
            made("base tuned", f"{OWN_RERANKER} reranker", muted=["reranker"]),
            "incumbent",
            f"tuned-hybrid+{OWN_RERANKER}",
        ),
        (made("base", "reranker", muted=["reranker"]), "incumbent", "base-hybrid+reranker"),
        (made("tuned", bm25=False, incumbent=None), None, "tuned"),
        (made("base tuned", baseline="bm25", candidate="tuned-rrf"), "bm25", "tuned-rrf"),
    ],
)
def test_the_verdict_is_about_what_is_in_use_and_what_would_be(
    line: Lineup, baseline: str | None, candidate: str | None
) -> None:
    """The incumbent with the tuned models in the place of its own; what else there is where there is no incumbent."""
    assert (line.baseline, line.candidate) == (baseline, candidate)


def test_every_system_has_a_name_of_its_own_and_its_retriever_exists() -> None:
    """Names are file names; none is used twice."""
    line = made(f"base tuned other {OWN_EMBEDDER}", f"{OWN_RERANKER} base_reranker reranker", incumbent=OWN_EMBEDDER)
    names = [entry.name for entry in line.entries]
    assert len(names) == len(set(names))
    assert {entry.retriever for entry in line.entries} == {retriever.name for retriever in line.retrievers}
    assert not any("/" in name for name in names)


def test_the_primary_comparison_comes_first_and_nothing_is_compared_twice() -> None:
    """Every reranker against its own list; every further model against the tuned one."""
    pairs = made("base tuned other", "base_reranker reranker").pairs()
    assert pairs[0] == ("incumbent", "tuned-hybrid+reranker")
    assert len(pairs) == len(set(pairs))
    assert {("base", "tuned"), ("bm25", "tuned"), ("other", "tuned"), ("tuned", "tuned+reranker")} <= set(pairs)
    assert ("incumbent", "base-hybrid+reranker") in pairs  # that retriever without a reranker
    assert ("tuned+base_reranker", "tuned+reranker") in pairs


def test_a_muted_reranker_is_compared_with_nothing() -> None:
    """Its lists are those that it was given: a comparison would only make the others' corrected p-values larger."""
    line = made("base tuned", "base_reranker reranker", muted=["reranker"])
    assert line.entry("tuned+reranker")
    assert not any("+reranker" in name for pair in line.pairs() for name in pair)
    assert ("tuned", "tuned+base_reranker") in line.pairs()


def test_only_the_lists_that_are_named_are_reranked() -> None:
    """A CPU pays for every pair; a misspelling is refused before it does."""
    line = made("base tuned", "base_reranker reranker", reranked=["tuned", "tuned-hybrid"])
    assert {entry.retriever for entry in line.entries if entry.reranker} == {"tuned", "tuned-hybrid"}
    assert line.entry("tuned-hybrid+reranker")
    with pytest.raises(InputError, match=r"tuned_hybrid.*no such retriever"):
        made("base tuned", "reranker", reranked=["tuned_hybrid"])


def test_a_name_that_is_no_system_is_refused_with_those_that_are() -> None:
    """A misspelling must not end in another comparison."""
    with pytest.raises(InputError, match=r"eval\.verdict\.baseline is 'bm52'") as caught:
        made("base tuned", baseline="bm52")
    assert "bm25, base, incumbent" in str(caught.value)


def test_further_models_are_named_by_the_last_part_of_their_names() -> None:
    """Plain words, no two the same, none that has a meaning already."""
    found = roles(["intfloat/multilingual-E5-large", "/models/tuned/", "other/multilingual-e5-large"])
    assert found == {
        "multilingual_e5_large": "intfloat/multilingual-E5-large",
        "tuned_2": "/models/tuned/",
        "multilingual_e5_large_2": "other/multilingual-e5-large",
    }
