"""Pages of text, Markdown and HTML as documents."""

from pathlib import Path

import pytest

from nearer.corpus.pages import read_page


def page(name: str, text: str) -> tuple[str, str]:
    document = read_page(Path(name), id_=name, text=text)
    return document.title, document.text


def test_html_keeps_headings_and_text_and_drops_boilerplate() -> None:
    """Headings become Markdown lines, blocks lines, spaces collapse; menus, scripts and footers are gone."""
    html = """<!doctype html><html><head><title>반품 &amp; 환불</title><style>p {}</style></head><body>
    <header>로고</header><nav><ul><li>메뉴</li></ul></nav>
    <main><header><h1>반품</h1></header><p>일주일   안에
    보낸다.</p><h2>비용 <b>부담</b></h2><ul><li>고객</li><li>회사</li></ul>
    <table><tr><th>지역</th><th>값</th></tr><tr><td>제주</td><td>5천 원</td></tr></table><pre>a
      b</pre></main><script>var x = "<p>";</script><footer>주소</footer></body></html>"""
    title, text = page("x.html", html)
    assert title == "반품 & 환불"
    assert text == (
        "# 반품\n\n일주일 안에 보낸다.\n\n## 비용 부담\n\n고객\n\n회사\n\n지역 값\n\n제주 5천 원\n\na\n      b"
    )


def test_unclosed_and_stray_tags_do_no_harm() -> None:
    """The HTML that people have."""
    title, text = page("x.htm", "</nav><p>하나<p>둘<br>셋</div><nav>메뉴<nav>속</nav></nav>넷")
    assert (title, text) == ("x", "하나\n둘\n셋\n넷")


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        ("# 제목 #\n본문", "제목", "# 제목 #\n본문"),
        ("---\ntitle: 앞글\ntags: [a]\n---\n본문", "앞글", "본문"),
        ("본문\n# 나중 제목", "x", "본문\n# 나중 제목"),
        ("--- 줄\n본문", "x", "--- 줄\n본문"),
    ],
)
def test_markdown_titles_come_from_front_matter_or_the_first_heading(text: str, title: str, rest: str) -> None:
    """Else from the file's name; the text loses the front matter only."""
    assert page("x.md", text) == (title, rest)
