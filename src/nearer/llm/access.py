"""Where an endpoint is, and the key to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nearer.errors import InputError

_OPENAI: Final = "https://api.openai.com/v1"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where an endpoint is and the key to it; the key is never shown, logged or written."""

    base_url: str
    key: str

    def __repr__(self) -> str:
        return f"Access(base_url={without_password(self.base_url)!r})"


def find_access(
    *, model: str, base_url: str | None, key_variable: str, environment: Mapping[str, str] | None = None
) -> Access:
    """The endpoint that settings and environment name.

    Args:
        model: as the settings name it, for the words.
        base_url: of the settings; None: OPENAI_BASE_URL, else OpenAI's own.
        key_variable: the environment variable that holds the key. An endpoint of one's own needs none.
        environment: for tests; default `os.environ`.

    Raises:
        InputError: neither an endpoint nor a key is there.
    """
    found = os.environ if environment is None else environment
    url = base_url or found.get("OPENAI_BASE_URL") or ""
    key = found.get(key_variable, "").strip()
    if not url and not key:
        raise InputError(
            f"generate.llm_model names {model!r} to write or judge queries, and nothing says how to reach it",
            where="generate.llm",
            rule=f"a key in the environment variable {key_variable}, or generate.llm.base_url (or OPENAI_BASE_URL) of "
            "an endpoint of the OpenAI kind",
            way_out=f"export {key_variable}=…; or set generate.llm.base_url, e.g. http://localhost:8000/v1 for vLLM; "
            "or set generate.llm.backend: transformers; or take generate.llm_model out",
        )
    if url and not url.startswith(("http://", "https://")):
        raise InputError(
            f"the endpoint is {without_password(url)!r}", where="generate.llm.base_url", rule="http(s)://…"
        )
    return Access(base_url=url or _OPENAI, key=key or "none")


def without_password(url: str) -> str:
    """An address without user name and password."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else url
