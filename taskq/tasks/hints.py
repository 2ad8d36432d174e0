"""What annotations mean: names resolved, aliases and notes seen through, type variables bound.

It is used when a task is first called or run, not when it is declared: by then what is defined below it exists too.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def hints_of(owner: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations of a function or class, without those that exist only for the type checker."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # one of them, but which?
        pass
    hints: dict[str, Any] = {}
    for part in reversed(owner.__mro__) if isinstance(owner, type) else [inspect.unwrap(owner)]:
        names = getattr(part, "__globals__", None) or vars(sys.modules[part.__module__])
        for name, annotation in getattr(part, "__annotations__", {}).items():
            with suppress(Exception):
                one = types.SimpleNamespace(__annotations__={name: annotation})
                hints |= typing.get_type_hints(one, names)
    return hints


def bare(annotation: Any) -> Any:
    """Return what an annotation means: without aliases, notes and qualifiers; for a type variable its bound."""
    while True:
        origin = typing.get_origin(annotation)
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing.TypeVar):
            annotation = _of_variable(annotation)
        elif is_alias(annotation):
            annotation = _resolved(annotation.__value__, annotation.__module__)
        elif is_alias(origin):
            bound = dict(zip(origin.__type_params__, typing.get_args(annotation), strict=False))
            annotation = with_types(_resolved(origin.__value__, origin.__module__), bound)
        elif origin is typing.Annotated or getattr(origin, "_name", None) in _QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        else:
            return annotation


_QUALIFIERS = {"ClassVar", "Final", "Required", "NotRequired", "ReadOnly"}


def is_alias(annotation: Any) -> bool:
    """Whether it is a name for another annotation, made by ``type Name = ...``."""
    return type(annotation).__name__ == "TypeAliasType"  # of typing since 3.12, of typing_extensions before


def _of_variable(variable: Any) -> Any:
    if variable.__constraints__:
        return typing.Union[variable.__constraints__]  # noqa: UP007  of a tuple
    return Any if variable.__bound__ is None else _resolved(variable.__bound__, variable.__module__)


def _resolved(annotation: Any, module: str) -> Any:
    """Return an annotation with the names in it, which are those of a module, resolved as far as they can be."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    with suppress(Exception):
        return typing.get_type_hints(holder, vars(sys.modules[module]), include_extras=True)["it"]
    return annotation


def with_types(hint: Any, bound: dict[Any, Any]) -> Any:
    """Return an annotation with its type variables replaced."""
    if isinstance(hint, typing.TypeVar):
        return bound.get(hint, hint)
    free = getattr(hint, "__parameters__", ())
    return hint if isinstance(hint, type) or not free else hint[tuple(bound.get(name, name) for name in free)]


def field_hints(cls: Any, bound: dict[Any, Any]) -> dict[str, Any]:
    """Return the annotations of a class's fields, whose type variables stand for what ``bound`` says.

    Those of the classes it inherits from stand for what it says of these: ``class CatBox(Box[Cat])``.
    """
    variables: dict[Any, dict[Any, Any]] = {cls: bound}
    owners: dict[str, Any] = {}
    for part in cls.__mro__:
        mine = variables.setdefault(part, {})
        for base in vars(part).get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            given = [with_types(arg, mine) for arg in typing.get_args(base)]
            variables.setdefault(origin, dict(zip(getattr(origin, "__parameters__", ()), given, strict=False)))
    for part in reversed(cls.__mro__):
        owners |= dict.fromkeys(inspect.get_annotations(part), part)
    return {name: with_types(hint, variables[owners.get(name, cls)]) for name, hint in hints_of(cls).items()}


def is_unpacked(annotation: Any) -> bool:
    """Whether it says of ``**kwargs`` which names they have, by a typed dict."""
    return getattr(typing.get_origin(annotation), "_name", "") == "Unpack"


def is_union(annotation: Any) -> bool:
    """Whether an annotation is ``A | B``, however it is written."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


# -- values that need no converter ------------------------------------------------------------------------------------

#: How well a value fits an annotation: not at all, as a subclass or the like, or it is of just that type.
NOT, LOOSE, EXACT = 0, 1, 2


def fit(annotation: Any, value: Any) -> int:
    """Say how well a plain value fits an annotation that has no converter."""
    annotation = bare(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is typing.Never:
        return NOT
    if is_union(annotation):
        return max(fit(arg, value) for arg in args)
    if origin is typing.Literal:
        return EXACT if any(type(arg) is type(value) and arg == value for arg in args) else NOT
    if is_typed_dict(annotation):
        cls = origin or annotation
        return EXACT if cls.__required_keys__ <= value.keys() <= cls.__annotations__.keys() else LOOSE
    kind = annotation if origin is None else origin
    if not isinstance(kind, type) or kind is object:
        return LOOSE  # Any, and what taskq does not look into
    try:
        if not isinstance(value, (kind, int) if kind is float else kind):
            return NOT
    except TypeError:  # a protocol that is not for run time
        return LOOSE
    likeness = EXACT if type(value) is kind or args else LOOSE
    return min([likeness, *(fit(arg, item) for arg, item in _items(args, value))])


def is_typed_dict(annotation: Any) -> bool:
    """Whether it is a typed dict, generic or not."""
    return typing.is_typeddict(typing.get_origin(annotation) or annotation)


def _items(args: tuple[Any, ...], value: Any) -> list[tuple[Any, Any]]:
    """Pair what a container's annotation says of its items with these."""
    if isinstance(value, dict) and len(args) == 2:
        return [pair for key, item in value.items() for pair in ((args[0], key), (args[1], item))]
    if isinstance(value, tuple) and not (len(args) == 2 and args[1] is Ellipsis):
        return list(zip(args, value, strict=True)) if len(args) == len(value) else [(typing.Never, value)]
    return [(args[0], item) for item in value] if args and isinstance(value, (list, tuple, set, frozenset)) else []
