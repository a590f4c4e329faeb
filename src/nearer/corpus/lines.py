"""Files of the user's, read to the end whatever their lines are; the bad ones are counted and shown together."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nearer.errors import InputError

_SHOWN: Final = 5
_SNIPPET: Final = 60
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_UTF8_BOM: Final = b"\xef\xbb\xbf"


class BadLineError(Exception):
    """One line (or file of a folder) cannot be read; the message says why."""


class BadLines:
    """The lines that could not be read: how many, and the first few in words.

    Args:
        source: the file or folder, as the error names it.
        forms: the forms that are read here, as the error explains them.
        max_bad_lines: so many are passed over without an error.
    """

    def __init__(self, source: Path, *, forms: str, max_bad_lines: int = 0) -> None:
        self.source = source
        self.forms = forms
        self.max_bad_lines = max_bad_lines
        self.count = 0
        self.read = 0
        self._encoding: str | None = None
        self._shown: list[str] = []

    def add(self, where: str, reason: str, snippet: str = "", *, encoding: str | None = None) -> None:
        """Count one bad line. `encoding` is what it seems to be written in, if not UTF-8."""
        self.count += 1
        self._encoding = self._encoding or encoding
        if len(self._shown) < _SHOWN:
            shown = " ".join(_CONTROL.sub("·", snippet).split())
            shown = shown if len(shown) <= _SNIPPET else shown[: _SNIPPET - 1] + "…"
            self._shown.append(f"{where}: {reason}" + (f": {shown}" if shown else ""))

    def settle(self, *, what: str) -> None:
        """Judge what was read, at its end.

        Args:
            what: what the file should have held ("documents", "queries").

        Raises:
            InputError: there are more bad lines than allowed, or nothing was read at all.
        """
        if self.count > self.max_bad_lines:
            total = self.count + self.read
            more = [f"… and {self.count - len(self._shown)} more"] if self.count > len(self._shown) else []
            way_out = "correct or remove these" if self.read else "bring it into one of these forms, or name another"
            if self._encoding:
                way_out = f"save as UTF-8: iconv -f {self._encoding} -t UTF-8 {self.source} > new-file"
            raise InputError(
                f"{self.count} of {total} entries of {self.source} cannot be read\n    "
                + "\n    ".join(self._shown + more),
                where=str(self.source),
                rule=self.forms,
                way_out=way_out,
            )
        if not self.read:
            raise InputError(
                f"{self.source} holds no {what}", where=str(self.source), rule=self.forms, way_out="name another file"
            )


def require(path: Path) -> None:
    """Raise InputError unless the file or folder is there."""
    if not path.exists():
        raise InputError(
            f"{path} is not there", where=str(path), rule="the file or folder must exist", way_out="correct the path"
        )


def json_lines(path: Path, bad: BadLines) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The JSON objects of a file, one a line, with the place of each (`file:line`). Blank lines are passed over.

    Raises:
        InputError: the file is not there, or is UTF-16.
    """
    require(path)
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            where = f"{path}:{number}"
            try:
                text = decode(raw, first=number == 1, where=str(path))
            except UnicodeDecodeError as error:
                bad.add(where, undecodable(error), raw.decode("utf-8", "replace"), encoding=guess_encoding(raw))
                continue
            if not text.strip():
                continue
            try:
                yield where, _object(text)
            except BadLineError as error:
                bad.add(where, str(error), text)


def decode(raw: bytes, *, first: bool, where: str) -> str:
    """UTF-8 bytes as text; a byte order mark at the start of a file is dropped.

    Raises:
        InputError: the file starts like UTF-16.
        UnicodeDecodeError: not UTF-8.
    """
    if first and raw.startswith(_UTF16):
        raise InputError(
            f"{where} is UTF-16",
            where=where,
            rule="files are UTF-8",
            way_out=f"save as UTF-8: iconv -f UTF-16 -t UTF-8 {where} > new-file",
        )
    return raw.removeprefix(_UTF8_BOM if first else b"").decode("utf-8")


def undecodable(error: UnicodeDecodeError) -> str:
    """Why bytes are not UTF-8: which byte, at which place (counted from 1)."""
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at byte {error.start + 1})"


def guess_encoding(raw: bytes) -> str:
    """CP949, the usual Korean one, when the bytes read as Hangul in it; else LATIN1."""
    try:
        text = raw.decode("cp949")
    except UnicodeDecodeError:
        return "LATIN1"
    foreign = [character for character in text if ord(character) > 127]
    hangul = sum("가" <= character <= "힣" for character in foreign)
    return "CP949" if foreign and hangul >= len(foreign) / 2 else "LATIN1"


def clean(text: str) -> str:
    """The text in NFC, NUL and other control characters replaced by spaces.

    Korean file systems and PDF extraction give decomposed jamo and stray controls; both break tokenizers silently.

    Raises:
        BadLineError: half a surrogate pair, which no UTF-8 file can hold.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise BadLineError(f"half a character (\\u{half:04x}) at character {error.start + 1} of a text") from error
    return _CONTROL.sub(" ", unicodedata.normalize("NFC", text))


def get_text(row: Mapping[str, Any], key: str, *, optional: bool = False) -> str:
    """The cleaned text under a key; "" for an optional one that is absent or null.

    Raises:
        BadLineError: absent, not a text, or empty.
    """
    value = row.get(key)
    if optional and value is None:
        return ""
    if not isinstance(value, str):
        raise BadLineError(f"`{key}` must be a text, it is {_kind(value)}" if key in row else f"no `{key}`")
    text = clean(value)
    if not text.strip() and not optional:
        raise BadLineError(f"`{key}` is empty")
    return text


def get_id(row: Mapping[str, Any], key: str) -> str:
    """The id under a key: a text or an integer, without tabs and line breaks (judgments are tab-separated).

    Raises:
        BadLineError: it is none of these.
    """
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    id_ = get_text(row, key).strip()
    if any(character in id_ for character in "\t\n\r"):
        raise BadLineError(f"`{key}` holds a tab or a line break")
    return id_


def get_texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The non-empty texts under a key that holds a list of texts, one text, or nothing.

    Raises:
        BadLineError: it holds something else.
    """
    value = row.get(key)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise BadLineError(f"`{key}` must be a list of texts")
    return tuple(text for item in values if (text := clean(item)).strip())


def _object(text: str) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except RecursionError as error:
        raise BadLineError("JSON nested too deep") from error
    except ValueError as error:
        raise BadLineError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadLineError(f"a JSON object is expected, this is {_kind(row)}")
    return row


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
