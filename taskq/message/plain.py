"""Turns what msgpack cannot write into what it can: extension types, and plain values for classes of one's own.

The order of the members of a set, and the time zone of a moment, are written so that a reader gets the same.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgpack

#: How deep extension types (tuples, sets …) may be nested. Each takes 40 kB of the C stack to read, so a few
#: hundred would end the process; what `pack` writes, `unpack` must be able to read.
_MAX_EXT_DEPTH = 50


class _ExtDepth(threading.local):
    """How many extension types this thread is inside of at the moment."""

    level = 0

    def __enter__(self) -> None:
        if self.level >= _MAX_EXT_DEPTH:
            raise ValueError(f"tuples, sets and the like nested deeper than {_MAX_EXT_DEPTH} levels")
        self.level += 1

    def __exit__(self, *_: object) -> None:
        self.level -= 1


#: To be entered for each extension type that is written or read.
ext_depth = _ExtDepth()


def _ext(code: int, value: Any) -> msgpack.ExtType:
    with ext_depth:
        return msgpack.ExtType(code, msgpack.packb(value, default=to_plain, strict_types=True))


def _uuid_ext(value: Any) -> msgpack.ExtType:
    with ext_depth:
        return msgpack.ExtType(5, value.bytes)


def _when(value: dt.datetime | dt.time) -> list[Any]:
    """ISO text, name of the time zone or nil, fold: with a name the text is without an offset."""
    key = getattr(value.tzinfo, "key", None)
    return [(value if key is None else value.replace(tzinfo=None)).isoformat(), key, value.fold]


def _in_order(values: Any) -> list[Any]:
    """List a set so that equal sets are written alike in every process, where its members can be compared."""
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _mapping_of_fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}


#: How a class and its subclasses are written. Classes are named by module and name, so that no module is imported for
#: values that nobody has. The order matters: a subclass before its base.
_KINDS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("enum", "Enum", lambda v: _once(v.value)),
    ("datetime", "datetime", lambda v: _ext(1, _when(v))),
    ("datetime", "date", lambda v: _ext(2, v.isoformat())),
    ("datetime", "time", lambda v: _ext(3, _when(v))),
    ("datetime", "timedelta", lambda v: _ext(4, [v.days, v.seconds, v.microseconds])),
    ("uuid", "UUID", _uuid_ext),
    ("decimal", "Decimal", lambda v: _ext(6, str(v))),
    ("builtins", "set", lambda v: _ext(7, _in_order(v))),
    ("builtins", "frozenset", lambda v: _ext(8, _in_order(v))),
    ("builtins", "tuple", lambda v: _ext(9, list(v))),
    ("pathlib", "PurePath", lambda v: _ext(11, str(v))),
    ("pydantic", "BaseModel", lambda v: v.model_dump(round_trip=True)),
    ("builtins", "dict", dict),
    ("builtins", "list", list),
    ("builtins", "str", str.__str__),
    ("builtins", "float", float),
    ("builtins", "bytes", bytes),
    ("builtins", "bytearray", bytes),
    ("builtins", "memoryview", bytes),
]


def _big_int(value: int) -> msgpack.ExtType:
    return _ext(10, hex(value))


#: The same by class, as far as classes have been met. An ``int`` itself comes here only if msgpack has no room for it.
_writers: dict[type, Callable[[Any], Any]] = {int: _big_int}


def to_plain(value: Any) -> Any:
    """Turn one object into something msgpack can write (its parts may again be such objects)."""
    cls = type(value)
    writer = _writers.get(cls)
    if writer is None:
        writer = _writers[cls] = _writer_of(cls)
    return writer(value)


def _writer_of(cls: type) -> Callable[[Any], Any]:
    for module, name, writer in _KINDS:
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and issubclass(cls, base):
            return writer
    if dataclasses.is_dataclass(cls):
        return _mapping_of_fields
    if issubclass(cls, int):
        return lambda value: _once(int(value))
    raise TypeError(f"cannot serialise {cls.__module__}.{cls.__qualname__}".replace(" builtins.", " "))


def _once(value: Any) -> Any:
    """Do what `to_plain` does, for a value that stands for another: msgpack does not ask about that again."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else _big_int(value)
    return value if type(value) in _PLAIN else to_plain(value)


_PLAIN = frozenset({type(None), bool, float, str, bytes, list, dict})
