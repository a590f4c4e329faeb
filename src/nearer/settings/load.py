"""From file, environment and `--set` to one checked settings object, or all its problems at once."""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from nearer import address
from nearer.errors import InputError, NearerError, SettingsError
from nearer.settings import guide
from nearer.settings.document import Document, Key, read_assignments, read_environment, read_file
from nearer.settings.model import Settings

DEFAULT_FILES = ("conf/settings.yaml", "nearer.yaml")
"""Where settings are looked for when no file is named; the first is the guide's."""


@dataclass(frozen=True)
class Loaded:
    """A checked document, the command that a job file names, and what the user should know."""

    settings: Settings
    file: str
    command: str | None = None
    warnings: tuple[str, ...] = ()


def load(
    file: Path | None,
    *,
    overlays: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    required: bool = True,
) -> Loaded:
    """Read settings; precedence: file < environment < `--set`.

    Args:
        file: a settings document or a job file; None: the first of `DEFAULT_FILES` that is there.
        overlays: files of the same form that lie over it, the last one on top.
        assignments: `section.field=value`.
        environment: for tests; default `os.environ`.
        required: whether there must be a file; if not, every field may have its default.

    Raises:
        SettingsError: with every problem that was found.
    """
    path = file or _default_file(required=required)
    document = read_file(path) if path.name else Document()
    for overlay in overlays:
        document.overlay(read_file(overlay))
    command = _unwrap_job(document, path)
    over = [read_environment(os.environ if environment is None else environment), read_assignments(assignments)]
    documents = [document, *over]
    root = next((d.values["artifacts"] for d in reversed(documents) if isinstance(d.values.get("artifacts"), str)), ".")
    trained = next((found for d in reversed(documents) if (found := guide.model_type(d))), None)
    is_guide = guide.is_guide(document)
    for each in documents:
        guide.translate(each, trained=trained, root=root)
    for upper in over:
        document.overlay(upper)
    warnings = _drop_foreign_sections(document) if is_guide else ()
    return Loaded(settings=_validate(document, path), file=str(path), command=command, warnings=warnings)


def _default_file(*, required: bool) -> Path:
    for name in DEFAULT_FILES:
        if Path(name).exists():
            return Path(name)
    if not required:
        return Path()
    raise InputError(
        "no settings file",
        where=str(Path.cwd()),
        rule=f"one is named with -c, or stands at {' or '.join(DEFAULT_FILES)}",
        way_out="nearer COMMAND -c my-settings.yaml",
    )


def _unwrap_job(document: Document, path: Path) -> str | None:
    """A job file is a Helm values file: its `settings` are the document, its `command` says what it runs."""
    if not isinstance(document.values.get("settings"), dict) or "command" not in document.values:
        return None
    command = document.values["command"]
    if not isinstance(command, str):
        raise InputError(f"command is {command!r}", where=document.place(("command",)) or str(path), rule="a word")
    document.values = document.values["settings"]
    document.places = {key[1:]: place for key, place in document.places.items() if key[:1] == ("settings",) and key[1:]}
    return command


def _drop_foreign_sections(document: Document) -> tuple[str, ...]:
    """The guide's file configures a whole RAG: its other sections are none of nearer's business, and are named once."""
    foreign = [key for key in document.values if key not in Settings.model_fields]
    for key in foreign:
        del document.values[key]
    if not foreign:
        return ()
    names = [f"{key}{_nearest(key, (*Settings.model_fields, *guide.GUIDE_KEYS), cutoff=0.8)}" for key in foreign]
    return (f"sections that nearer does not read: {', '.join(names)}",)


def _validate(document: Document, path: Path) -> Settings:
    try:
        settings = Settings.model_validate(document.values)
    except pydantic.ValidationError as error:
        raise SettingsError([_problem(item, document) for item in error.errors()], where=_shown(path)) from None
    problems = _cross_checks(settings, document)
    if problems:
        raise SettingsError(problems, where=_shown(path))
    return settings


def _shown(path: Path) -> str:
    return str(path) if path.name else "the environment and --set; there is no settings file"


def _problem(item: Any, document: Document) -> NearerError:
    key: Key = tuple(part for part in item["loc"] if not _is_union_tag(part))
    dotted = ".".join(str(part) for part in key)
    where = document.place(key)
    if item["type"] == "extra_forbidden":
        known = _fields_at(key[:-1])
        return InputError(
            f"unknown key {dotted}{_nearest(str(key[-1]), known)}",
            where=where,
            rule=f"known keys: {', '.join(known)}",
        )
    rule = item["msg"].replace("Input should be", "must be").replace(" or instance of", ", or")
    together = item["type"] == "value_error" and isinstance(item["input"], dict)
    what = f"settings of {dotted} that do not go together" if together else f"{dotted} is {item['input']!r}"
    return InputError(_without_password(what), where=where, rule=rule.removeprefix("Value error, "))


def _without_password(text: str) -> str:
    """Addresses in the text without user name and password."""
    return re.sub(r"//[^/\s]*@", "//…@", text)


def _is_union_tag(part: str | int) -> bool:
    """Pydantic puts the tried type of a union into the location; a user never wrote it."""
    return isinstance(part, str) and (part.startswith(("list[", "literal[", "function-")) or part == "constrained-str")


def _cross_checks(settings: Settings, document: Document) -> list[NearerError]:
    try:
        address.resolve(settings.artifacts, root=".")
    except InputError as error:
        return [InputError(f"artifacts: {error.what}", where=document.place(("artifacts",)), rule=error.rule)]
    outputs: dict[Key, str] = {("generate", "output_dir"): settings.generate.output_dir}
    if settings.train.embedding:
        outputs["train", "embedding", "output_dir"] = settings.train.embedding.output_dir
    if settings.train.reranker:
        outputs["train", "reranker", "output_dir"] = settings.train.reranker.output_dir
    outputs["eval", "output_dir"] = settings.eval.output_dir
    outputs["export_onnx", "output_dir"] = settings.export_onnx.output_dir
    outputs["reindex", "output_dir"] = settings.reindex.output_dir
    problems: list[NearerError] = []
    seen: dict[str, str] = {}
    for key, given in outputs.items():
        dotted = ".".join(map(str, key))
        try:
            full = address.resolve(given, root=settings.artifacts)
        except InputError as error:
            problems.append(InputError(f"{dotted}: {error.what}", where=document.place(key), rule=error.rule))
            continue
        if full in seen:
            problems.append(
                InputError(
                    f"{dotted} is {given!r}, which is also {seen[full]}",
                    where=document.place(key),
                    rule="an address of its own for each output",
                )
            )
        seen[full] = dotted
    return problems


def _fields_at(key: Key) -> list[str]:
    """The field names of the section at a key path."""
    model: Any = Settings
    for part in key:
        annotation = model.model_fields[str(part)].annotation
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        model = next(
            option for option in options if isinstance(option, type) and issubclass(option, pydantic.BaseModel)
        )
    return list(model.model_fields)


def _nearest(name: str, known: Sequence[str], *, cutoff: float = 0.6) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" (did you mean {found[0]}?)" if found else ""
