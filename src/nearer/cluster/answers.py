"""What an API server says instead of an answer, and what nearer's user is told about it."""

from __future__ import annotations

import json
from typing import Any

from nearer.errors import InputError, NearerError, NoPermission, OutOfReach

TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""HTTP codes that another attempt may change. 500 is among them: the way to a node, or to etcd, reports itself so."""


class Refusal(Exception):
    """The server answered, and the answer is no.

    Args:
        code: HTTP code of the Status.
        reason: machine-readable, e.g. AlreadyExists.
        message: the server's own words.
    """

    def __init__(self, *, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class Unreachable(Exception):
    """There was no answer: no connection, a cut one, or none in time."""


def refusal_of(*, code: int, body: str | bytes | None, reason: str | None = None) -> Refusal:
    """Read the Status object of an answer; what is none (a proxy's page) is quoted."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        status: Any = json.loads(text)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        return Refusal(code=code, reason=reason or "", message=text.strip()[:500] or reason or f"HTTP {code}")
    message = str(status.get("message") or reason or f"HTTP {code}")
    return Refusal(
        code=int(status.get("code") or code), reason=str(status.get("reason") or reason or ""), message=message
    )


def told(error: Refusal | Unreachable, *, doing: str, where: str) -> NearerError:
    """The user's side of it.

    Args:
        error: what came back, after all attempts.
        doing: what was asked, e.g. "create the Job tune-1".
        where: namespace and context.
    """
    if isinstance(error, Unreachable):
        return OutOfReach(
            f"the cluster is out of reach, could not {doing}: {error}",
            where=where,
            way_out="check the network, VPN and the kubeconfig's address, then run the same command again",
        )
    if error.code == 401:
        return NoPermission(
            f"the cluster does not know these credentials, could not {doing}: {error.message}",
            where=where,
            way_out="log in again, or renew the token of the kubeconfig",
        )
    if error.code == 403 and " cannot " in error.message:  # other words: a quota or an admission policy
        return NoPermission(
            f"may not {doing}: {error.message}",
            where=where,
            rule="the rights in docs/submitter-rbac.yaml",
            way_out="nearer doctor cluster says which rights are missing",
        )
    if error.code in TRANSIENT:
        return OutOfReach(
            f"the cluster could not {doing}: {error.message}", where=where, way_out="run the same command again"
        )
    return InputError(f"the cluster refuses to {doing}: {error.message}", where=where)
