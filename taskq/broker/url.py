"""Server URLs: which class of connection, with which arguments."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio.connection as async_kinds
import redis.connection as kinds
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskq.errors import ConfigError

_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}

#: Client options that would break a promise: a transparent retry repeats *any* command (redis-py repeats up to
#: ten times by default, so a lost reply would enqueue twice). taskq repeats what is safe, by itself.
_FIXED = {"retry_on_timeout": False, "retry_on_error": [], "decode_responses": False, "socket_keepalive": True}


def connection_arguments(url: str) -> dict[str, Any]:
    """Return redis-py's arguments for a URL, with taskq's fixed ones.

    Raises:
        ConfigError: Not a URL of a known scheme, or one redis-py cannot read. A password is never shown.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigError(
            f"the server URL {safe_url(url)!r}, of TaskQ(url=...), TASKQ_URL or --url, "
            f"does not begin with one of {known}"
        )
    try:
        arguments: dict[str, Any] = kinds.parse_url(f"{_SCHEMES[scheme]}://{rest}")  # type: ignore[no-untyped-call]
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for a port that is not a number
    except ValueError as error:
        why = str(error)
        if why.startswith("Port could not"):  # it quotes what it took for the port: part of a password, if that has a /
            why = "its port is not a number (a password's special characters must be percent-encoded)"
        raise ConfigError(f"the server URL {safe_url(url)!r} cannot be read: {why}") from None
    if scheme == "unix" and not arguments.get("path"):
        raise ConfigError(f"the server URL {safe_url(url)!r} has no path to a socket")
    if scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path, re.ASCII):  # redis-py would take database 0
        raise ConfigError(
            f"the server URL {safe_url(url)!r} has {parts.path!r} where the number of a database may be: /0"
        )
    arguments.pop("connection_class", None)
    fixed = {k: v for k, v in _FIXED.items() if scheme != "unix" or k != "socket_keepalive"}
    return {"socket_connect_timeout": 5.0, **arguments, **fixed}


def check_url(url: str) -> None:
    """Raise `ConfigError` if no connection can be made of this URL: its scheme, its parts or its options are wrong."""
    try:
        new_connection(url, 1.0)
    except (TypeError, ValueError, RedisError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the options of the server URL {safe_url(url)!r} are not redis-py's: {error}") from None


def new_connection(url: str, timeout: float) -> Any:
    """Return a connection to the server, not connected yet, that waits ``timeout`` seconds for an answer."""
    cls = _kind(url, kinds.Connection, kinds.SSLConnection, kinds.UnixDomainSocketConnection)
    arguments = connection_arguments(url) | {"socket_timeout": timeout}
    return cls(**arguments, retry=Retry(NoBackoff(), 0))


def new_async_connection(url: str) -> Any:
    """The same for use on an event loop, without a time-out: whoever uses it has `asyncio.timeout`.

    redis-py's own answers None when it is over, so that the reply is taken for the next command's; and its
    `asyncio.wait_for` around each sending swallows a cancellation that comes at that moment.
    """
    cls = _kind(url, async_kinds.Connection, async_kinds.SSLConnection, async_kinds.UnixDomainSocketConnection)
    arguments = connection_arguments(url) | {"socket_timeout": None}
    return cls(**arguments, retry=AsyncRetry(NoBackoff(), 0))


def _kind(url: str, tcp: type, tls: type, unix: type) -> Any:
    scheme = _SCHEMES.get(url.partition("://")[0])
    return {"redis": tcp, "rediss": tls, "unix": unix}.get(scheme or "", tcp)


def safe_url(url: str) -> str:
    """Return the URL without its password, for people to see."""
    url = re.sub(r"([?&]password=)[^&]*", r"\1***", url)
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, credentials = head.partition("://")
    user = credentials.partition(":")[0]
    return f"{scheme}{slashes}{user}{':***' if ':' in credentials else ''}@{tail}"
