"""The Lua scripts: read from ``lua/``, with their includes resolved.

A file includes ``lua/lib/<name>.lua`` by a line ``--@include <name>``. Comments are stripped, since the text
travels to the server.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_TEST_CLOCK = "--[[test clock]]"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its name, text and SHA-1 (hexadecimal, as EVALSHA wants it)."""

    name: str
    text: bytes
    sha: bytes


@cache
def script(name: str) -> Script:
    """Return the script ``lua/<name>.lua``."""
    lua = files("taskq.broker") / "lua"
    source = (lua / f"{name}.lua").read_text()
    while _INCLUDE.search(source):  # parts have parts
        source = _INCLUDE.sub(lambda m: (lua / "lib" / f"{m[1]}.lua").read_text(), source)
    if os.environ.get("TASKQ_TEST_CLOCK"):
        # Tests move the server's clock by setting the key `clock` (ms); nothing else can.
        source = source.replace(_TEST_CLOCK, "+ (tonumber(redis.call('GET', KEYS[1] .. 'clock')) or 0)")
    lines = (re.sub(r"(^|\s)--(?!@).*$", "", line).strip() for line in source.splitlines())
    text = "\n".join(line for line in lines if line).encode()
    return Script(name, text, hashlib.sha1(text).hexdigest().encode())


def all_scripts() -> list[Script]:
    """Return every script there is."""
    lua = files("taskq.broker") / "lua"
    return [script(f.name.removesuffix(".lua")) for f in sorted(lua.iterdir(), key=str) if f.name.endswith(".lua")]
