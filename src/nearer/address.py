"""Where an artifact lives, as the user writes it.

`s3://…`, `/…` and `./…` (also `../…` and `~/…`) are literal; anything else is under the `artifacts:` root.
"""

from __future__ import annotations

import os

from nearer.errors import InputError

_LITERAL = ("s3://", "/", "./", "../", "~/")


def is_literal(address: str) -> bool:
    """Whether the address stands for itself, whatever the artifacts root is."""
    return address in {".", ".."} or address.startswith(_LITERAL)


def resolve(address: str, *, root: str) -> str:
    """The full address: an absolute path without a trailing slash, or `s3://bucket/key`.

    Raises:
        InputError: the address is empty, has a scheme that nearer does not know, or leaves its root by `..`.
    """
    if not address.strip():
        raise InputError("an address is empty", rule="a path, a name under `artifacts`, or s3://bucket/prefix")
    if "\0" in address:
        raise InputError(f"{address!r} holds a NUL", rule="a path without NUL characters")
    if "://" in address and not address.startswith("s3://"):
        scheme = address.split("://", 1)[0]
        raise InputError(
            f"unknown scheme {scheme!r} in {address!r}", rule="s3://…, /…, ./… or a name under `artifacts`"
        )
    if is_literal(address):
        full = address
    else:
        if ".." in address.split("/"):
            raise InputError(f"{address!r} leaves the artifacts root {root!r}", rule="no `..` in a name under the root")
        full = f"{root.rstrip('/') or '/'}/{address}" if root != "." else f"./{address}"
    if full.startswith("s3://"):
        parts = [part for part in full.removeprefix("s3://").split("/") if part not in {"", "."}]
        if not parts:
            raise InputError(f"{address!r} names no bucket", rule="s3://bucket/prefix")
        if ".." in parts:
            raise InputError(f"{address!r} holds `..`, which means nothing in S3", rule="s3://bucket/prefix")
        return "s3://" + "/".join(parts)
    # POSIX leaves two slashes at the start as they are; here they mean nothing.
    return "/" + os.path.abspath(os.path.expanduser(full)).lstrip("/")  # noqa: PTH100, PTH111 - Path() would swallow a trailing `..`


def is_s3(address: str) -> bool:
    """Whether the resolved address is in S3."""
    return address.startswith("s3://")
