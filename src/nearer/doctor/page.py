"""A page that a person can read in a minute, and that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import jinja2

from nearer.doctor.data import Diagnosis


def page(found: Diagnosis) -> str:
    """The diagnosis as HTML; all texts of the data are escaped."""
    template = Path(__file__).with_name("data.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(found=found)
