"""What the language model is told: files, the shipped ones or the user's in their place."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from nearer.errors import InputError

SHIPPED: Final = Path(__file__).parent / "ko"

PLACEHOLDERS: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset(),
    "queries": frozenset({"passages", "kinds", "count"}),
    "natural": frozenset(),
    "keyword": frozenset(),
    "colloquial": frozenset(),
    "multi_passage": frozenset(),
    "comparison": frozenset(),
    "mark": frozenset({"query", "passages"}),
    "answerable": frozenset({"query", "passages"}),
    "negatives": frozenset({"query", "passages", "count"}),
    "repair": frozenset({"error"}),
}
"""Names of the prompts, and what each must mention. `$title` may stand in `queries` as well."""

_ALLOWED: Final = {"queries": frozenset({"title"})}


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The texts by name, and the hash of all of them, which is part of the dataset's fingerprint."""

    texts: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of all texts."""
        return hashlib.sha256(json.dumps(dict(self.texts), sort_keys=True).encode()).hexdigest()

    def fill(self, name: str, **values: object) -> str:
        """The text with its placeholders replaced; what is put in is not looked at again."""
        return Template(self.texts[name]).safe_substitute({key: str(value) for key, value in values.items()})


def load_prompts(folder: Path | None) -> Prompts:
    """The shipped Korean prompts, each replaced by the file of its name in the user's folder, if there is one.

    Raises:
        InputError: the folder is not there, holds a file that is no prompt, or a prompt lacks a placeholder.
    """
    texts = {name: (SHIPPED / f"{name}.md").read_text(encoding="utf-8") for name in PLACEHOLDERS}
    if folder is not None:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no folder", where="generate.llm.prompts", rule="a folder of prompts: queries.md, …"
            )
        for file in sorted(folder.glob("*.md")):
            if file.stem not in PLACEHOLDERS:
                near = difflib.get_close_matches(file.stem, PLACEHOLDERS, n=1)
                raise InputError(
                    f"no prompt has the name {file.stem!r}" + (f" (did you mean {near[0]}?)" if near else ""),
                    where=str(file),
                    rule=f"one of {', '.join(f'{name}.md' for name in PLACEHOLDERS)}",
                )
            texts[file.stem] = file.read_text(encoding="utf-8")
            _check(file, file.stem, texts[file.stem])
    return Prompts(texts={name: text.strip() + "\n" for name, text in texts.items()})


def _check(file: Path, name: str, text: str) -> None:
    template = Template(text)
    if not template.is_valid():
        raise InputError(
            "a `$` stands where no placeholder is", where=str(file), rule="`$name`, or `$$` for a dollar sign"
        )
    found = set(template.get_identifiers())
    missing = PLACEHOLDERS[name] - found
    unknown = found - PLACEHOLDERS[name] - _ALLOWED.get(name, frozenset())
    if missing or unknown:
        words = [f"lacks {', '.join(f'${each}' for each in sorted(missing))}"] if missing else []
        words += [f"has {', '.join(f'${each}' for each in sorted(unknown))}, which nothing fills"] if unknown else []
        raise InputError(
            f"the prompt {' and '.join(words)}",
            where=str(file),
            rule=f"placeholders of {name}.md: "
            + (
                ", ".join(f"${each}" for each in sorted(PLACEHOLDERS[name] | _ALLOWED.get(name, frozenset()))) or "none"
            ),
        )
