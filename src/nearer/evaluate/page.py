"""report.html: one page that needs nothing else, light or dark as its reader has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from nearer.evaluate.table import changes, facts, systems

_STYLE: Final = """
:root { color-scheme: light dark; --ink: light-dark(#1a2233, #e6e9f0); --soft: light-dark(#5b667a, #9aa5b8);
  --ground: light-dark(#fbfbfd, #12161e); --line: light-dark(#e1e5ec, #2b3341); --band: light-dark(#f0f4fb, #1b2330);
  --up: light-dark(#0a7a4b, #4fd39a); --down: light-dark(#b3312c, #ff8f88); }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { color: var(--soft); margin: 0 0 .3rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody tr:hover { background: var(--band); }
.best { font-weight: 700; } .up { color: var(--up); } .down { color: var(--down); }
"""


def page(report: Mapping[str, Any]) -> str:
    """The page of a report.

    Args:
        report: of report.json.
    """
    head, rows = systems(report)
    best = [max((row[column] for row in rows), key=float) for column in range(1, len(head))]
    marked = [
        [(row[0], ""), *((cell, "best" if cell == top else "") for cell, top in zip(row[1:], best, strict=True))]
        for row in rows
    ]
    parts = [f"<p>{escape(line)}</p>" for line in facts(report).splitlines()]
    parts += ["<h2>Systems</h2>", _table(head, marked)]
    for change in changes(report):
        coloured = [
            [(cell, _direction(change["head"][column], row)) for column, cell in enumerate(row)]
            for row in change["rows"]
        ]
        parts += [f"<h2>{escape(change['title'])}</h2>", _table(change["head"], coloured)]
    models = [
        [(role, ""), (model["name"], ""), (model["fingerprint"][:12], "")] for role, model in report["models"].items()
    ]
    parts += ["<h2>Models</h2>", _table(["role", "model", "fingerprint"], models, kind="words")] if models else []
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evaluation</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Evaluation</h1>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _direction(column: str, row: Sequence[str]) -> str:
    """Colour the change only where its interval leaves out zero."""
    if column != "change":
        return ""
    ends = {end.strip()[:1] for end in row[4].split("…")}
    return "up" if ends == {"+"} else "down" if ends == {"-"} else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]], kind: str = "figures") -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{escape(cell)}</td>' if kind else f"<td>{escape(cell)}</td>" for cell, kind in row
        )
        + "</tr>"
        for row in rows
    )
    table = f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="scroll"><table class="{kind}">\n{table}\n</table></div>'
