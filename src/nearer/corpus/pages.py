"""Documents from files of their own: Markdown, plain text and HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from nearer.corpus.lines import BadLineError, clean
from nearer.records import Document

SUFFIXES: Final = (".md", ".txt", ".html", ".htm")

_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*\n", re.DOTALL | re.MULTILINE)
_FRONT_TITLE: Final = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)
_FIRST_HEADING: Final = re.compile(r"\A\s*#[ \t]+(\S.*?)[ \t]*#*[ \t]*$", re.MULTILINE)

_DROPPED: Final = frozenset(
    ["script", "style", "noscript", "template", "nav", "header", "footer", "aside", "button", "svg", "iframe"]
)
_BLOCKS: Final = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "body",
        "br",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "thead",
        "tr",
        "ul",
    ]
)
_ARTICLES: Final = frozenset(("article", "main"))
_CELLS: Final = frozenset(("td", "th"))
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}


def read_page(path: Path, *, id_: str, text: str) -> Document:
    """One file as a document. The title is the page's own, else the file's name.

    Raises:
        BadLineError: there is no text in it.
    """
    text = clean(text.replace("\r\n", "\n").replace("\r", "\n"))
    suffix = path.suffix.lower()
    title = ""
    if suffix == ".md":
        title, text = _markdown(text)
    elif suffix in {".html", ".htm"}:
        title, text = _html(text)
    if not text.strip():
        raise BadLineError("no text in it")
    return Document(id=id_, text=text, title=title or clean(path.stem), source=id_)


def _markdown(text: str) -> tuple[str, str]:
    """Title and text; a YAML front matter is dropped, its title kept."""
    title = ""
    if front := _FRONT_MATTER.match(text):
        found = _FRONT_TITLE.search(front[1])
        title = found[2] if found else ""
        text = text[front.end() :]
    heading = _FIRST_HEADING.match(text)
    return title or (heading[1] if heading else ""), text


def _html(text: str) -> tuple[str, str]:
    reader = _PageReader()
    reader.feed(text)
    reader.close()
    return reader.page_title(), reader.page_text()


class _PageReader(HTMLParser):
    """Collects a page's title and its text, headings as Markdown lines, navigation and other boilerplate left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._title: list[str] = []
        self._in_title = False
        self._dropping: list[str] = []
        self._articles = 0  # a header inside one is the article's own and holds its heading
        self._preformatted = 0
        self._heading = 0

    def page_title(self) -> str:
        """The `<title>`, spaces collapsed."""
        return " ".join("".join(self._title).split())

    def page_text(self) -> str:
        """One line a block, at most one blank line between."""
        lines = [line.rstrip() for line in "".join(self._parts).split("\n")]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the parent's name
        """Open a tag."""
        if self._dropping or (tag in _DROPPED and not (tag == "header" and self._articles)):
            if tag in _DROPPED:
                self._dropping.append(tag)
        elif tag == "title":
            self._in_title = True
        elif tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
            self._parts.append("\n" + "#" * self._heading + " ")
        elif tag in _BLOCKS:
            self._articles += tag in _ARTICLES
            self._preformatted += tag == "pre"
            self._parts.append(" " if self._heading else "\n")
        elif tag in _CELLS:
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        """Close a tag; one that was never opened changes nothing."""
        if self._dropping:
            if tag in self._dropping:
                del self._dropping[len(self._dropping) - 1 - self._dropping[::-1].index(tag) :]
        elif tag == "title":
            self._in_title = False
        elif tag in _HEADINGS:
            self._heading = 0
            self._parts.append("\n")
        elif tag in _BLOCKS:
            self._articles = max(0, self._articles - (tag in _ARTICLES))
            self._preformatted = max(0, self._preformatted - (tag == "pre"))
            self._parts.append(" " if self._heading else "\n")

    def handle_data(self, data: str) -> None:
        """Keep a text; spaces collapse as a browser's do, outside of `<pre>`."""
        if self._in_title:
            self._title.append(data)
        elif not self._dropping:
            before = self._parts[-1] if self._parts else "\n"
            if not self._preformatted or self._heading:
                data = re.sub(r"\s+", " ", data)
                data = data.lstrip() if before.endswith(("\n", " ")) else data
            self._parts += [data] if data else []
