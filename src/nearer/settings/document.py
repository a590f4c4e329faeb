"""One settings document as plain values that remember where each of them was written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nearer.errors import InputError

Key = tuple[str | int, ...]


@dataclass
class Document:
    """Nested plain values, and for each key path the place that a person can go to."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str | None:
        """The place of a key, or of the nearest key above it."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key)

    def move(self, source: str, *, to: Sequence[str]) -> None:
        """Take a top-level key away and lay its value at another path; what stands there already is kept."""
        value = self.values.pop(source)
        moved = Document()
        moved.put(tuple(to), value, place=self.places.get((source,), source))
        for key in [key for key in self.places if key[:1] == (source,)]:
            moved.places[(*to, *key[1:])] = self.places.pop(key)
        moved.overlay(Document(values=self.values, places=self.places))
        self.values, self.places = moved.values, moved.places

    def put(self, key: Sequence[str], value: Any, *, place: str) -> None:
        """Write a value at a key path."""
        branch = self.values
        for part in key[:-1]:
            if not isinstance(branch.get(part), dict):
                branch[part] = {}
            branch = branch[part]
        branch[key[-1]] = value
        self.places[tuple(key)] = place

    def overlay(self, upper: Document) -> None:
        """Lay another document over this one; mappings are merged, everything else is replaced."""
        _merge(self.values, upper.values)
        self.places.update(upper.places)


def read_file(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        InputError: missing, not YAML, a key twice, not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"no settings file {str(path)!r}",
            where=os.fspath(path),
            rule="a YAML file: a settings document, or a job file from jobs/",
            way_out="correct the path given with -c",
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"the settings file is not UTF-8 (byte {error.start})", where=str(path), way_out="save it as UTF-8"
        ) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = Document()
        if node is not None:
            document.values = _plain(node, (), path, document.places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"not YAML: {problem}", where=f"{path}{line}", way_out="correct this line") from error
    if not isinstance(document.values, dict):
        raise InputError(
            "a settings file holds a mapping of sections", where=str(path), rule="`generate: {…}`, `train: …`"
        )
    return document


def read_environment(environment: Mapping[str, str]) -> Document:
    """`NEARER_<SECTION>__<FIELD>` variables, and only those; values are YAML."""
    document = Document()
    for name, value in sorted(environment.items()):
        if name.startswith("NEARER_") and "__" in name:
            key = [part.lower() for part in name.removeprefix("NEARER_").split("__")]
            document.put(key, _scalar(value, where=f"environment {name}"), place=f"environment {name}")
    return document


def read_assignments(assignments: Sequence[str]) -> Document:
    """`--set section.field=value`; values are YAML.

    Raises:
        InputError: no `=`.
    """
    document = Document()
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise InputError(f"--set {assignment!r} has no value", rule="--set train.embedding.epochs=5")
        document.put(key.split("."), _scalar(value, where=f"--set {key}"), place=f"--set {key}")
    return document


def _scalar(text: str, *, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is not a YAML value", where=where, rule="a number, a word, [a, list]") from error


def _plain(node: yaml.Node, key: Key, path: Path, places: dict[Key, str]) -> Any:
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for name_node, value_node in _pairs(node):
            name = str(name_node.value)
            line = name_node.start_mark.line + 1
            if name in values:
                dotted = ".".join(map(str, (*key, name)))
                raise InputError(
                    f"the key {dotted!r} stands twice", where=f"{path}:{line}", way_out="remove one of them"
                )
            places[(*key, name)] = f"{path}:{line}"
            values[name] = _plain(value_node, (*key, name), path, places)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*key, index), path, places) for index, item in enumerate(node.value)]
    return yaml.SafeLoader("").construct_object(node, deep=True)


def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for name_node, value_node in node.value:
        if not isinstance(name_node, yaml.ScalarNode):
            mark = name_node.start_mark
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=mark)
        yield name_node, value_node


def _merge(lower: dict[str, Any], upper: Mapping[str, Any]) -> None:
    for name, value in upper.items():
        if isinstance(value, dict) and isinstance(lower.get(name), dict):
            _merge(lower[name], value)
        else:
            lower[name] = value
