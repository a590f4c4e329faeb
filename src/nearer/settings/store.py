"""The `store` section: how S3 is reached, and what is kept on this machine."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, WithJsonSchema

from nearer.settings.section import Section, execution

_PLAIN_URL = r"^https?://[^@/\s]+(/\S*)?$"


def _plain_url(url: str) -> str:
    if not re.fullmatch(_PLAIN_URL, url):
        raise ValueError("http(s)://host:port; credentials stand in the environment, never in an address")
    return url


Url = Annotated[str, AfterValidator(_plain_url), WithJsonSchema({"type": "string", "pattern": _PLAIN_URL})]


class S3Settings(Section):
    """How S3, or a store that speaks its language, is reached.

    What is left out is left to boto3's own chain: the environment (AWS_*), profiles, a service account's role; proxies
    by HTTPS_PROXY and NO_PROXY. Secrets never stand here.
    """

    endpoint: Url | None = execution(None, description="Address of a store that is not AWS: http(s)://host:port.")
    region: str | None = execution(None, description="Region of the bucket.")
    profile: str | None = execution(None, description="Profile in the shared AWS configuration files.")
    addressing: Literal["auto", "path", "virtual"] = execution(
        "auto", description="Bucket in the path or in the host name."
    )
    checksums: Literal["when_supported", "when_required"] = execution(
        "when_required",
        description="`when_supported` adds boto3's CRC32, on which some stores choke; each body carries its "
        "Content-MD5 anyway, and each file of an artifact its sha256.",
    )
    encryption: Literal["AES256", "aws:kms"] | None = execution(
        None, description="Server-side encryption of what is written; null: as the bucket has it."
    )
    kms_key_id: str | None = execution(None, description="Key for `aws:kms`; null: the bucket's default key.")
    ca_bundle: str | None = execution(None, description="File of certificates to trust (PEM).")
    attempts: PositiveInt = execution(8, description="Attempts of a request, at an adaptive rate, before exit 69.")
    connect_timeout_seconds: PositiveFloat = execution(10.0, description="Until a connection stands.")
    read_timeout_seconds: PositiveFloat = execution(60.0, description="Without a byte from the store.")
    requests_at_once: Annotated[int, Field(ge=1, le=256)] = execution(
        16, description="Requests in flight of one process; those of `store.s3` hold for all buckets."
    )
    part_mebibytes: Annotated[int, Field(ge=5, le=1024)] = execution(
        8, description="Smallest part of an upload or ranged read; times `requests_at_once` is the memory it takes."
    )
    small_files: Literal["auto", "boto3"] = execution(
        "auto",
        description="What moves files up to 1 MiB; `auto`: AWS's client in C (`nearer[fast]`), if it is installed; "
        "what it cannot do, boto3 does.",
    )


class StoreSettings(Section):
    """Where artifacts are kept, as far as that is not this machine's own disk."""

    cache_dir: str | None = execution(
        None,
        description="Local copies of what comes from S3, and unfinished work that goes there; "
        "null: $XDG_CACHE_HOME/nearer or ~/.cache/nearer.",
    )
    cache_gibibytes: PositiveFloat = execution(
        100.0, description="Above it, what no process uses is evicted, longest unused first."
    )
    s3: S3Settings = S3Settings()
    buckets: dict[str, S3Settings] = execution({}, description="Instead of `s3`, for single buckets, by name.")
