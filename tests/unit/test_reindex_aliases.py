import json
from pathlib import Path

import pytest

from nearer.errors import ArtifactCorrupt, InputError
from nearer.reindex.aliases import StoreAliases
from nearer.store import open_store


@pytest.fixture
def aliases(workdir: Path) -> StoreAliases:
    """Aliases of an index in an empty store."""
    return StoreAliases(open_store("."), "idx/")


def test_an_unknown_alias_points_nowhere(aliases: StoreAliases) -> None:
    """Before the first switch there is neither a current nor a previous generation."""
    assert (aliases.current("current"), aliases.previous("current")) == (None, None)


def test_switching_remembers_the_way_back(aliases: StoreAliases) -> None:
    """After two switches the file names both generations, and going back ends at the first."""
    aliases.switch("current", "one")
    aliases.switch("current", "two")
    written = json.loads(Path("idx/aliases/current.json").read_text(encoding="utf-8"))
    assert (written["generation"], written["previous"]) == ("two", "one")
    assert aliases.back("current") == "one"
    assert (aliases.current("current"), aliases.previous("current")) == ("one", None)


def test_switching_again_to_an_older_generation_makes_no_loop(aliases: StoreAliases) -> None:
    """A generation stands once in the history, at its latest place."""
    for name in ("one", "two", "one"):
        aliases.switch("current", name)
    assert (aliases.current("current"), aliases.previous("current")) == ("one", "two")
    assert aliases.back("current") == "two"
    with pytest.raises(InputError, match="only ever pointed to two"):
        aliases.back("current")


def test_aliases_do_not_know_each_other(aliases: StoreAliases) -> None:
    """Moving one alias leaves the other where it is."""
    aliases.switch("current", "one")
    aliases.switch("next", "two")
    assert (aliases.current("current"), aliases.current("next")) == ("one", "two")


def test_going_back_without_an_alias_says_so_and_names_the_place(aliases: StoreAliases) -> None:
    """The error says that there is no alias, where it would be, and what to do."""
    with pytest.raises(InputError) as caught:
        aliases.back("current")
    assert "'current' does not exist" in str(caught.value)
    assert str(Path("idx/aliases/current.json").resolve()) in str(caught.value)
    assert "nearer reindex" in str(caught.value)


def test_a_broken_alias_file_is_an_error_and_no_empty_history(aliases: StoreAliases) -> None:
    """A file that is no alias file is told, not taken for a missing one."""
    Path("idx/aliases").mkdir(parents=True)
    Path("idx/aliases/current.json").write_text('{"generation": "one"}', encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match="not an alias file"):
        aliases.current("current")
