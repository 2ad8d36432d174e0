"""Server URLs: which class of connection, with which arguments."""

from __future__ import annotations

import socket
from typing import Any

import redis.asyncio.connection as async_kinds
import redis.connection as kinds
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskq.address import SCHEMES, check_address, safe_url
from taskq.errors import ConfigError

#: Client options that would break a promise: a transparent retry repeats *any* command (redis-py repeats up to
#: ten times by default, so a lost reply would enqueue twice). taskq repeats what is safe, by itself.
_FIXED = {"retry_on_timeout": False, "retry_on_error": [], "decode_responses": False}
#: After so many seconds of silence the kernel asks whether the other end is there, so many seconds apart, so many
#: times: who waits for a bell notices within 8 s that a router has forgotten its connection, at no cost to the server.
_KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPALIVE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2}


def connection_arguments(url: str) -> dict[str, Any]:
    """Return redis-py's arguments for a URL, with taskq's fixed ones.

    Raises:
        ConfigError: Not a URL of a known scheme, or one redis-py cannot read. A password is never shown.
    """
    check_address(url)
    scheme, _, rest = url.partition("://")
    try:
        arguments: dict[str, Any] = kinds.parse_url(f"{SCHEMES[scheme]}://{rest}")  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ConfigError(f"the server URL {safe_url(url)!r} cannot be read: {error}") from None
    arguments.pop("connection_class", None)
    if scheme != "unix":
        known = {getattr(socket, name): n for name, n in _KEEPALIVE.items() if hasattr(socket, name)}
        arguments |= {"socket_keepalive": True, "socket_keepalive_options": known}
    return {"socket_connect_timeout": 5.0, **arguments, **_FIXED}


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
    scheme = SCHEMES.get(url.partition("://")[0])
    return {"redis": tcp, "rediss": tls, "unix": unix}.get(scheme or "", tcp)
