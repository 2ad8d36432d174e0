"""What is called for a message: its task's function, in all middleware around it, to the end of what that returns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from taskq.runs.context import request_of
from taskq.runs.delivery import current
from taskq.tasks.definition import Definition
from taskq.tasks.hooks import Hooks, through

#: What a function returns without running its body: an `async def` or a generator under a sync decorator.
UNFINISHED = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def finish(value: Any) -> Any:
    """Run a coroutine that a sync function returned to its end, in this thread; raises `TypeError` for a generator."""
    if isinstance(value, CoroutineType):
        import asyncio  # for this alone

        return asyncio.run(value)
    raise TypeError("the task returned a generator, whose body has not run: return a value, or a list of them")


def surround(task: Definition, hooks: Hooks) -> Callable[..., Any]:
    """Return what is called for a message of ``task``: its function, in all middleware that there is for it."""
    kind = "arun" if task.is_async else "run"
    around = hooks.of(kind) + task.hooks.of(kind)
    if not around:
        return task.function
    to_its_end = _await_to_its_end if task.is_async else _call_to_its_end

    def invoke(*args: Any, **kwargs: Any) -> Any:
        delivery = current.get()
        assert delivery is not None
        return through(around, request_of(delivery), partial(to_its_end, task.function, *args, **kwargs))()

    return invoke


def _call_to_its_end(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    while type(value) in UNFINISHED:
        value = finish(value)
    return value


async def _await_to_its_end(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    value = await function(*args, **kwargs)
    while type(value) in UNFINISHED:  # one that was returned instead of awaited
        value = await value if isinstance(value, CoroutineType) else finish(value)
    return value
