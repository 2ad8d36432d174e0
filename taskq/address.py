"""What a server's URL says, as text: whether it can be one, and how people may see it.

Pure, and without the client library: an app looks at its URL when it is made, before it connects to anything.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from taskq.errors import ConfigError

#: Schemes of taskq, and what each is to the client library.
SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}

#: Parameters whose values nobody may see.
_SECRET = re.compile(r"([?&#][^=&#]*(?:pass|secret|token|credential)[^=&#]*=)[^&#]*", re.IGNORECASE)
#: What stands where a port may be and is none: most likely a password whose host was left out.
_NO_PORT = re.compile(r"^(\w+://[^/?#:\[]*:)(?!\d*(?:[/?#]|$))[^/?#]*")
_QUOTE = "special characters of a password must be percent-encoded, such as %23 for #"


def check_address(url: str) -> None:
    """Raise `ConfigError` unless this can be the URL of a server. A password is never shown."""
    scheme, colon, _ = url.partition("://")
    shown = repr(safe_url(url))
    if not colon or scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ConfigError(
            f"the server URL {shown}, of TaskQ(url=...), TASKQ_URL or --url, does not begin with one of {known}"
        )
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for a port that is not a number
        if "#" in url:  # what follows, with the host, would be left out without a word
            raise ValueError(f"it has a #; {_QUOTE}")
        parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True)
    except ValueError as error:
        why = str(error)
        if why.startswith("Port "):  # it quotes what it took for the port: part of a password, if that has a /
            why = f"its port is not a number from 0 to 65535; {_QUOTE}"
        elif why.startswith("bad query field"):
            why = f"what follows its ? is not name=value; {_QUOTE}"
        raise ConfigError(f"the server URL {shown} cannot be read: {why}") from None
    if scheme == "unix":
        if not parts.path:
            raise ConfigError(f"the server URL {shown} has no path to a socket")
    elif not re.fullmatch(r"(/\d*)?", parts.path, re.ASCII):  # redis-py would take database 0
        path = parts.path if "@" not in parts.path else "something"
        raise ConfigError(f"the server URL {shown} has {path!r} where the number of a database may be: /0")


def safe_url(url: str) -> str:
    """Return the URL without its passwords, for people to see."""
    url = _SECRET.sub(r"\1***", url)
    head, at, tail = url.rpartition("@")
    if not at:
        return _NO_PORT.sub(r"\1***", url)
    scheme, slashes, credentials = head.partition("://")
    user = credentials.partition(":")[0]
    return f"{scheme}{slashes}{user}{':***' if ':' in credentials else ''}@{tail}"
