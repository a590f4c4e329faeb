"""Requests to an API server: attempts, credentials that run out, streams with an end, and words for what fails.

The official client is used for what it is good at: configuration, credentials, TLS, proxies. Its generated methods are
left aside: they do not know `sinceTime` of a log, and its models refuse answers that the server may give. Its watch and
its log follow hang on a connection that died silently (kubernetes-client/python#1234, #728); here every stream has an
end that is known.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nearer.cluster.answers import TRANSIENT, Refusal, Unreachable, refusal_of
from nearer.cluster.connect import Connection
from nearer.cluster.patience import Patience

Object = dict[str, Any]


class Transport:
    """One server. Safe to use from several threads.

    Every method raises `Refusal` when the server says no and `Unreachable` when there is no answer after all attempts;
    streams make one attempt. Credentials that ran out are read again once.

    Args:
        connect: reads the configuration and makes a connection.
        patience: how long to wait.
    """

    def __init__(self, connect: Callable[[], Connection], *, patience: Patience) -> None:
        self._connect = connect
        self._connection = connect()
        self._lock = threading.Lock()
        self.patience = patience
        self.namespace = self._connection.namespace
        self.where = self._connection.where

    def with_patience(self, patience: Patience) -> Transport:
        """The same connection, with other ideas of how long to wait."""
        other = copy.copy(self)
        other.patience = patience
        return other

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        warnings: list[str] | None = None,
    ) -> Object:
        """One request, again after what passes by itself; the answer. The server's warnings are added to `warnings`."""
        pauses = self.patience.pauses()
        for attempt in range(1, self.patience.attempts + 1):
            try:
                response = self._request(
                    method,
                    path,
                    query=query or {},
                    body=body,
                    content_type=content_type,
                    silence_seconds=self.patience.answer_seconds,
                )
                answer: Object = json.loads(_data(response))
            except (Refusal, Unreachable) as error:
                transient = isinstance(error, Unreachable) or error.code in TRANSIENT
                if not transient or attempt == self.patience.attempts:
                    raise
                time.sleep(next(pauses))
            else:
                if warnings is not None:
                    warnings += [_warning(text) for text in response.headers.getlist("Warning")]
                return answer
        raise AssertionError  # the last attempt returns or raises

    def stream(self, path: str, *, query: Mapping[str, str], silence_seconds: float) -> Iterator[bytes]:
        """The bytes of one answer as they arrive; it is over when nothing comes for so many seconds."""
        response = self._request("GET", path, query=query, body=None, content_type="", silence_seconds=silence_seconds)
        errors = _http_errors()
        try:
            yield from response.stream(1 << 16, decode_content=False)
        except errors as error:
            raise Unreachable(_short(error)) from error
        finally:
            response.close()

    def _request(self, method: str, path: str, **how: Any) -> Any:
        """One attempt (see `_attempt`), two if the credentials ran out; the open response."""
        connection = self._connection

        def attempt(by: Connection) -> Any:
            return self._attempt(by, method, path, **how)

        try:
            return attempt(connection)
        except Refusal as refusal:
            if refusal.code != 401:
                raise
        with self._lock:
            if self._connection is connection:
                self._connection = self._connect()
        return attempt(self._connection)

    def _attempt(
        self,
        connection: Connection,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        silence_seconds: float,
    ) -> Any:
        """One request over a connection; the open response."""
        client = connection.client
        headers = {"Accept": "application/json, */*", **({"Content-Type": content_type} if body else {})}
        request = client.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        from kubernetes.client import ApiException

        try:
            timeouts = (self.patience.connect_seconds, silence_seconds)
            response = client.call_api(*request, _request_timeout=timeouts).response
            if 200 <= response.status <= 299:
                return response
            raise refusal_of(code=response.status, body=_data(response), reason=response.reason)
        except _http_errors() as error:
            raise Unreachable(_short(error)) from error
        except ApiException as error:  # TLS: the client wraps it so
            raise Unreachable(str(error.reason or error)) from error


def _data(response: Any) -> bytes:
    try:
        data: bytes = response.data
    except _http_errors() as error:
        raise Unreachable(_short(error)) from error
    return data


def _http_errors() -> tuple[type[Exception], ...]:
    import urllib3

    return (urllib3.exceptions.HTTPError, OSError)


def _short(error: BaseException) -> str:
    """The reason within urllib3's wrappings, without the addresses of its objects."""
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    if isinstance(inner, BaseException):
        return _short(inner)
    return str(error).rpartition(": ")[2] if "object at 0x" in str(error) else str(error)


def _warning(header: str) -> str:
    """The text of a warning header, `299 - "text"`."""
    return header.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or header
