"""A boto3 client as nearer needs it."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config
from botocore.utils import parse_timestamp

import nearer
from nearer.errors import InputError
from nearer.store.s3.failures import in_words
from nearer.store.s3.options import S3Options


class Access(NamedTuple):
    """A thread-safe client, and the session that it has its credentials from."""

    client: Any
    session: Any


def make_client(options: S3Options, *, bucket: str) -> Access:
    """A client as nearer needs it; credentials come from boto3's chain.

    Raises:
        InputError: endpoint, profile or CA bundle cannot be used.
    """
    if options.ca_bundle and not Path(options.ca_bundle).expanduser().is_file():
        raise InputError(
            f"the CA bundle {options.ca_bundle} is not there",
            where="store.s3.ca_bundle",
            rule="a file of certificates in PEM form",
        )
    config = Config(
        region_name=options.region,
        user_agent_extra=f"nearer/{nearer.__version__}",
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        max_pool_connections=options.requests_at_once + 2,  # and the background's
        retries={"mode": "adaptive", "total_max_attempts": options.attempts},
        tcp_keepalive=True,
        request_checksum_calculation=options.checksums,
        # Each file's own sha256 is compared after reading; a second checksum would only cost time.
        response_checksum_validation="when_required",
        # Each body is sent with its Content-MD5, over http as well; hashing it once more for the signature proves
        # nothing that this does not.
        s3={"addressing_style": options.addressing, "payload_signing_enabled": False},
    )
    with in_words("Configure", bucket):
        try:
            session = botocore.session.get_session()
            session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
            client = boto3.session.Session(botocore_session=session, profile_name=options.profile).client(
                "s3",
                endpoint_url=options.endpoint,
                config=config,
                verify=str(Path(options.ca_bundle).expanduser()) if options.ca_bundle else None,
            )
        except ValueError as error:
            raise InputError(
                "the endpoint is no address",
                where="store.s3.endpoint",
                rule="http://host:port or https://host:port",
            ) from error
    # boto3 sends a CRC32 here where older stores insist on the MD5 that the protocol began with.
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)
    return Access(client, session)


def md5(data: bytes | memoryview) -> tuple[str, str]:
    """The MD5 of a request's body as S3 wants it: hex as in an ETag, base64 as in Content-MD5."""
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return digest.hex(), base64.b64encode(digest).decode()


def _moment(text: Any) -> datetime:
    """A time in an answer. Botocore tries every form of date, most of the time that a listing takes."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        moment: datetime = parse_timestamp(text)
        return moment


def _add_md5(request: Any, **_: Any) -> None:
    if request.body and "Content-MD5" not in request.headers:
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        request.headers["Content-MD5"] = md5(body)[1]
