"""Middleware and hooks, of an app for all its tasks or of one task.

Here they are declared and checked. `taskq.runs` calls those of runs, `taskq.calls` those of sending, `taskq.worker`
those of processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from taskq.errors import ConfigError, TaskqError
from taskq.spelling import guess
from taskq.tasks import callables

Function = Callable[..., Any]


class _Kind(NamedTuple):
    """What a function must be: what it is called with, and whether it must be async (None: either)."""

    takes: tuple[str, ...]
    is_async: bool | None
    why: str = ""


#: What middleware can be around.
AROUND = {
    "run": _Kind(("request", "call_next"), False, "it is around sync tasks; around('arun') is around async ones"),
    "arun": _Kind(("request", "call_next"), True, "it is around async tasks; around('run') is around sync ones"),
    "enqueue": _Kind(("call", "call_next"), False, "it is around the writing of a call, of delay() as of adelay()"),
}
#: How a run can end, for hooks.
ENDS = {
    "success": _Kind(("request", "value"), None),
    **dict.fromkeys(("failure", "retry", "dead"), _Kind(("request", "error"), None)),
}
#: Moments in the life of a worker's processes.
LIFE = dict.fromkeys(
    ("worker_init", "worker_ready", "child_init", "child_shutdown", "worker_shutdown"),
    _Kind((), False, "there is no event loop at that moment"),
)
ON = {**ENDS, **LIFE}

#: The options of a task, each a function or a list of them.
OPTIONS = ("around_run", "around_enqueue", *(f"on_{event}" for event in ENDS))


class Hooks:
    """What is installed for an app, or for one task."""

    def __init__(self) -> None:
        """Begin with none."""
        self._installed: dict[str, tuple[Function, ...]] = {}
        self._closed = ""

    def of(self, name: str) -> tuple[Function, ...]:
        """Return what is installed under a name, in the order in which it was."""
        return self._installed.get(name, ())

    @property
    def told(self) -> bool:
        """Whether there is any hook for the ends of runs."""
        return any(event in self._installed for event in ENDS)

    def close(self, why: str) -> None:
        """Refuse what is installed from now on, since it would be ignored."""
        self._closed = why

    def around(self, what: str, function: Function) -> None:
        """Install middleware around ``run``, ``arun`` or ``enqueue``; raises `ConfigError` for what cannot be."""
        if what not in AROUND:
            raise ConfigError(f"there is no around({what!r}){guess(str(what), AROUND)}")
        self._install(f"around({what!r})", what, function, AROUND[what])

    def on(self, event: str, function: Function) -> None:
        """Install a hook for one of `ENDS` or `LIFE`; raises `ConfigError` for what cannot be."""
        if event not in ON:
            raise ConfigError(f"there is no on({event!r}){guess(str(event), ON)}")
        self._install(f"on({event!r})", event, function, ON[event])

    def take(self, option: str, function: Function, is_async: bool) -> None:
        """Install what one of the `OPTIONS` of a task says; raises `ConfigError` for what cannot be."""
        name = option.removeprefix("around_").removeprefix("on_")
        if name == "run" and is_async:
            name = "arun"
        self._install(f"{option}=", name, function, {**AROUND, **ENDS}[name])

    def _install(self, where: str, name: str, function: Function, kind: _Kind) -> None:
        if self._closed:
            raise ConfigError(f"{where} comes too late: {self._closed}")
        _check(where, function, kind)
        if function in self.of(name):
            raise ConfigError(f"{where}: {name_of(function)} is installed already")
        self._installed[name] = (*self.of(name), function)


def _check(where: str, function: Any, kind: _Kind) -> None:
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"{where} takes a function, not {function!r}")
    if kind.is_async is not None and callables.is_async(function) != kind.is_async:
        wrong = "is an async def, and must be a def" if not kind.is_async else "must be an async def"
        raise ConfigError(f"{where}: {name_of(function)} {wrong}: {kind.why}")
    try:
        inspect.signature(function).bind(*kind.takes)
    except TypeError as error:
        takes = f"({', '.join(kind.takes)})" if kind.takes else "no arguments"
        raise ConfigError(f"{where}: {name_of(function)} is called with {takes}, but: {error}") from None
    except ValueError:  # a function in C does not say what it takes
        pass


def split_hook_options(options: dict[str, Any], task: Function) -> Hooks:
    """Take hooks and middleware out of the options of a task, a function; raises `ConfigError` for what cannot be."""
    hooks = Hooks()
    for option in OPTIONS:
        given = options.pop(option, None)
        for function in given if isinstance(given, (list, tuple)) else [given]:
            if function is not None:
                hooks.take(option, function, callables.is_async(callables.checked(task)))
    return hooks


def name_of(function: Any) -> str:
    """Return what a function is called in messages for people: ``module.name``."""
    return f"{callables.declared_in(function)}.{callables.qualname(function)}"


class CallNext:
    """What a middleware calls to run the rest, once."""

    __slots__ = ("_middleware", "_rest")

    def __init__(self, middleware: Function, rest: Callable[[], Any]) -> None:
        """Prepare for one call."""
        self._middleware = middleware
        self._rest: Callable[[], Any] | None = rest

    def __call__(self) -> Any:
        """Go on; raises `TaskqError` the second time."""
        rest, self._rest = self._rest, None
        if rest is None:
            raise TaskqError(
                f"the middleware {name_of(self._middleware)} has called call_next() twice; a call goes on once. "
                "To run a task again, let its error pass: that is what retries are for"
            )
        return rest()


def through(
    middleware: tuple[Function, ...],
    subject: Any,
    end: Callable[[], Any],
    check: Callable[[Function, Any], Any] = lambda _middleware, value: value,
) -> Callable[[], Any]:
    """Return the way through middleware, the first one outermost, to its end; ``check`` sees what each hands on."""
    for layer in reversed(middleware):
        end = _layer(layer, subject, CallNext(layer, end), check)
    return end


def _layer(
    layer: Function, subject: Any, call_next: CallNext, check: Callable[[Function, Any], Any]
) -> Callable[[], Any]:
    return lambda: check(layer, layer(subject, call_next))
