"""Plain values back to what a task's annotations say: enums, dataclasses, pydantic models, in any container.

A converter is built once a task. Where the annotations need none (``int``, ``str``, ``datetime`` …) there is
none, and the call costs nothing.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

Converter = Callable[[Any], Any]


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of ``function``; empty if one exists only for the type checker."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        return {}


def converter(annotation: Any) -> Converter | None:
    """Return what turns a decoded value into ``annotation``, or None if it already is one."""
    if isinstance(annotation, typing.NewType):
        return converter(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return converter(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return _union(typing.get_args(annotation))
    if origin is not None:
        return _container(origin, typing.get_args(annotation))
    if isinstance(annotation, type):
        return _class(annotation)
    return None


def _class(cls: type) -> Converter | None:
    if issubclass(cls, Enum):
        return cls
    if hasattr(cls, "model_validate"):
        return cls.model_validate  # type: ignore[no-any-return]
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return lambda value: cls(*value)
    return None


def _dataclass(cls: type) -> Converter:
    convert: dict[str, Converter | None] | None = None

    def build(value: Any) -> Any:
        nonlocal convert
        if isinstance(value, cls):
            return value
        if convert is None:  # at first use: a class may refer to itself
            hints = hints_of(cls)
            convert = {f.name: converter(hints.get(f.name)) for f in dataclasses.fields(cls)}
        fields = {}
        for name, item in value.items():
            apply = convert[name]
            fields[name] = item if apply is None else apply(item)
        return cls(**fields)

    return build


def _union(members: tuple[Any, ...]) -> Converter | None:
    converters = [(member, converter(member)) for member in members if member is not type(None)]
    if not any(convert for _, convert in converters):
        return None

    def pick(value: Any) -> Any:
        if value is None:
            return None
        for member, convert in converters:
            if convert is None:
                if not isinstance(member, type) or isinstance(value, (member, int) if member is float else member):
                    return value
                continue
            try:
                return convert(value)
            except (TypeError, ValueError, KeyError, AttributeError):
                continue  # not this member of the union
        raise ValueError(f"{value!r:.100} fits none of {', '.join(str(member) for member in members)}")

    return pick


def _container(origin: Any, args: tuple[Any, ...]) -> Converter | None:
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        items = [converter(arg) for arg in args]
        if not any(items):
            return None
        return lambda value: tuple(
            item if convert is None else convert(item) for convert, item in zip(items, value, strict=True)
        )
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping) and len(args) == 2:
        return _mapping(converter(args[0]), converter(args[1]))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Collection) and args:
        item = converter(args[0])
        if item is None:
            return None
        build = origin if origin in (tuple, set, frozenset) else list
        return lambda value: build(map(item, value))
    return None


def _mapping(key: Converter | None, item: Converter | None) -> Converter | None:
    if key is None and item is None:
        return None
    return lambda value: {(k if key is None else key(k)): (v if item is None else item(v)) for k, v in value.items()}
