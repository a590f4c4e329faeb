"""The numbers of a report as people read them: on a terminal, in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

SPOKEN: Final = {"RR@10": "MRR@10", "AP": "MAP", "Rprec": "R-prec"}
"""The mean of RR@10 is what people call MRR@10, the mean of AP is MAP."""
_WIDTH: Final = 100


def table(report: Mapping[str, Any]) -> str:
    """A terminal's view: what was measured, the systems, and the verdict last, where the eye is.

    Args:
        report: of report.json.
    """
    head, rows = systems(report)
    shown = [row for row in rows if row[0] in _shown(report)]
    more = len(rows) - len(shown)
    told = plain(head, shown) + (f"\n{more} more systems are in the report." if more else "")
    return "\n\n".join([facts(report), told, *_snippets(report, plain), verdict(report)])


def markdown(report: Mapping[str, Any]) -> str:
    """summary.md: the verdict first, because a reader of CI may stop there."""
    decided = report["verdict"]
    marks = {"ship": "✅", "do not ship": "❌", "inconclusive": "❔"}
    parts = [
        f"# {marks[decided['decision']]} Verdict: {decided['decision']}",
        "\n".join(f"- {one}" for one in decided["reasons"]),
    ]
    rows = [[one["name"], one["state"], one["sentence"]] for one in decided["checks"]]
    parts += ["## Checks", _markdown(["check", "state", "what was seen"], rows, numbers=False)]
    parts += ["## Systems", facts(report), _markdown(*systems(report))]
    parts += _snippets(report, _markdown)
    for change in changes(report):
        parts += [f"## {change['title']}", _markdown(change["head"], change["rows"])]
    return "\n\n".join(parts) + "\n"


def verdict(report: Mapping[str, Any]) -> str:
    """The decision and its reasons, wrapped."""
    decided = report["verdict"]
    lines = [
        line
        for one in decided["reasons"]
        for line in textwrap.wrap(one, _WIDTH - 2, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    ]
    return "\n".join([f"verdict: {decided['decision']}", *lines])


def facts(report: Mapping[str, Any]) -> str:
    """How many queries of which origin over how many passages, what can be reached, and what could not be scored."""
    origins = ", ".join(f"{count} {origin}" for origin, count in report["origins"].items())
    on_documents = report["queries_on_documents"]
    unit = f"; {on_documents} of them judged on whole documents" if on_documents else ""
    attainable = ", ".join(f"{name} {number(value)}" for name, value in report["attainable"].items() if value < 1)
    counted = (
        f"{report['queries']} test queries ({origins}){unit}; "
        f"{report['groups']} groups of documents, {report['corpus_size']} passages."
    )
    lines = [
        counted,
        (f"Attainable at most: {attainable}. " if attainable else "")
        + f"MAP looks at the first {report['depth']} results.",
    ]
    if len(report["queries_by_population"]) > 1 and report["population"] != "all":
        lines.append(f"The columns are means over the {report['population']} queries, unless they say otherwise.")
    if report["incumbent"]:
        lines.append(f"incumbent: {_incumbent(report)}.")
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
    """Head and rows of the table of systems: few columns, chosen; report.json has all.

    Recall and precision at the largest K and recall at the smallest, and the verdict's measure for real and for
    synthetic queries where there are both.
    """
    measures = report["measures"]
    recalls = [name for name in measures if name.startswith("R@")]
    precisions = [name for name in measures if name.startswith("P@")]
    hits = [name for name in measures if name.startswith("Success@")]
    wanted = [*dict.fromkeys([recalls[0], recalls[-1]]), precisions[-1], hits[-1], "RR@10", "nDCG@10", "AP"]
    kinds = list(report["queries_by_population"]) if len(report["queries_by_population"]) > 1 else []
    main = report["rules"]["measure"]
    head = ["system", *(spoken(name) for name in wanted), *(f"{spoken(main)} {kind}" for kind in kinds)]
    rows = [
        [
            name,
            *(number(system["metrics"].get(measure)) for measure in wanted),
            *(number(system["by_population"][kind].get(main)) for kind in kinds),
        ]
        for name, system in report["systems"].items()
    ]
    return head, rows


def changes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changed: the primary comparison by every measure, the others by the verdict's measure."""
    head = ["before", "after", "points", "relative", "95 % interval", "better", "worse", "same", "p"]
    head[4] = f"{100 * report['rules']['confidence']:g} % interval of points"
    measure = report["rules"]["measure"]
    found = []
    pair = (report["baseline"], report["candidate"])
    main = next((one for one in report["comparisons"] if (one["before"], one["after"]) == pair), None)
    others = [one for one in report["comparisons"] if one is not main]
    if main:
        title = f"{main['after']} against {main['before']}, on {report['population']} queries"
        rows = [[spoken(name), *_row(values)] for name, values in main["measures"].items()]
        found.append({"title": title, "head": ["measure", *head], "rows": rows})
    if others:
        rows = [
            [f"{one['before']} → {one['after']}", *_row(one["measures"][measure]), _p(one["p_value_holm"])]
            for one in others
        ]
        found.append(
            {
                "title": f"The other comparisons, by {spoken(measure)}",
                "head": ["systems", *head, "p, Holm"],
                "rows": rows,
            }
        )
    return found


def spoken(measure: str) -> str:
    """A measure as people call it."""
    return SPOKEN.get(measure, measure.replace("Success", "hit"))


def number(value: float | None) -> str:
    """Three decimals without the leading zero: `.434`, `1.000`."""
    if value is None:
        return "n/a"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (head, *rows)
    ]
    return "\n".join([lines[0].rstrip(), "─" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def _shown(report: Mapping[str, Any]) -> set[str]:
    """The systems that a terminal shows: those that the verdict looks at, the tuned reranker, and models alone.

    A reranker of weight 0 leaves a list as it is: nothing is shown twice for it.
    """
    systems, candidate = report["systems"], report["candidate"]
    alone = {
        name for name, one in systems.items() if name == one["retriever"] and not name.endswith(("-hybrid", "-rrf"))
    }
    whole = systems[candidate]["retriever"] if candidate else None
    without = {name for name, one in systems.items() if one["retriever"] == whole and one["reranker"] is None}
    counts = report["rerank_weights"].get("reranker") != 0
    reranked = {"tuned+reranker"} if counts else set()
    return {"incumbent", candidate, report["baseline"]} | reranked | alone | without


def _incumbent(report: Mapping[str, Any]) -> str:
    """What is in use today, in words."""
    today = report["incumbent"]
    role = today["retriever"].removesuffix("-hybrid")
    words = f"the {role} embedder" if role == "base" else "today's embedder"
    if today["retriever"].endswith("-hybrid"):
        words += f" and BM25, weighted {report['alpha']:g} to {1 - report['alpha']:g}"
    return words + (", then today's reranker" if today["reranker"] else "")


def _snippets(report: Mapping[str, Any], form: Any) -> list[str]:
    found = report["snippets"]
    if not found or not found["queries_scored"]:
        return []
    names = list(next(iter(found["systems"].values())))
    rows = [[name, *(number(values[measure]) for measure in names)] for name, values in found["systems"].items()]
    told = (
        f"By snippet, as the guide counts: {found['snippets']} ideal contexts of {found['queries']} queries, "
        f"{found['unlinked']} of them stand in no document and are left out."
    )
    return [told, form(["system", *names], rows)]


def _row(values: Mapping[str, Any]) -> list[str]:
    low, high = values["low"], values["high"]
    interval = "n/a" if low is None or high is None else f"{100 * low:+.1f} … {100 * high:+.1f}"
    counts = [str(values[name]) for name in ("wins", "losses", "ties")]
    change = [f"{100 * values['difference']:+.1f}", percent(values["relative"]), interval]
    return [number(values["before"]), number(values["after"]), *change, *counts, _p(values["p_value"])]


def percent(value: float | None) -> str:
    """`+8.2 %`."""
    return "n/a" if value is None else f"{100 * value:+.1f} %"


def _p(value: float | None) -> str:
    return "" if value is None else number(value) if value >= 0.001 else "<.001"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
