"""Small values that processes keep on the server for others to read: maps in msgpack, which scripts never look into.

The reader may be of another version, and anybody may have written there: a part that is not what it should be counts as
missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import msgpack

from taskq.errors import DecodeError
from taskq.message import codec

T = TypeVar("T")


def write(value: Any) -> bytes:
    """Write a dataclass, field by field."""
    return bytes(msgpack.packb({field.name: getattr(value, field.name) for field in fields(value)}))


def read(kind: type[T], stored: bytes, types: Mapping[str, type | tuple[type, ...]]) -> T:
    """Read what `write` wrote; ``types`` has what each field must be to count."""
    try:
        told = codec.read(stored) if stored else {}
    except DecodeError:
        told = {}
    given: Iterable[tuple[Any, Any]] = told.items() if isinstance(told, dict) else ()
    known: dict[str, Any] = {name: value for name, value in given if isinstance(value, types.get(name, ()))}
    return kind(**known)
