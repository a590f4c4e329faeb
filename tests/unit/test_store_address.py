"""Addresses as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearer.address import is_literal, resolve
from nearer.errors import InputError

PARTS = st.sampled_from(["a", "데이터", ".", "..", "", "~", "s3:", "x y", ".nearer", "b.c", "//"])
ADDRESSES = st.lists(PARTS, min_size=1, max_size=5).map("/".join) | st.text(max_size=12) | st.just("s3://b//k/")
ROOTS = st.sampled_from(["/data", "/data/", ".", "/", "./x", "s3://bucket/rag", "s3://bucket/"])
QUICK = settings(deadline=None, max_examples=200)


def resolved(address, root):
    try:
        return resolve(address, root=root)
    except InputError:
        return None


@QUICK
@given(ADDRESSES, ROOTS)
def test_a_resolved_address_is_full_and_stays(address, root):
    """What comes out is absolute or in S3, has no trailing slash or double slash, and resolves to itself."""
    full = resolved(address, root)
    if full is None:
        return
    path = full.removeprefix("s3://")
    assert full.startswith(("/", "s3://"))
    assert "//" not in path
    assert full == "/" or not full.endswith("/")
    assert resolve(full, root="/elsewhere") == full


@QUICK
@given(ADDRESSES, ROOTS)
def test_a_name_stays_under_its_root(address, root):
    """Only a literal address leads out of the artifacts root."""
    full = resolved(address, root)
    if full is not None and not is_literal(address):
        top = resolve(root, root=".").rstrip("/")
        assert full == (top or "/") or full.startswith(f"{top}/")


@pytest.mark.parametrize(
    ("address", "root", "full"),
    [
        ("models/m", "/data", "/data/models/m"),
        ("models/m/", "s3://b/rag/", "s3://b/rag/models/m"),
        ("/models/m", "s3://b/rag", "/models/m"),
        ("s3://other/m", "/data", "s3://other/m"),
        ("//models//m", "/data", "/models/m"),
    ],
)
def test_addresses_mean_what_the_documentation_says(address, root, full):
    """Literal addresses stand for themselves, anything else is under the root."""
    assert resolve(address, root=root) == full


@pytest.mark.parametrize("address", ["", "  ", "gs://bucket/x", "a/../../b", "a\0b", "s3://", "s3:///"])
def test_nonsense_is_refused_with_words(address):
    """Empty, unknown schemes, names that leave the root, NUL and missing buckets are InputErrors with a rule."""
    with pytest.raises(InputError) as caught:
        resolve(address, root="/data")
    assert caught.value.rule
