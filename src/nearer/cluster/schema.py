"""`python -m nearer.cluster.schema`: the settings' part of the chart's values.schema.json, from the pydantic models.

All other parts of that file are written by hand and stay as they are. A test fails when the two have drifted apart.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from nearer.cluster.chart import chart_directory
from nearer.settings import Settings

_OURS = "nearer."
"""Names of the definitions that come from the settings, so that those written by hand are left alone."""


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """A values schema with its `settings` part made anew.

    The document itself has no required key and closed sections only, as the models say. An address may not carry a
    password: nearer refuses it when it runs, the chart before it is written into a ConfigMap.
    """
    settings = Settings.model_json_schema(ref_template=f"#/$defs/{_OURS}{{model}}")
    definitions = {f"{_OURS}{name}": value for name, value in settings.pop("$defs").items()}
    by_hand = {name: value for name, value in schema["$defs"].items() if not name.startswith(_OURS)}
    properties = {**schema["properties"], "settings": settings}
    return {**schema, "properties": properties, "$defs": {**by_hand, **definitions}}


def text(schema: dict[str, Any]) -> str:
    """The schema as the file holds it."""
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


def main() -> int:
    """Write the file anew, and say whether that changed it."""
    path = chart_directory() / "values.schema.json"
    before = path.read_text(encoding="utf-8")
    after = text(with_settings(json.loads(before)))
    path.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{path}: {'as it was' if after == before else 'made anew'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
