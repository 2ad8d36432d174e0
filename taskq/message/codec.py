"""Arguments and results as msgpack bytes.

Extension types carry what msgpack lacks: dates and times, UUID, Decimal, sets, tuples, paths, large
integers. Enums, dataclasses and pydantic models travel as plain values and become objects again through
the task's annotations (see `taskq.tasks.annotations`): a message never names a class.

Source: the msgpack specification; extension codes 1 to 11 are taskq's own.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from taskq.errors import DecodeError, SerializationError
from taskq.message.plain import ext_depth, to_plain

#: How deep lists and maps may be nested in what is read, and so in what is written (Python itself cannot walk deeper),
#: and how many entries each may have. A level and an entry take a byte each, so shorter data is within the limits.
_MAX_DEPTH, _MAX_ENTRIES = 1000, 1_000_000
#: msgpack reads 1024 levels and refuses the next. With this put before the data, it refuses data that is too deep.
_LEVELS_TAKEN = b"\x91" * (1024 - _MAX_DEPTH)
#: A skipper that has seen this many bytes keeps too large a buffer.
_SKIPPER_KEPT = 1 << 16
#: The body of a call without arguments.
NO_ARGUMENTS = b"\x92\x90\x80"


def pack(value: Any, name: str = "value") -> bytes:
    """Write ``value``.

    Raises:
        SerializationError: Part of it cannot be written; the text names the path to it, beginning with ``name``.
    """
    try:
        data = _mine.pack(value)
        if len(data) > _MAX_DEPTH:
            _check_readable(data)
    except Exception:  # rich types, or an error that the slow path explains
        return _pack_rich(value, lambda root: iter([(name, root)]))
    return data


def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Write the arguments of a call as ``[args, kwargs]``; raises as `pack` does."""
    if not args and not kwargs:
        return NO_ARGUMENTS
    try:
        data = _mine.pack([list(args), kwargs])
        if len(data) > _MAX_DEPTH:
            _check_readable(data)
    except Exception:
        return _pack_rich([list(args), kwargs], _call_paths)
    return data


def in_order(data: bytes) -> bytes:
    """Write again what `pack` wrote, with the keys of each map in one order: equal dicts are the same bytes then."""

    def sort(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        return dict(sorted(pairs, key=lambda pair: bytes(msgpack.packb(pair[0]))))

    def keep(code: int, content: bytes) -> msgpack.ExtType:  # tuples and sets may have maps in them; others cannot
        return msgpack.ExtType(code, in_order(content) if code in (7, 8, 9) else content)

    return bytes(msgpack.packb(msgpack.unpackb(data, object_pairs_hook=sort, ext_hook=keep, strict_map_key=False)))


def unpack(data: bytes) -> Any:
    """Read what `pack` wrote.

    Raises:
        DecodeError: Not msgpack, cut short, followed by more, nested too deep, with too many entries, or with an
            extension type that is not taskq's.
    """
    try:
        if len(data) <= _MAX_DEPTH:
            return msgpack.unpackb(data, ext_hook=_from_ext, strict_map_key=False, timestamp=3)
        return _unpack_large(data, ext_hook=_from_ext, strict_map_key=False, timestamp=3)
    except Exception as error:
        raise _unreadable(error) from None


def read(data: bytes | memoryview) -> Any:
    """Read msgpack without extension types, as taskq itself writes it around values; raises as `unpack` does."""
    try:
        return _unpack_large(data, ext_hook=_no_ext)
    except Exception as error:
        raise _unreadable(error) from None


def _unpack_large(data: bytes | memoryview, **options: Any) -> Any:
    """Read what could be beyond the limits. Lengths beyond the end of the data are refused by msgpack itself."""
    _check_depth(data)
    return msgpack.unpackb(data, max_array_len=_MAX_ENTRIES, max_map_len=_MAX_ENTRIES, **options)


def _check_depth(data: bytes | memoryview) -> None:
    """Raise `DecodeError` if ``data`` is nested too deep, without making anything of it."""
    skipper, _mine.skipper = _mine.skipper or msgpack.Unpacker(max_buffer_size=0), None
    try:
        skipper.feed(_LEVELS_TAKEN)
        skipper.feed(data)
        skipper.skip()
        if len(data) < _SKIPPER_KEPT and not skipper.read_bytes(1):
            _mine.skipper = skipper
    except msgpack.StackError:
        raise DecodeError(f"lists and maps nested deeper than {_MAX_DEPTH} levels") from None
    except (msgpack.FormatError, msgpack.OutOfData):
        pass  # reading it says so in more words


def _unreadable(error: Exception) -> DecodeError:
    if isinstance(error, DecodeError):
        return error
    # msgpack raises half a dozen types, none of them its own
    return DecodeError(f"not readable as msgpack: {type(error).__name__}: {error}"[:300])


def _check_readable(data: bytes) -> None:
    """Raise `DecodeError` if what was packed is beyond the limits of `unpack`."""
    if len(data) > _MAX_ENTRIES:
        unpack(data)
    else:
        _check_depth(data)


def unpack_call(data: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Read what `pack_call` wrote; raises as `unpack` does."""
    call = unpack(data)
    if type(call) is not list or len(call) != 2 or type(call[0]) is not list or type(call[1]) is not dict:
        raise DecodeError("the body is not a pair of arguments and keyword arguments")
    return call[0], call[1]


class _Mine(threading.local):
    """A packer and a skipper for each thread: a shared one corrupts silently, a new one a call costs a microsecond."""

    def __init__(self) -> None:
        self.pack: Callable[[Any], bytes] = msgpack.Packer(strict_types=True).pack
        self.skipper: Any = None  # in use, or not clean any more


_mine = _Mine()


def _pack_rich(value: Any, paths: Callable[[Any], Iterator[tuple[str, Any]]]) -> bytes:
    # A fresh packer: one whose ``default`` packs again must not be re-entered.
    try:
        data = bytes(msgpack.packb(value, default=to_plain, strict_types=True))
    except Exception as error:
        raise SerializationError(_explain(value, error, paths)) from None
    try:
        unpack(data)  # what cannot be read must not be sent: a dataclass in a set, say, would come back as a dict
    except DecodeError as error:
        raise SerializationError(_explain(value, f"it could not be read back: {error}", paths)) from None
    return data


# -- from plain values ----------------------------------------------------------------------------------


#: An offset from UTC below a second, which Python's C code (3.11 to 3.13) reads as none.
_TINY_OFFSET = re.compile(r"[+-]00:00:00\.(\d{6})$")


def _read_when(cls: type[dt.datetime] | type[dt.time], data: bytes) -> Any:
    text, key, fold = unpack(data)
    value = cls.fromisoformat(text).replace(fold=fold)
    if tiny := _TINY_OFFSET.search(text):
        offset = dt.timedelta(microseconds=int(text[tiny.start()] + tiny[1]))
        value = cls.fromisoformat(text[: tiny.start()]).replace(fold=fold, tzinfo=dt.timezone(offset))
    return value if key is None else value.replace(tzinfo=_named("zoneinfo", "ZoneInfo")(key))


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


_READERS: dict[int, Callable[[bytes], Any]] = {
    1: lambda data: _read_when(dt.datetime, data),
    2: lambda data: dt.date.fromisoformat(unpack(data)),
    3: lambda data: _read_when(dt.time, data),
    4: lambda data: dt.timedelta(*unpack(data)),
    5: lambda data: _named("uuid", "UUID")(bytes=data),
    6: lambda data: _named("decimal", "Decimal")(unpack(data)),
    7: lambda data: set(unpack(data)),
    8: lambda data: frozenset(unpack(data)),
    9: lambda data: tuple(unpack(data)),
    10: lambda data: int(unpack(data), 16),
    11: lambda data: _named("pathlib", "Path")(unpack(data)),
}


def _no_ext(code: int, _data: bytes) -> Any:
    raise DecodeError(f"extension type {code} where there can be none")


def _from_ext(code: int, data: bytes) -> Any:
    reader = _READERS.get(code)
    if reader is None:
        raise DecodeError(f"extension type {code} is not one this version of taskq knows")
    with ext_depth:
        return reader(data)


# -- finding the culprit --------------------------------------------------------------------------------


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _call_paths(call: list[Any]) -> Iterator[tuple[str, Any]]:
    for index, value in enumerate(call[0]):
        yield f"args[{index}]", value
    for name, value in call[1].items():
        yield f"kwargs[{name!r}]", value


def _explain(value: Any, error: object, paths: Callable[[Any], Iterator[tuple[str, Any]]]) -> str:
    for path, root in paths(value):
        if culprit := _culprit(path, root, 0):
            return culprit
    return f"cannot serialise: {error}"


def _culprit(path: str, value: Any, depth: int) -> str | None:
    """Return ``path: why`` for the first part of ``value`` that cannot be written."""
    try:
        _check_readable(msgpack.packb(value, default=to_plain, strict_types=True))
        return None
    except Exception as error:
        why = str(error)
    if "recursion" in why or "nested deeper" in why or depth > _MAX_DEPTH:  # searching on would take seconds
        return f"{path[:60]}: cannot serialise {_type_name(value)}: nested too deep, or contains itself"
    if "exceeds max_" in why:
        return f"{path[:60]}: cannot serialise {_type_name(value)}: more than {_MAX_ENTRIES:,} entries"
    for child_path, child in _children(path, value):
        if culprit := _culprit(child_path, child, depth + 1):
            return culprit
    return f"{path}: {why if why.startswith('cannot') else f'cannot serialise {_type_name(value)}: {why}'}"


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"key {_short(key)} of {path}", key
            yield f"{path}[{_short(key)}]", item
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{path}{{{_short(item)}}}", item) for item in value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f"{path}.{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
    elif hasattr(type(value), "model_fields"):
        yield from ((f"{path}.{name}", getattr(value, name, None)) for name in type(value).model_fields)


def _short(value: Any) -> str:
    try:
        return f"{value!r:.40}"
    except Exception:  # its own __repr__
        return f"<{_type_name(value)}>"
