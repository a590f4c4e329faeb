"""How a bucket is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """What boto3's own chain (environment, profiles, IRSA, instance role) does not say; `None` leaves it to that.

    Args:
        endpoint: base address of a store that is not AWS.
        region: of the bucket.
        profile: in the shared AWS configuration files.
        addressing: bucket in the host name (`virtual`) or in the path (`path`).
        checksums: `when_supported` adds the CRC32 that boto3 sends by default and some stores choke on; each body
            carries its Content-MD5 anyway.
        encryption: server-side encryption of what is written.
        kms_key_id: the key for `aws:kms`; None: the bucket's default key.
        ca_bundle: file of certificates to trust instead of the default ones.
        attempts: of a request, the first included, at an adaptive rate.
        connect_timeout_seconds: until a connection stands.
        read_timeout_seconds: without a byte from the store.
        requests_at_once: requests in flight of one process.
        part_bytes: smallest part of a multipart upload and of a ranged read; at least 5 MiB.
        small_files: what moves files of at most 1 MiB: with `auto`, AWS's client in C where it is installed.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    checksums: Literal["when_supported", "when_required"] = "when_required"
    encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    ca_bundle: str | None = None
    attempts: int = 8
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    requests_at_once: int = 16
    part_bytes: int = 8 << 20
    small_files: Literal["auto", "boto3"] = "auto"


@dataclass(frozen=True, kw_only=True)
class S3Buckets:
    """The options of each bucket: its own, else those of all."""

    default: S3Options = field(default_factory=S3Options)
    buckets: Mapping[str, S3Options] = field(default_factory=dict)

    def of(self, bucket: str) -> S3Options:
        """The options for a bucket."""
        return self.buckets.get(bucket, self.default)
