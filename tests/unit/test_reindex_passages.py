import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.errors import InputError
from nearer.records import Passage
from nearer.reindex.passages import read_passages, read_shards, write_passages

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PASSAGES = st.lists(
    st.builds(Passage, id=TEXT, document_id=TEXT, text=TEXT, title=TEXT, path=st.lists(TEXT, max_size=3).map(tuple)),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(PASSAGES, st.integers(1, 5))
def test_passages_come_back_as_they_were_written_in_shards_of_the_asked_size(
    passages: list[Passage], size: int
) -> None:
    """Line separators, quotes and any script survive, and shards cut the order without a gap."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "passages.jsonl"
        write_passages(passages, path)
        assert list(read_passages(path)) == passages
        shards = list(read_shards(path, size))
    assert [passage for shard in shards for passage in shard] == passages
    assert all(len(shard) == size for shard in shards[:-1])


def test_a_broken_stream_leaves_no_file(tmp_path: Path) -> None:
    """When reading the documents fails half-way, nothing stands there that a resume would take for the whole."""

    def broken():
        yield Passage(id="a", document_id="a", text="가")
        raise InputError("line 2 is bad")

    with pytest.raises(InputError, match="line 2"):
        write_passages(broken(), tmp_path / "passages.jsonl")
    assert not (tmp_path / "passages.jsonl").exists()


def test_no_passage_at_all_is_an_error(tmp_path: Path) -> None:
    """Documents without any text make no empty index."""
    with pytest.raises(InputError, match="no text to index"):
        write_passages([], tmp_path / "passages.jsonl")
