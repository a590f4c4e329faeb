"""Where the Helm chart is: inside the installed package, or beside the sources of a checkout."""

from __future__ import annotations

from pathlib import Path

from nearer.errors import InputError

_PACKAGE = Path(__file__).parent


def chart_directory() -> Path:
    """The directory of the chart that belongs to this very version of the settings.

    Raises:
        InputError: the package was installed without it.
    """
    candidates = (_PACKAGE / "chart", _PACKAGE.parents[2] / "helm" / "nearer")
    for directory in candidates:
        if (directory / "Chart.yaml").is_file():
            return directory
    raise InputError(
        "the Helm chart is not where this version of nearer expects it",
        where=", ".join(map(str, candidates)),
        way_out="install nearer from a wheel, or run it from a whole checkout",
    )
