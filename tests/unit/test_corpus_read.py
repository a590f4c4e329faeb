"""Documents of every form that is read, and the words for those that are not."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from nearer.corpus.read import read_documents
from nearer.errors import InputError
from nearer.records import Document

GUIDE = {"docid": "a", "src": "handbook", "title": "휴가", "content": "연차는 열다섯 날이다."}


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read_documents(path))
    assert caught.value.rule
    assert caught.value.way_out
    assert caught.value.where
    return str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        GUIDE,
        {"_id": "a", "title": "휴가", "text": "연차는 열다섯 날이다.", "metadata": {}},
        {"id": "a", "title": "휴가", "text": "연차는 열다섯 날이다."},
    ],
    ids=["guide", "beir", "generic"],
)
def test_each_form_of_lines_gives_the_same_document(tmp_path: Path, row: dict[str, object]) -> None:
    """The guide's, BEIR's and plain lines differ in names only."""
    (document,) = read_documents(write(tmp_path / "d.jsonl", row))
    assert (document.id, document.title, document.text) == ("a", "휴가", "연차는 열다섯 날이다.")


def test_a_beir_directory_is_read_by_its_corpus(tmp_path: Path) -> None:
    """A directory that holds corpus.jsonl is BEIR, whatever else is in it."""
    write(tmp_path / "corpus.jsonl", {"_id": 7, "text": "본문이다."})
    (tmp_path / "notes.md").write_text("# 아님", encoding="utf-8")
    assert [document.id for document in read_documents(tmp_path)] == ["7"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1. 무엇입니까?", "2) 언제요?", "③ 어디서?"], ("무엇입니까?", "언제요?", "어디서?")),
        (["1.5배는 언제 주나요?", "3개월 뒤에는?"], ("1.5배는 언제 주나요?", "3개월 뒤에는?")),
        ("1. 무엇입니까?\n2. 언제요?", ("무엇입니까?", "언제요?")),
        ([], ()),
        (None, ()),
    ],
)
def test_hypothetical_questions_lose_their_numbers_and_nothing_else(
    tmp_path: Path, written: object, expected: tuple[str, ...]
) -> None:
    """Numbering is stripped; a number that belongs to the question stays."""
    (document,) = read_documents(write(tmp_path / "d.jsonl", {**GUIDE, "hypothetical_questions": written}))
    assert document.questions == expected


def test_text_comes_out_composed_and_without_controls(tmp_path: Path) -> None:
    """Decomposed jamo of macOS, NUL characters and a byte order mark are put right."""
    path = tmp_path / "d.jsonl"
    row = {"docid": unicodedata.normalize("NFD", "가나"), "content": unicodedata.normalize("NFD", "휴가") + "\u0000끝"}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    assert list(read_documents(path)) == [Document(id="가나", text="휴가 끝")]


def test_a_bad_line_is_shown_with_its_place_after_all_others_are_read(tmp_path: Path) -> None:
    """Line 4017 is named; the good lines before and behind it came out first."""
    rows: list[object] = [{**GUIDE, "docid": f"d{number}"} for number in range(4100)]
    rows[4016] = '{"docid": "x", "content": '
    seen: list[str] = []
    with pytest.raises(InputError, match=r"1 of 4100 entries") as caught:
        seen.extend(document.id for document in read_documents(write(tmp_path / "d.jsonl", *rows)))
    assert "d.jsonl:4017: not JSON" in str(caught.value)
    assert "`docid` and `content`" in str(caught.value)


def test_only_the_first_few_bad_lines_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    """A thousand bad lines do not fill the screen."""
    text = error_of(write(tmp_path / "d.jsonl", GUIDE, *["{"] * 1000))
    assert "1000 of 1001" in text
    assert "… and 995 more" in text
    assert len(text.splitlines()) < 12


def test_allowed_bad_lines_are_passed_over(tmp_path: Path) -> None:
    """`max_bad_lines` is a limit, not a switch."""
    path = write(tmp_path / "d.jsonl", GUIDE, "{", "[]")
    assert [document.id for document in read_documents(path, max_bad_lines=2)] == ["a"]
    with pytest.raises(InputError):
        list(read_documents(path, max_bad_lines=1))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GUIDE, "content": " \n "}, "`content` is empty"),
        ({**GUIDE, "content": 5}, "`content` must be a text, it is a number"),
        ({**GUIDE, "docid": "a\tb"}, "tab"),
        ({**GUIDE, "docid": True}, "true or false"),
        ({**GUIDE, "content": "짝 \ud83d 없음"}, "half a character"),
        ({"eval_id": "q", "msg": []}, "a query, not a document"),
        ({"foo": 1}, "none of `docid`, `_id`, `id` among its keys (`foo`)"),
        ("[1, 2]", "a JSON object is expected"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, row: object, reason: str) -> None:
    """Each kind of bad line has its reason and its place."""
    line = row if isinstance(row, str) else json.dumps(row)  # escapes: a lone surrogate has no UTF-8
    text = error_of(write(tmp_path / "d.jsonl", {**GUIDE, "docid": "good"}, line))
    assert "d.jsonl:2" in text
    assert reason in text


def test_duplicate_ids_are_named_with_both_lines(tmp_path: Path) -> None:
    """The second line and the first one that has the id."""
    text = error_of(write(tmp_path / "d.jsonl", GUIDE, {**GUIDE, "docid": "b"}, GUIDE))
    assert "d.jsonl:3: duplicate id 'a', first at " in text
    assert "d.jsonl:1" in text


@pytest.mark.parametrize(
    ("encoding", "word", "advice"),
    [("latin-1", "café", "iconv -f LATIN1"), ("cp949", "한글 문서", "iconv -f CP949")],
)
def test_other_encodings_are_told_by_byte_and_way_out(tmp_path: Path, encoding: str, word: str, advice: str) -> None:
    """Line, byte, and how to convert the file."""
    path = tmp_path / "d.jsonl"
    row = json.dumps({"docid": "x", "content": word}, ensure_ascii=False)
    path.write_bytes(json.dumps(GUIDE).encode() + b"\n" + row.encode(encoding))
    text = error_of(path)
    assert "d.jsonl:2: not UTF-8 (byte 0x" in text
    assert advice in text


def test_utf16_is_told(tmp_path: Path) -> None:
    """A file that Windows saved as Unicode."""
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(GUIDE).encode("utf-16"))
    assert "iconv -f UTF-16" in error_of(path)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_text(""), "holds no documents"),
        (lambda path: path.write_text("\n \n"), "holds no documents"),
        (lambda path: path.mkdir(), "holds no documents"),
    ],
    ids=["missing", "empty", "blank", "empty folder"],
)
def test_nothing_to_read_is_told(tmp_path: Path, prepare: Callable[[Path], object], words: str) -> None:
    """Missing and empty files and folders."""
    path = tmp_path / "d.jsonl"
    prepare(path)
    assert words in error_of(path)


def test_a_folder_of_pages_is_read_in_order_of_path(tmp_path: Path) -> None:
    """Markdown, text and HTML at any depth; hidden files and others are passed over."""
    pages = {
        "b/규정.md": "---\ntitle: '휴가 규정'\n---\n# 연차\n열다섯 날이다.\n",
        "a.txt": "그냥 글이다.",
        "c.HTML": "<title>환불</title><p>일주일 안에 한다.",
        ".hidden/x.md": "숨김",
        "b/.x.md": "숨김",
        "b/image.png": "아님",
    }
    for name, text in pages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    read = [(document.id, document.title, document.text.strip()) for document in read_documents(tmp_path)]
    assert read == [
        ("a.txt", "a", "그냥 글이다."),
        ("b/규정.md", "휴가 규정", "# 연차\n열다섯 날이다."),
        ("c.HTML", "환불", "일주일 안에 한다."),
    ]


def test_bad_pages_are_counted_like_bad_lines(tmp_path: Path) -> None:
    """Empty, binary and foreign files are named together."""
    (tmp_path / "empty.md").write_text("---\ntitle: x\n---\n")
    (tmp_path / "binary.txt").write_bytes(b"a\x00b")
    (tmp_path / "old.txt").write_bytes("한글".encode("cp949"))
    text = error_of(tmp_path)
    assert "3 of 3 entries" in text
    for words in ("empty.md: no text in it", "binary.txt: holds NUL bytes", "old.txt: not UTF-8", "CP949"):
        assert words in text
