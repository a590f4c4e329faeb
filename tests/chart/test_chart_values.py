"""Defaults, schema, the settings' models and a file that sets everything agree."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from nearer import __version__
from nearer.cli.app import app
from nearer.cluster import schema as generator
from nearer.errors import EXIT_CODES, SettingsError
from nearer.settings import load

from .conftest import CHART, JOBS, Template

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
EVERYTHING = Path(__file__).with_name("everything.yaml")
NO_DEFAULT = {"global"}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node with its references followed, an optional section as the section."""
    if "$ref" in node:
        return resolved(SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")])
    options = [resolved(each) for each in node.get("anyOf", []) if each != {"type": "null"}]
    return next((each for each in options if "properties" in each), node)


def keys(node: dict[str, Any], at: str = "") -> Iterator[str]:
    """Every key path that the schema knows; what is in a list is `[]`."""
    node = resolved(node)
    for name, child in node.get("properties", {}).items():
        yield f"{at}.{name}".removeprefix(".")
        yield from keys(child, f"{at}.{name}")
    if isinstance(node.get("items"), dict):
        yield from keys(node["items"], f"{at}[]")


def given(value: Any, at: str = "") -> Iterator[str]:
    """Every key path that a values file has."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield f"{at}.{name}".removeprefix(".")
            yield from given(child, f"{at}.{name}")
    if isinstance(value, list):
        for child in value:
            yield from given(child, f"{at}[]")


def objects(node: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that describes a mapping."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield at, node
        for name, child in node.items():
            yield from objects(child, f"{at}/{name}")
    if isinstance(node, list):
        for number, child in enumerate(node):
            yield from objects(child, f"{at}/{number}")


def test_the_settings_part_is_that_of_the_models() -> None:
    """`make schema` would change nothing."""
    text = (CHART / "values.schema.json").read_text(encoding="utf-8")
    assert generator.text(generator.with_settings(SCHEMA)) == text


def test_the_schema_is_a_schema() -> None:
    """Other readers than Helm understand it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_mapping_is_closed() -> None:
    """An unknown key is refused everywhere, but in maps of words and in what is handed to Kubernetes as it is."""
    found = dict(objects(SCHEMA))
    handed = {at for at, node in found.items() if "as it is" in node.get("description", "")}
    opened = {at for at, node in found.items() if node.get("additionalProperties", True) is True} - handed
    assert opened == {
        "/properties/global",
        "/properties/networkPolicy/properties/egress/items/properties/to/items",
        "/properties/networkPolicy/properties/egress/items/properties/ports/items",
    }
    assert {at.split("/")[4] for at in handed} == {"affinity", "topologySpreadConstraints", "volumes"}


def test_every_key_says_what_it_is() -> None:
    """The hand-written part explains each of its keys."""
    silent = [
        f"{at}/{name}"
        for at, node in objects({"properties": {**SCHEMA["properties"], "settings": {}}})
        for name, child in node.get("properties", {}).items()
        if "description" not in child and "$ref" not in child
    ]
    assert silent == []


def test_everything_sets_every_key() -> None:
    """A key that the schema knows stands in everything.yaml, and no other one does."""
    known = {key for key in keys(SCHEMA) if key != "settings.store.buckets"}
    everything = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))
    assert known - set(given(everything)) == set()
    jsonschema.validate(everything, SCHEMA)


def test_everything_is_at_no_default() -> None:
    """So that a value which the templates forget shows in what is rendered."""

    def same(left: Any, right: Any, at: str) -> Iterator[str]:
        if isinstance(left, dict) and isinstance(right, dict):
            for name in left.keys() & right.keys():
                yield from same(left[name], right[name], f"{at}.{name}")
        elif left == right:
            yield at

    assert list(same(DEFAULTS, yaml.safe_load(EVERYTHING.read_text(encoding="utf-8")), "")) == []


def test_the_defaults_have_every_key_that_has_one() -> None:
    """values.yaml is complete: who reads it has seen all."""
    level = {key for key in keys(SCHEMA) if "[]" not in key and not key.startswith(("settings.", "pod.affinity."))}
    optional = {
        f"pod.resources.{side}.{name}" for side in ("requests", "limits") for name in ("cpu", "ephemeral-storage")
    }
    assert level - set(given(DEFAULTS)) - optional == NO_DEFAULT
    jsonschema.validate(DEFAULTS, SCHEMA)


def test_the_commands_are_those_of_the_command_line() -> None:
    """All that run a job, and `train` with what it takes."""
    commands = set(typer.main.get_command(app).commands) - {"artifacts", "schema", "submit", "doctor"}
    expected = {"", *commands, "train embedding", "train reranker"}
    assert set(SCHEMA["properties"]["command"]["enum"]) == expected


def test_the_versions_are_those_of_the_package() -> None:
    """Chart, image tag and package are released together."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_failure_policy_is_the_exit_code_table(template: Template) -> None:
    """Each code meets the rule that the table names for it; an eviction comes before all of them."""
    first, *rest = template(JOBS[0]).one("Job")["spec"]["podFailurePolicy"]["rules"]
    assert first == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    actions = {code: rule["action"] for rule in rest for code in rule["onExitCodes"]["values"]}
    word = {"fails at once": "FailJob", "ignored": "Ignore"}
    expected = {
        line.code: action for line in EXIT_CODES for start, action in word.items() if line.in_a_job.startswith(start)
    }
    assert actions == expected
    assert set(expected.values()) == {"FailJob", "Ignore"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"settings": {"train": {"embedding": {"epoch": 3}}}}, "additional properties 'epoch' not allowed"),
        ({"settings": {"train": {"embedding": {"epochs": "three"}}}}, "got string, want number"),
        ({"settings": {"train": {"reranker": {"batch_size": 0}}}}, "/settings/train/reranker/batch_size"),
        ({"settings": {"fine_tune": {"model_type": "embedding"}}}, "additional properties 'fine_tune' not allowed"),
        ({"settings": {"store": {"s3": {"endpoint": "https://me:word@host"}}}}, "/settings/store/s3/endpoint"),
        ({"nodse": 2}, "additional properties 'nodse' not allowed"),
        ({"nodes": 0}, "/nodes"),
        ({"pod": {"gpu": 1}}, "additional properties 'gpu' not allowed"),
        ({"pod": {"env": {"OMP_NUM_THREADS": 4}}}, "got number, want string"),
        ({"pod": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}}, "'hostPath' not allowed"),
        ({"pod": {"labels": {"nearer/run": "mine"}}}, "invalid propertyName 'nearer/run'"),
        ({"pod": {"resources": {"limits": {"memory": "8 GB"}}}}, "/pod/resources/limits/memory"),
        ({"secrets": {"env": {"HF_TOKEN": "hf_secret"}}}, "/secrets/env/HF_TOKEN"),
        ({"activeDeadlineSeconds": None}, "activeDeadlineSeconds"),
        ({"command": "submit"}, "/command"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_refused_in_the_schema_s_words(template: Template, values: dict[str, Any], words: str) -> None:
    """Before anything is asked of a cluster, and with the place."""
    refused = template(JOBS[-1], values)
    assert refused.code
    assert words in refused.err


def test_chart_and_command_line_know_the_same_settings(tmp_path: Path) -> None:
    """A misspelling of any field of any section is refused by both."""
    everything = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert load(EVERYTHING, environment={}).command == "train embedding"
    sections = [path for path in given(everything["settings"]) if "[]" not in path]
    paths = [list(each) for _, each in itertools.groupby(sorted(sections), key=lambda path: path.rpartition(".")[0])]
    wrong = tmp_path / "wrong.yaml"
    for path, *_ in paths:
        document = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))
        *way, name = path.split(".")
        if way[:2] == ["store", "buckets"]:
            continue
        section = document["settings"]
        for part in way:
            section = section[part]
        section[f"{name}x"] = section.pop(name)
        assert not validator.is_valid(document), path
        wrong.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(SettingsError, match=f"unknown key {path}x"):
            load(wrong, environment={})
