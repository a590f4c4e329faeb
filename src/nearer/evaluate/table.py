"""The numbers of a report as people read them: on a terminal, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_SPOKEN: Final = {"RR@10": "MRR@10", "AP": "MAP"}
"""The mean of RR@10 is what people call MRR@10, the mean of AP is MAP."""


def table(report: Mapping[str, Any]) -> str:
    """The whole report for a terminal: what was measured, every system, and what changed.

    Args:
        report: of report.json.
    """
    told = [f"{change['title']}\n{_plain(change['head'], change['rows'])}" for change in changes(report)]
    return "\n\n".join([facts(report), _plain(*systems(report)), *told])


def markdown(report: Mapping[str, Any]) -> str:
    """The same for summary.md."""
    parts = ["# Evaluation", facts(report), _markdown(*systems(report))]
    for change in changes(report):
        parts += [f"## {change['title']}", _markdown(change["head"], change["rows"])]
    return "\n\n".join(parts) + "\n"


def facts(report: Mapping[str, Any]) -> str:
    """How many queries of which origin over how many passages, what P@K can be, and what could not be scored."""
    origins = ", ".join(f"{count} {origin}" for origin, count in report["origins"].items())
    on_documents = report["queries_on_documents"]
    unit = f"; {on_documents} of them judged on whole documents" if on_documents else ""
    attainable = ", ".join(f"{name} {_number(value)}" for name, value in report["attainable"].items())
    lines = [
        f"{report['queries']} test queries ({origins}){unit}, over {report['corpus_size']} passages.",
        f"Attainable at most: {attainable}. MAP looks at the first {report['depth']} results.",
    ]
    empty = {name: system["queries_without_results"] for name, system in report["systems"].items()}
    if any(empty.values()):
        shown = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
        lines.append(f"Queries without any result (they count as 0): {shown}.")
    if report["unscored_queries"]:
        lines.append(f"{report['unscored_queries']} test queries have no relevant target and are not scored.")
    if report["queries_left_out"]:
        lines.append(f"{report['queries_left_out']} test queries were left out by eval.max_queries.")
    contexts = report["ideal_contexts"]
    if contexts and contexts["unlinked"]:
        total = contexts["linked"] + contexts["unlinked"]
        lines.append(
            f"{contexts['unlinked']} of the {total} ideal contexts that the user's files name stand in no document: "
            "no system can find them, and they are not judged."
        )
    return "\n".join(lines)


def systems(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of systems."""
    names = report["measures"]
    rows = [
        [name, *(_number(system["metrics"][measure]) for measure in names)]
        for name, system in report["systems"].items()
    ]
    return ["system", *(_SPOKEN.get(name, name) for name in names)], rows


def changes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changed: the first comparison by every measure, the others by nDCG@10."""
    head = ["before", "after", "change", "95 % interval", "better", "worse", "same"]
    found = []
    main, *others = report["comparisons"] or [None]
    if main:
        title = f"{main['after']} against {main['before']}, relative change (paired bootstrap over groups of documents)"
        rows = [[_SPOKEN.get(name, name), *_row(values)] for name, values in main["measures"].items()]
        found.append({"title": title, "head": ["measure", *head], "rows": rows})
    if others:
        rows = [[f"{one['before']} → {one['after']}", *_row(one["measures"]["nDCG@10"])] for one in others]
        found.append({"title": "The other comparisons, by nDCG@10", "head": ["systems", *head], "rows": rows})
    return found


def _row(values: Mapping[str, Any]) -> list[str]:
    before, after, low, high = (values[name] for name in ("before", "after", "relative_low", "relative_high"))
    interval = "n/a" if low is None or high is None else f"{_percent(low)} … {_percent(high)}"
    counts = [str(values[name]) for name in ("wins", "losses", "ties")]
    return [_number(before), _number(after), _percent(values["relative"]), interval, *counts]


def _number(value: float) -> str:
    """Three decimals without the leading zero: `.434`, `1.000`."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:+.1f} %"


def _plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (head, *rows)
    ]
    return "\n".join([lines[0].rstrip(), "─" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
