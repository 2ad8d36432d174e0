"""What a callable is, however it is made: functions, decorated ones, partials, methods, objects that can be called.

The callable itself is judged, not what it wraps: a decorator may give the function an argument of its own, and only a
call shows what it does with the rest.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

from taskq.errors import ConfigError

#: How Python names the module that it was started with: itself, and in a process that multiprocessing has spawned.
_MAIN = ("__main__", "__mp_main__")


def checked(function: Any) -> Callable[..., Any]:
    """Return what can be a task; raises `ConfigError` for what cannot."""
    if isinstance(function, staticmethod):
        function = function.__func__
    if inspect.isclass(function) or not callable(function):
        raise ConfigError(f"@app.task decorates functions and objects that can be called, not {function!r}")
    body = _body(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise ConfigError(f"{qualname(function)} is a generator: a task returns one value, or a list of them")
    return function  # type: ignore[no-any-return]


def _body(function: Any) -> Any:
    """Return the function that a call of ``function`` enters first."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or hasattr(function, "__code__"):
        return function
    return type(function).__call__


def innermost(function: Any) -> Any:
    """Return the function inside all decorators and partials; its annotations and globals count."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, MethodType):
            function = function.__func__
        else:
            return function if inspect.isroutine(function) else type(function).__call__


def is_async(function: Any) -> bool:
    """Whether a call gives a coroutine, as far as can be seen without making one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_body(function))


def qualname(function: Any) -> str:
    """Return the name within the module; that of its class for an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def declared_in(function: Any) -> str:
    """Return the name of the module that it claims to be from."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__module__", None) or type(function).__module__)


def default_name(function: Any) -> str:
    """Return ``module.function``; in a script, with the name under which its file would be imported."""
    return f"{module_of(function)}.{qualname(function)}".replace("<locals>.", "").replace("<lambda>", "lambda")


def is_nowhere(name: str) -> bool:
    """Whether a default name belongs to no module that could be imported, as in a notebook."""
    return name.startswith("__main__.")


def module_of(function: Any) -> str:
    """Return the name by which the module of a callable is imported; ``__main__`` if it cannot be."""
    module = declared_in(function)
    # Under cProfile, runpy and the like the main module is not the one that the function is from.
    scope = getattr(innermost(function), "__globals__", None) or vars(sys.modules.get(module, sys))
    return importable(module, scope)


def importable(module: str, scope: Mapping[str, Any]) -> str:
    """Return the name by which a module is imported whose globals are ``scope``; ``__main__`` if it cannot be.

    So that `python shop.py` and `taskq worker -A shop` mean the same.
    """
    if module not in _MAIN:
        return module
    spec, file = scope.get("__spec__"), scope.get("__file__")
    if spec is not None and spec.name not in _MAIN:
        return str(spec.name).removesuffix(".__main__")
    stem = Path(file).stem if file else ""  # "<stdin>", or a cell of a notebook, is no module
    return stem if stem.isidentifier() and stem not in _MAIN else "__main__"


def own_signature(function: Any) -> inspect.Signature:
    """Return the signature of the callable itself, whatever it wraps."""
    try:
        return inspect.signature(function, follow_wrapped=False)
    except ValueError:  # C code that does not tell: functools.lru_cache, some builtins
        return wrapped_signature(function)


def wrapped_signature(function: Any) -> inspect.Signature:
    """Return the signature of the innermost function, as `inspect.signature` has it."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def without_context(signature: inspect.Signature) -> inspect.Signature | None:
    """Return a signature without the parameter that takes the context; None if it has none."""
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        return None
    takes_all = parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    return signature if takes_all else signature.replace(parameters=parameters[1:])


def compiled(name: str, signature: inspect.Signature, body: str) -> Callable[..., Any]:
    """Return a function of that signature: calling it binds the arguments, at C speed."""
    # Made from source, as dataclasses make __init__: only names that already are parameters come in.
    parts, last_kind = [], None
    for p in signature.parameters.values():
        if last_kind is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
            parts.append("/")
        if p.kind is p.KEYWORD_ONLY and last_kind not in (p.VAR_POSITIONAL, p.KEYWORD_ONLY):
            parts.append("*")
        stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        parts.append(f"{stars}{p.name}{'' if p.default is p.empty else '=None'}")
        last_kind = p.kind
    if last_kind is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    namespace: dict[str, Any] = {}
    name = name if name.isidentifier() else "task"
    exec(f"def {name}({', '.join(parts)}): {body}", namespace)
    return namespace[name]  # type: ignore[no-any-return]


def by_name(name: str, signature: inspect.Signature) -> Callable[..., dict[str, Any]]:
    """Return a function of that signature that returns its arguments by name, those with defaults too."""
    parameters = signature.parameters.values()
    items = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name!r}: {p.name}" for p in parameters]
    made = compiled(name, signature, f"return {{{', '.join(items)}}}")
    given = [p for p in parameters if p.default is not p.empty]
    made.__defaults__ = tuple(p.default for p in given if p.kind is not p.KEYWORD_ONLY)
    made.__kwdefaults__ = {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
    return made


def is_again(old: Any, new: Any) -> bool:
    """Whether ``new``, of the same name, is ``old`` again, because its module was executed again.

    It is not for a factory that is called twice, two partials of a function, or two functions of one name in a module:
    calls of the first would run the second.
    """
    if old == new or hasattr(sys, "ps1") or getattr(importlib, "_RELOADING", None):  # line by line, or a reload
        return True
    inner, before = innermost(new), innermost(old)
    if not (isinstance(inner, FunctionType) and isinstance(before, FunctionType)):
        return False
    if inner.__globals__ is not before.__globals__:  # its first import failed
        return True
    if not (isinstance(old, FunctionType) and isinstance(new, FunctionType)):
        return False
    if _do_the_same(old, new):
        return True
    importing = inner.__module__ in _MAIN or getattr(inner.__globals__.get("__spec__"), "_initializing", False)
    return not importing and "<locals>" not in qualname(new)


def _do_the_same(old: FunctionType, new: FunctionType) -> bool:
    """Whether two functions are made from the same lines, with the same defaults and no variables from around them."""
    what, before = ((f.__code__, f.__defaults__, f.__kwdefaults__, f.__closure__) for f in (new, old))
    return what == before and new.__closure__ is None
