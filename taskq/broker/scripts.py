"""The Lua scripts: read from ``lua/``, with their includes resolved.

A file includes ``lua/lib/<name>.lua`` by a line ``--@include <name>``, another script by ``--@script <name>``. Comments
are stripped, since the text travels to the server.

``$NAME`` stands for a letter or a number of the table in `taskq.message.letters`.

A script makes its functions anew in each call, a third of a microsecond each. Functions that most calls do not need are
therefore included by ``--@lazy <table>: <names of parts>``: the functions of these parts become fields of the table
when the first of them is asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from taskq.message import letters

_SCRIPT = re.compile(r"^--@script (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_LAZY = re.compile(r"^--@lazy (\w+): ([\w ]+)$", re.MULTILINE)
_NAME = re.compile(r"\$([A-Z_]+)")
_FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
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
    source = _put_together(_SCRIPT.sub(lambda found: _read(found[1]), _read(name)))
    source = _NAME.sub(lambda found: _written(getattr(letters, found[1])), source)
    if os.environ.get("TASKQ_TEST_CLOCK"):
        # Tests move the server's clock by setting the key `clock` (ms); nothing else can.
        source = source.replace(_TEST_CLOCK, "+ (tonumber(redis.call('GET', KEYS[1] .. 'clock')) or 0)")
    lines = (re.sub(r"(^|\s)--(?!@).*$", "", line).strip() for line in source.splitlines())
    text = "\n".join(line for line in lines if line).encode()
    return Script(name, text, hashlib.sha1(text).hexdigest().encode())


def _read(name: str) -> str:
    return (files("taskq.broker") / "lua" / f"{name}.lua").read_text()


def _written(value: bytes | int) -> str:
    return str(value) if isinstance(value, int) else f"'{value.decode()}'"


def _put_together(source: str) -> str:
    """Put the parts in place of the lines that name them."""
    return _LAZY.sub(lambda found: _made_lazily(found[1], found[2].split()), _with_parts(source))


def _with_parts(source: str) -> str:
    """Include parts, which have parts, but for what is made lazily."""
    lib = files("taskq.broker") / "lua" / "lib"
    return _INCLUDE.sub(lambda found: _with_parts((lib / f"{found[1]}.lua").read_text()), source)


def _made_lazily(table: str, names: list[str]) -> str:
    """Return a table that makes the functions of some parts, all of them, when it is first asked for one."""
    parts = _with_parts("\n".join(f"--@include {name}" for name in names))
    fields = ", ".join(f"{name} = {name}" for name in dict.fromkeys(_FUNCTION.findall(parts)))
    return f"""local {table} = setmetatable({{}}, {{ __index = function({table}, name)
{_put_together(parts)}
for field, made in pairs({{ {fields} }}) do rawset({table}, field, made) end
return rawget({table}, name)
end }})"""


def all_scripts() -> list[Script]:
    """Return every script there is."""
    lua = files("taskq.broker") / "lua"
    return [script(f.name.removesuffix(".lua")) for f in sorted(lua.iterdir(), key=str) if f.name.endswith(".lua")]
