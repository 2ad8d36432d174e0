"""Refuses at the call what could not arrive as it was sent, as far as annotations and values show that.

No objects are made from plain values here: that is for the worker. Only if the class might be the wrong one, in a union
or for a subclass, is what was written read back once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

from taskq.errors import SerializationError
from taskq.message import codec
from taskq.tasks.annotations import Converter, converter
from taskq.tasks.hints import bare, field_hints, is_alias, is_union

#: Looks at a value, whose path it is given; raises `SerializationError`.
Vet = Callable[[str, Any], None]


def vetter(annotation: Any, bound: dict[Any, Any] | None = None) -> Vet | None:
    """Return what looks at values of an annotation before they are sent; None if all of them come back."""
    turn = converter(annotation)
    if turn is None:
        return None
    if is_alias(annotation):  # it may have itself within
        once = functools.cache(lambda: vetter(bare(annotation)))
        return lambda path, value: None if (look := once()) is None else look(path, value)
    annotation = bare(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if is_union(annotation):
        return _union(turn, args)
    if isinstance(origin, type) and hasattr(origin, "__parameters__"):
        return _class(origin, turn, dict(zip(origin.__parameters__, args, strict=False)))
    if isinstance(annotation, type):
        return _class(annotation, turn, bound or {})
    return None if origin is typing.Literal else _items(args)


def vet(path: str, look: Vet, value: Any) -> Any:
    """Let ``look`` look at a value (for `taskq.tasks.annotations.convert_arguments`)."""
    look(path, value)
    return value


def _is_rich(value: Any) -> bool:
    """Whether a value becomes what it was by its annotation only."""
    if isinstance(value, type):
        return False
    return isinstance(value, Enum) or any(hasattr(value, mark) for mark in _MARKS)


_MARKS = ("__dataclass_fields__", "model_fields_set", "_fields")


def _read_back(path: str, turn: Converter, value: Any) -> Any:
    """Return what would arrive; raises `SerializationError` if nothing or less would."""
    try:
        written = codec.pack(value)
        arrived = turn(codec.unpack(written))
    except Exception as error:
        raise SerializationError(f"{path}: {_name(value)} could not be read back: {error}") from None
    if codec.pack(arrived) != written:
        raise SerializationError(f"{path}: {_name(value)} would lose something and arrive as {_name(arrived)}")
    return arrived


def _name(value: Any) -> str:
    return type(value).__qualname__


def _union(turn: Converter, members: tuple[Any, ...]) -> Vet | None:
    some = [member for member in members if member is not type(None)]
    if len(some) == 1:
        return vetter(some[0])
    vets = {typing.get_origin(bare(member)) or bare(member): vetter(member) for member in some}

    def look(path: str, value: Any) -> None:
        if not _has_rich(value):
            return
        arrived = _read_back(path, turn, value)
        if not _is_rich(value):
            if not _same_types(value, arrived):
                raise SerializationError(f"{path}: {_name(value)} would arrive with items of another class")
        elif type(arrived) is not type(value) and (type(value) in vets or not isinstance(value, type(arrived))):
            raise SerializationError(
                f"{path}: {_name(value)} would arrive as {_name(arrived)}, another member of the union that is written "
                "alike: give them a field that tells them apart, such as kind: Literal[...]"
            )
        elif (own := vets.get(type(value))) is not None:
            own(path, value)

    return look


def _has_rich(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_rich(part) for item in value.items() for part in item)
    return _is_rich(value) or (isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_rich, value)))


def _same_types(value: Any, arrived: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_same_types, value.values(), arrived.values()))
    if isinstance(value, (list, tuple)) and not _is_rich(value):
        return all(map(_same_types, value, arrived))
    return not _is_rich(value) or type(value) is type(arrived)


def _class(cls: Any, turn: Converter, bound: dict[Any, Any]) -> Vet:
    @functools.cache
    def known() -> tuple[str, list[tuple[str, Vet]]]:
        """What is the same for all instances; made at first use, since a class may refer to itself."""
        hints = {} if issubclass(cls, Enum) else field_hints(cls, bound)
        made = ((name, vetter(hint)) for name, hint in hints.items())
        return _not_made_again(cls), [(name, look) for name, look in made if look is not None]

    if typing.is_typeddict(cls):
        return lambda path, value: _look_at_items(path, value, known()[1])
    own = _look_at_member if issubclass(cls, Enum) else _look_at_model if hasattr(cls, "model_validate") else None

    def look(path: str, value: Any) -> None:
        if type(value) is cls:
            problem, fields = known()
            if problem:
                raise SerializationError(f"{path}: {_name(value)} cannot be made again from its fields: {problem}")
            if own is not None:
                own(path, value, turn)
            for name, field in fields:
                if hasattr(value, name):
                    field(f"{path}.{name}", getattr(value, name))
        elif type(value) is not dict and _is_rich(value):
            _read_back(path, turn, value)

    return look


def _look_at_items(path: str, value: Any, fields: list[tuple[str, Vet]]) -> None:
    for name, field in fields if isinstance(value, dict) else ():
        if name in value:
            field(f"{path}[{name!r}]", value[name])


def _look_at_member(path: str, value: Any, _turn: Converter) -> None:
    if not _is_found_again(value):
        raise SerializationError(f"{path}: {value!r:.80} is not found by its value")


def _look_at_model(path: str, value: Any, turn: Converter) -> None:
    if problem := _left_out(value):
        raise SerializationError(f"{path}: {_name(value)} cannot be made again from what is sent: {problem}")
    if _writes_in_its_own_way(value.__class__):
        _read_back(path, turn, value)


def _not_made_again(cls: Callable[..., Any]) -> str:
    """Say why a dataclass takes something else than its fields, as one with an ``InitVar`` does; empty if not."""
    if not dataclasses.is_dataclass(cls):
        return ""
    try:
        inspect.signature(cls).bind(**{field.name: None for field in dataclasses.fields(cls) if field.init})
    except TypeError as error:
        return str(error)
    except ValueError:  # it does not say
        pass
    return ""


@functools.lru_cache(1024)
def _is_found_again(member: Enum) -> bool:
    """Whether the value of a member of an enum comes back, as a dataclass does not."""
    try:
        return type(member)(codec.unpack(codec.pack(member))) is member
    except Exception:
        return False


@functools.cache
def _writes_in_its_own_way(cls: Any) -> bool:
    """Whether a pydantic model has serializers of its own, which may write what it does not read."""
    made = getattr(cls, "__pydantic_decorators__", None)
    if made is None:
        return False
    notes = [type(note).__name__ for field in cls.model_fields.values() for note in field.metadata]
    return bool(made.field_serializers or made.model_serializers or {"PlainSerializer", "WrapSerializer"} & set(notes))


def _left_out(value: Any) -> str:
    """Say which field a pydantic model leaves out of what is written, although it has a value; empty if none."""
    for name, field in getattr(type(value), "model_fields", {}).items():
        kept, unless = getattr(value, name, None), getattr(field, "exclude_if", None)
        if (field.exclude or (unless is not None and unless(kept))) and (
            field.is_required() or kept != field.get_default(call_default_factory=True)
        ):
            return f"its field {name} is excluded (exclude=)"
    return ""


def _items(args: tuple[Any, ...]) -> Vet | None:
    """Look at the items of a list, tuple, set or dict."""
    vets = [vetter(arg) for arg in args if arg is not Ellipsis]
    alike = len(vets) != len(args) or len(vets) == 1

    def look(path: str, value: Any) -> None:
        if isinstance(value, dict) and len(vets) == 2:
            for key, item in value.items():
                for one, what, where in ((vets[0], key, "key "), (vets[1], item, "")):
                    if one is not None:
                        one(f"{where}{path}[{key!r:.40}]", what)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for place, item in enumerate(value):
                one = vets[0] if alike else vets[place] if place < len(vets) else None
                if one is not None:
                    one(f"{path}[{place}]", item)

    return look
