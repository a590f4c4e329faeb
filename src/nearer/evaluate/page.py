"""report.html: one page that needs nothing else, light or dark as its reader has it, and readable on paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nearer.evaluate import table

_CURVES: Final = 6


@dataclass(frozen=True, kw_only=True)
class Background:
    """Where a report comes from: the tree of what went in, what `generate` says of the data, and the settings."""

    lineage: Sequence[str]
    audit: Mapping[str, Any]
    settings: Mapping[str, Any]


def page(
    report: Mapping[str, Any],
    *,
    speed: Mapping[str, Any] | None,
    cases: Mapping[str, Any],
    per_query: Mapping[str, Mapping[str, float]],
    background: Background,
) -> str:
    """The page of a report.

    Args:
        report: of report.json.
        speed: of speed.json; None if nothing was timed.
        cases: single queries, see `cases.cases`; empty if nothing was compared.
        per_query: the verdict's measure, by system and query.
        background: where the report comes from.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nearer.evaluate", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    head, rows = table.systems(report)
    text = environment.get_template("report.html.jinja").render(
        report=report,
        facts=table.facts(report).splitlines(),
        systems={"head": head, "rows": rows, "best": _best(rows)},
        measures={
            "head": ["system", *(table.spoken(name) for name in report["measures"])],
            "rows": [
                [name, *(table.number(one["metrics"].get(measure)) for measure in report["measures"])]
                for name, one in report["systems"].items()
            ],
        },
        changes=table.changes(report),
        slices=_slices(report),
        snippets=_snippets(report),
        speed=_speed(speed) if speed else [],
        machine=speed,
        cases=cases,
        figures=_figures(report, per_query),
        number=table.number,
        measure=table.spoken(report["rules"]["measure"]),
        audit=_audit(background.audit),
        lineage="\n".join(background.lineage),
        settings=json.dumps(background.settings, ensure_ascii=False, indent=2),
    )
    return text.strip() + "\n"


def _best(rows: Sequence[Sequence[str]]) -> list[str]:
    """The highest cell of each column but the first."""
    columns = list(zip(*rows, strict=True))[1:]
    return [max((cell for cell in column if cell != "n/a"), key=float, default="") for column in columns]


def _figures(report: Mapping[str, Any], per_query: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    from markupsafe import Markup

    from nearer.evaluate import plots

    rules, measure = report["rules"], table.spoken(report["rules"]["measure"])
    pair = (report["baseline"], report["candidate"])
    kinds = {report["population"]: report["comparisons"], **report["comparisons_by_population"]}

    def row(change: Mapping[str, Any], label: str) -> dict[str, Any]:
        values = change["measures"][rules["measure"]]
        return {"label": label, **{name: values[name] for name in ("difference", "low", "high")}}

    def is_primary(change: Mapping[str, Any]) -> bool:
        return (change["before"], change["after"]) == pair

    main = [row(one, f"{kind} queries") for kind, found in kinds.items() for one in found if is_primary(one)]
    others = [row(one, f"{one['before']} → {one['after']}") for one in report["comparisons"] if not is_primary(one)]
    wanted = [name for name in dict.fromkeys((*pair, "bm25", "base", "tuned", *report["systems"])) if name in per_query]
    ks = sorted(int(name[2:]) for name in report["measures"] if name.startswith("R@"))
    found: dict[str, str | None] = {"primary": None, "others": None, "curves": None, "scatter": None, "embedders": None}
    options = {"minimum": rules["minimum_effect"], "measure": measure}
    if main:
        found["primary"] = plots.intervals(main, **options, name="primary")
    if others:
        found["others"] = plots.intervals(others, **options, name="others")
    drawn = {name: report["systems"][name]["metrics"] for name in wanted[:_CURVES]}
    if len(ks) > 1 and drawn and all(drawn.values()):
        found["curves"] = plots.curves(drawn, ks=ks)
    for name, sides in (("scatter", pair), ("embedders", ("base", "tuned"))):
        if all(side in per_query and per_query[side] for side in sides) and (name == "scatter" or sides != pair):
            before, after = (list(per_query[side].values()) for side in sides)
            found[name] = plots.scatter(before, after, names=sides, measure=measure, name=name)
    return {name: Markup(svg) if svg else None for name, svg in found.items()}  # noqa: S704 - matplotlib escapes its texts


def _slices(report: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for one in report["slices"]:
        ends = "n/a" if one["low"] is None else f"{100 * one['low']:+.1f} … {100 * one['high']:+.1f}"
        values = [table.number(one["before"]), table.number(one["after"]), f"{100 * one['difference']:+.1f}", ends]
        small = "too small to judge" if one["small"] else ""
        rows.append([one["kind"], one["value"], str(one["queries"]), str(one["groups"]), *values, small])
    return rows


def _snippets(report: Mapping[str, Any]) -> dict[str, Any] | None:
    found = report["snippets"]
    if not found or not found["queries_scored"]:
        return None
    names = list(next(iter(found["systems"].values())))
    rows = [[system, *(table.number(values[one]) for one in names)] for system, values in found["systems"].items()]
    return {
        **{name: found[name] for name in ("queries", "snippets", "unlinked")},
        "head": ["system", *names],
        "rows": rows,
    }


def _speed(speed: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            f"{one['p50_milliseconds']:.1f}",
            f"{one['p95_milliseconds']:.1f}",
            f"{one['queries_per_second']:.1f}",
            f"{one['model_bytes'] / 1e6:,.0f}" if one["model_bytes"] else "–",
        ]
        for name, one in speed["systems"].items()
    ]


def _audit(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The summary's plain numbers, and what was left out with the reason."""
    summary = audit.get("summary", {})
    facts = [[name.replace("_", " "), value] for name, value in summary.items() if isinstance(value, int | float | str)]
    by_kind = {name: found for name in ("train_by_origin", "test_by_origin") if (found := summary.get(name))}
    facts += [
        [name.replace("_", " "), ", ".join(f"{count} {kind}" for kind, count in found.items())]
        for name, found in by_kind.items()
    ]
    dropped = [[name, one["meaning"], one["count"]] for name, one in audit.get("dropped", {}).items()]
    return {"facts": facts, "dropped": dropped}
