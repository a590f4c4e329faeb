"""The report's pictures, by matplotlib, as SVG that stands in the page: real text, and colours that follow the reader.

Figures are drawn in placeholder colours, which are then named as the page's CSS variables: so a picture is light or
dark as its page is. Text stays text in the page's own fonts, so that it can be read aloud, found and copied.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK, _SOFT, _LINE = "#010203", "#020304", "#030405"
_SERIES: Final = ("#111203", "#121304", "#131405", "#141506", "#151607", "#161708")
_UP, _DOWN, _FLAT = "#212203", "#222304", "#232405"
_VARIABLES: Final = {
    _INK: "--ink",
    _SOFT: "--soft",
    _LINE: "--line",
    _UP: "--up",
    _DOWN: "--down",
    _FLAT: "--flat",
    **{colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)},
}
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_RC: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "grid.color": _LINE,
}
_MOST_ROWS: Final = 24


def intervals(rows: Sequence[Mapping[str, Any]], *, minimum: float, measure: str, name: str) -> str:
    """Differences in points with their intervals, one row each, zero and the least effect that counts marked.

    Args:
        rows: `label`, `difference`, `low`, `high`; ends may be None.
        minimum: the least effect.
        measure: as people call it.
        name: of the figure, of which there is one in a page.
    """
    kept = list(rows)[:_MOST_ROWS]
    with mpl.rc_context(_RC | {"svg.hashsalt": name}):
        figure = Figure(figsize=(8.4, 0.9 + 0.34 * len(kept)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_SOFT, linewidth=1)
        if minimum:
            axes.axvline(100 * minimum, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for place, row in enumerate(kept):
            known = row["low"] is not None and row["high"] is not None
            colour = _UP if known and row["low"] > 0 else _DOWN if known and row["high"] < 0 else _FLAT
            if known:
                axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, linewidth=2.4)
            axes.plot([100 * row["difference"]], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(kept)), [row["label"] for row in kept])
        axes.set_ylim(len(kept) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"change of {measure} in points; dashed: the least that counts")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", linewidth=0.6)
        told = "; ".join(f"{row['label']}: {100 * row['difference']:+.1f} points" for row in kept)
        return _svg(figure, name=name, title=f"Changes of {measure} with their intervals. {told}")


def curves(systems: Mapping[str, Mapping[str, float]], *, ks: Sequence[int]) -> str:
    """Recall, precision and hit rate against K, one line a system.

    Args:
        systems: metrics by name; at most six are drawn.
        ks: ranks.
    """
    shown = list(systems.items())[: len(_SERIES)]
    families = (("R", "Recall@K"), ("P", "Precision@K"), ("Success", "Hit rate@K"))
    with mpl.rc_context(_RC | {"svg.hashsalt": "curves"}):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, (family, label) in zip(figure.subplots(1, 3), families, strict=True):
            for number, (name, values) in enumerate(shown):
                heights = [values[f"{family}@{k}"] for k in ks]
                axes.plot(
                    ks, heights, label=name, color=_SERIES[number], marker=_MARKERS[number], linewidth=1.8, markersize=5
                )
            _from_zero(axes, ks)
            axes.set_title(label, fontsize=11, loc="left")
            axes.set_xlabel("K")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(shown)))
        told = "; ".join(f"{name}: recall at {ks[-1]} is {values[f'R@{ks[-1]}']:.3f}" for name, values in shown)
        return _svg(figure, name="curves", title=f"Recall, precision and hit rate by K. {told}")


def scatter(before: Sequence[float], after: Sequence[float], *, names: tuple[str, str], measure: str, name: str) -> str:
    """Each query by its value in both systems; where several fall on one point, it is larger.

    Args:
        before: values of the queries.
        after: likewise, the same queries.
        names: of the systems.
        measure: as people call it.
        name: of the figure.
    """
    points = Counter((round(x, 3), round(y, 3)) for x, y in zip(before, after, strict=True))
    better = sum(count for (x, y), count in points.items() if y > x)
    worse = sum(count for (x, y), count in points.items() if y < x)
    with mpl.rc_context(_RC | {"svg.hashsalt": name}):
        figure = Figure(figsize=(4.8, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1)
        for colour, marker, wanted in ((_UP, "^", 1), (_DOWN, "v", -1), (_FLAT, "o", 0)):
            kept = [(x, y, n) for (x, y), n in sorted(points.items()) if (y > x) - (y < x) == wanted]
            if kept:
                sizes = [14 + 26 * count**0.5 for _, _, count in kept]
                places: Any = ([x for x, _, _ in kept], [y for _, y, _ in kept])
                axes.scatter(places[0], places[1], s=sizes, c=colour, marker=marker, alpha=0.75, linewidths=0)
        axes.set_xlabel(f"{measure}, {names[0]}")
        axes.set_ylabel(f"{measure}, {names[1]}")
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_aspect("equal")
        axes.text(0.02, 0.97, f"better: {better}", va="top", color=_UP)
        axes.text(0.98, 0.03, f"worse: {worse}", ha="right", color=_DOWN)
        same = len(before) - better - worse
        told = f"{measure} of each query in {names[0]} and {names[1]}: {better} better, {worse} worse, {same} the same"
        return _svg(figure, name=name, title=told)


def _from_zero(axes: Axes, ks: Sequence[int]) -> None:
    axes.set_xticks(list(ks), [str(k) for k in ks])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.6)


def _svg(figure: Figure, *, name: str, title: str) -> str:
    """The figure as an element for a page: no header, no fonts of its own, colours as variables."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # The browser's fonts are not those that matplotlib measured: sizes stay, families are the page's.
    text = re.sub(r"font:\s*(?:[a-z]+\s+)*([\d.]+)px[^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family:[^;\"]*;?", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Every figure numbers its parts from 1: in one page they need names of their own.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    width = float(box.group(1)) if box else 600.0
    head = (
        f'<svg role="img" aria-label="{escape(title)}" style="width:100%;max-width:{1.25 * width:.0f}px;height:auto" '
    )
    text = re.sub(r'<svg ([^>]*?)\s*width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\s*height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"', "", text).replace("xlink:href", "href")
    return head + text.removeprefix("<svg").lstrip().replace("\n", " ")
