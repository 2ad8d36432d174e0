"""Turns plain values back into what a task's annotations say: enums, dataclasses, pydantic models, in any container.

A converter is built once for each task. If the annotations need none (``int``, ``str``, ``datetime`` …) there is none,
and the call costs nothing.
"""

from __future__ import annotations

import collections.abc
import contextvars
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

from taskq.errors import SerializationError
from taskq.message import codec
from taskq.tasks.hints import (
    EXACT,
    LOOSE,
    bare,
    field_hints,
    fit,
    hints_of,
    is_alias,
    is_typed_dict,
    is_union,
    is_unpacked,
)

Converter = Callable[[Any], Any]
Arguments = Callable[[list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]]


#: The aliases a converter is being made for: one that is met again within itself is looked up when it is needed.
_begun: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("taskq_begun", default=())


def converter(annotation: Any) -> Converter | None:
    """Return what turns a decoded value into ``annotation``, or None if it already is one."""
    if not (is_alias(annotation) or is_alias(typing.get_origin(annotation))):
        return _converter(bare(annotation))
    if annotation in _begun.get():
        once = functools.cache(lambda: converter(annotation))
        return lambda value: value if (turn := once()) is None else turn(value)
    token = _begun.set((*_begun.get(), annotation))
    try:
        return _converter(bare(annotation))
    finally:
        _begun.reset(token)


def _converter(annotation: Any) -> Converter | None:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if is_union(annotation):
        return _union(args)
    if origin is typing.Literal:
        return _literal(args)
    if origin is not None:
        return _container(origin, args)
    if isinstance(annotation, type):
        return _class(annotation, {})
    return None


def _turn(path: str, turn: Converter, value: Any) -> Any:
    try:
        return turn(value)
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from None


def convert_arguments(
    signature: inspect.Signature,
    hints: dict[str, Any],
    make: Callable[[Any], Any] = converter,
    apply: Callable[[str, Any, Any], Any] = _turn,
) -> Arguments | None:
    """Return what turns the decoded arguments of a call into what the annotations say; None if they need no turning.

    An argument without a parameter of its own is turned by the annotation of its name, which decorators pass on.

    Args:
        signature: What the call binds to.
        hints: The annotations by name.
        make: Makes what converts a value to an annotation; None if there is nothing to convert.
        apply: Applies that, with the path to the value for errors.
    """
    named = {name: turn for name, hint in hints.items() if name != "return" and (turn := make(hint)) is not None}
    if not named and not any(is_unpacked(hint) for hint in hints.values()):
        return None
    positional: list[Any] = []
    rest: Any = None
    others: Any = None
    for p in signature.parameters.values():
        turn = named.get(p.name) if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) else named.pop(p.name, None)
        if p.kind is p.VAR_POSITIONAL:
            rest = turn
        elif p.kind is p.VAR_KEYWORD:
            others = turn
            if is_unpacked(hints.get(p.name)):  # the names are those of a TypedDict
                fields = hints_of(typing.get_args(hints[p.name])[0])
                named |= {name: turn for name, hint in fields.items() if (turn := make(hint)) is not None}
        elif p.kind is not p.KEYWORD_ONLY:
            positional.append(turn)
    fixed = {p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    def convert(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        turns = positional + [rest] * (len(args) - len(positional))
        turned: list[Any] = []
        for turn, value in zip(turns, args, strict=False):
            turned.append(value if turn is None else apply(f"args[{len(turned)}]", turn, value))
        named_turned = {}
        for key, value in kwargs.items():
            turn = named.get(key) if others is None or key in fixed else others
            named_turned[key] = value if turn is None else apply(f"kwargs[{key!r}]", turn, value)
        return turned, named_turned

    return convert


def _class(cls: type, bound: dict[Any, Any]) -> Converter | None:
    """Convert to a class, whose type variables stand for what ``bound`` says."""
    if issubclass(cls, Enum):
        return cls
    if hasattr(cls, "model_validate"):
        return _model(cls.model_validate)
    if dataclasses.is_dataclass(cls):
        return _dataclass(cls, bound)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls, _fields_of(cls, bound))
    if typing.is_typeddict(cls):
        return _typed_dict(_fields_of(cls, bound))
    return None


def _model(validate: Callable[..., Any]) -> Converter:
    """Convert to a pydantic model from the names of its fields, whatever aliases they have (since pydantic 2.11)."""
    if "by_name" in inspect.signature(validate).parameters:
        return lambda value: validate(value, by_alias=True, by_name=True)
    return validate


def _fields_of(cls: type, bound: dict[Any, Any]) -> Callable[[], dict[str, Converter | None]]:
    """Return what gives the converters of a class's fields: at first use, since a class may refer to itself."""

    @functools.cache
    def fields() -> dict[str, Converter | None]:
        return {name: converter(hint) for name, hint in field_hints(cls, bound).items()}

    return fields


def _dataclass(cls: type, bound: dict[Any, Any]) -> Converter:
    names = {f.name for f in dataclasses.fields(cls)}
    fields_of = _fields_of(cls, bound)

    def build(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise TypeError(f"a {cls.__name__} cannot be made of {value!r:.80}")
        if unknown := value.keys() - names:
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(map(str, unknown)))}")
        return cls(**_convert_items(value, fields_of()))

    return build


def _named_tuple(cls: Any, fields_of: Callable[[], dict[str, Converter | None]]) -> Converter:
    def build(value: Any) -> Any:
        return cls(**_convert_items(dict(zip(cls._fields, value, strict=True)), fields_of()))

    return build


def _typed_dict(fields_of: Callable[[], dict[str, Converter | None]]) -> Converter:
    return lambda value: _convert_items(value, fields_of())


def _convert_items(value: dict[str, Any], fields: dict[str, Converter | None]) -> dict[str, Any]:
    return {name: item if (apply := fields.get(name)) is None else apply(item) for name, item in value.items()}


def _union(members: tuple[Any, ...]) -> Converter | None:
    options = [(bare(member), converter(member)) for member in members if member is not type(None)]
    if not any(convert for _, convert in options):
        return None

    def pick(value: Any) -> Any:
        """Turn into the first member that keeps all of the value; without one, the first that takes it."""
        if value is None:
            return None
        second: list[Any] = []
        for member, convert in options:
            turned = value
            if convert is not None:
                try:
                    turned = convert(value)
                except (TypeError, ValueError, KeyError, AttributeError):
                    continue  # not this member of the union
            likeness = fit(member, value) if convert is None or is_typed_dict(member) else _keeps(turned, value)
            if likeness == EXACT or len(options) == 1:
                return turned
            if likeness:
                second.append(turned)
        if second:
            return second[0]
        raise ValueError(f"{value!r:.100} fits none of {', '.join(str(member) for member in members)}")

    return pick


def _keeps(turned: Any, value: Any) -> int:
    """Whether nothing is lost, added or changed: what would be sent of it again is the same."""
    try:
        return EXACT if codec.pack(turned) == codec.pack(value) else LOOSE
    except SerializationError:
        return LOOSE


def _literal(values: tuple[Any, ...]) -> Converter | None:
    members = [value for value in values if isinstance(value, Enum)]
    if not members:
        return None
    plain = [value for value in values if not isinstance(value, Enum)]
    return lambda value: value if value in plain else next((m for m in members if m.value == value), value)


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
    if isinstance(origin, type) and hasattr(origin, "__parameters__"):  # a generic class of the user's
        return _class(origin, dict(zip(origin.__parameters__, args, strict=False)))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Iterable) and args:
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
