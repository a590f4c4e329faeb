"""Manifests and fingerprints."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nearer.errors import ArtifactCorrupt
from nearer.store import FileEntry, InputEntry, Manifest, Outcome, fingerprint, raw_fingerprint

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
FIELDS = st.dictionaries(NAMES, VALUES, max_size=5)
INPUTS = st.dictionaries(NAMES, NAMES, max_size=3)
QUICK = settings(deadline=None, max_examples=60)


def of(fields, inputs, *, job="train", version=1, seed=13, address="a"):
    entries = {name: InputEntry(address=address, fingerprint=value) for name, value in inputs.items()}
    return fingerprint(job=job, format_version=version, fields=fields, inputs=entries, seed=seed)


def shuffled(value, draw):
    if not isinstance(value, dict):
        return value
    return {name: shuffled(value[name], draw) for name in draw(st.permutations(sorted(value)))}


@QUICK
@given(FIELDS, INPUTS, st.data())
def test_the_order_of_keys_does_not_matter(fields, inputs, data):
    """Two documents that say the same in another order have one fingerprint."""
    assert of(fields, inputs) == of(shuffled(fields, data.draw), shuffled(inputs, data.draw))


@QUICK
@given(FIELDS, INPUTS, NAMES, VALUES)
def test_any_changed_field_matters(fields, inputs, name, value):
    """A field that gets another value, is added or is removed changes the fingerprint."""
    changed = {**fields, name: value}
    assume(json.dumps(changed, sort_keys=True) != json.dumps(fields, sort_keys=True))
    assert of(changed, inputs) != of(fields, inputs)


@QUICK
@given(FIELDS, INPUTS, NAMES, NAMES)
def test_inputs_count_by_content_and_not_by_place(fields, inputs, name, value):
    """An input's fingerprint changes the result's, its address does not."""
    assert of(fields, inputs) == of(fields, inputs, address="s3://elsewhere")
    assume(inputs.get(name) != value)
    assert of(fields, inputs) != of(fields, {**inputs, name: value})


def test_job_format_and_seed_matter():
    """Another job, another FORMAT or another seed is other work."""
    prints = {of({}, {}), of({}, {}, job="eval"), of({}, {}, version=2), of({}, {}, seed=14)}
    assert len(prints) == 4
    assert all(len(print_) == 64 for print_ in prints)


def test_fingerprints_do_not_change_between_releases():
    """A golden value: if this changes, every artifact of every user is made again."""
    found = fingerprint(
        job="train embedding",
        format_version=1,
        fields={"epochs": 3.0, "pooling": "auto", "이름": None},
        inputs={"dataset": InputEntry(address="d", fingerprint="abc")},
        seed=13,
    )
    assert found == "cadfc232de69b52d8c9f98d1d41bf27dc456de6f8745cab7e9d1f621830f73db"


@QUICK
@given(FIELDS, INPUTS, st.dictionaries(NAMES, SCALARS, max_size=3), st.integers(0, 3), NAMES)
def test_a_manifest_is_read_as_it_was_written(fields, inputs, metrics, code, reason):
    """to_json and from_json are inverse."""
    written = Manifest(
        kind="embedder",
        name="m",
        fingerprint="f",
        inputs={name: InputEntry(address=name, fingerprint=value) for name, value in inputs.items()},
        settings=fields,
        files=(FileEntry(path="a/b", size=3, sha256="0" * 64),),
        metrics=metrics,
        outcome=Outcome(code=code, reason=reason),
    )
    assert Manifest.from_json(written.to_json(), where="here") == written


def test_numbers_of_numpy_are_written_as_numbers():
    """Metrics may hold numpy scalars; after hours of work the manifest must not fail on them."""
    numpy = pytest.importorskip("numpy")
    manifest = Manifest(kind="k", name="n", fingerprint="f", metrics={"nDCG@10": numpy.float32(0.5)})
    assert json.loads(manifest.to_json())["metrics"] == {"nDCG@10": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"path": "a", "size": "3", "sha256": "0"}]},
        {"files": [{"path": "../a", "size": 3, "sha256": "0"}]},
        {"files": [{"size": 3}]},
        {"files": None},
        {"kind": 3},
        {"fingerprint": None},
        {"inputs": {"d": "somewhere"}},
        {"outcome": {"code": 0, "why": "?"}},
        {"a field of a later version": 1},
    ],
)
def test_what_is_not_a_manifest_is_refused_with_words(change):
    """Wrong types, missing and unknown fields are ArtifactCorrupt naming the place, never a traceback."""
    raw = {**json.loads(Manifest(kind="k", name="n", fingerprint="f").to_json()), **change}
    with pytest.raises(ArtifactCorrupt) as caught:
        Manifest.from_json(json.dumps(raw), where="s3://b/m/manifest.json")
    assert "s3://b/m/manifest.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"x"'])
def test_other_json_is_refused_with_words(text):
    """Torn files and other programs' files are ArtifactCorrupt, too."""
    with pytest.raises(ArtifactCorrupt):
        Manifest.from_json(text, where="here")


def test_a_folder_is_known_by_names_and_content(tmp_path):
    """Raw folders: content, names and moves count; hidden files, times and order of creation do not."""
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "a" / "x.md").write_text("x")
    (tmp_path / "a" / "sub" / "y.md").write_text("y")
    (tmp_path / "b" / "sub" / "y.md").write_text("y")
    (tmp_path / "b" / "x.md").write_text("x")
    (tmp_path / "b" / ".DS_Store").write_text("?")
    same = raw_fingerprint(tmp_path / "a")
    assert same == raw_fingerprint(tmp_path / "b")
    (tmp_path / "b" / "x.md").rename(tmp_path / "b" / "z.md")
    assert raw_fingerprint(tmp_path / "b") != same
    (tmp_path / "a" / "x.md").write_text("X")
    assert raw_fingerprint(tmp_path / "a") != same
    assert raw_fingerprint(tmp_path / "a" / "x.md") != raw_fingerprint(tmp_path / "a" / "sub" / "y.md")
