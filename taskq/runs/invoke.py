"""The one path of a run: call the function with what surrounds it, and say how that ends.

What surrounds it is decided once for each route (`surround`). A `Here` says where it runs (the calling thread, the main
thread of a child, another thread, an event loop); nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Protocol

from taskq.message.outcome import Outcome
from taskq.runs.context import request_of
from taskq.runs.delivery import Delivery, Route, current
from taskq.tasks.definition import Definition
from taskq.tasks.hooks import Hooks, through

if TYPE_CHECKING:
    from taskq.runs.execution import Executor

#: What a function returns without running its body: an `async def` or a generator under a sync decorator.
UNFINISHED = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def finish(value: Any) -> Any:
    """Run a coroutine that a sync function returned to its end, in this thread; raises `TypeError` for a generator."""
    if isinstance(value, CoroutineType):
        import asyncio  # for this alone

        return asyncio.run(value)
    raise TypeError("the task returned a generator, whose body has not run: return a value, or a list of them")


class Here:
    """Where a call runs: in the calling thread, with nothing that could interrupt it. The lanes of a worker add to it.

    Attributes:
        running: What runs and may be interrupted.
        failures: Errors that are failures of the task; any other error is for the caller of the run.
    """

    running: Delivery | None = None
    failures: type[BaseException] = Exception

    def begin(self, delivery: Delivery) -> None:
        """A call begins around which there is something to do."""

    def call(self, route: Route, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function of such a call."""
        return function(*args, **kwargs)

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        """A call has ended, around which there was something to do, or with an error. It is not judged yet."""


class HereAsync(Protocol):
    """Where an async call runs."""

    async def acall(self, delivery: Delivery, coroutine: Any) -> Any:
        """Await what a call has returned, to its end."""

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        """A call has ended. It is not judged yet."""

    def cancelled(self, error: BaseException) -> bool:
        """Whether an error only says that a worker which stops has cancelled the call."""


def run(executor: Executor, delivery: Delivery, here: Here) -> Outcome:
    """Call the function of a prepared delivery in this thread, and say how the delivery ends."""
    current.set(delivery)
    route = delivery.route
    bare = route.bare
    try:
        try:
            if bare:
                here.running = delivery
                value = route.invoke(*delivery.args, **delivery.kwargs)
            else:
                here.begin(delivery)
                value = here.call(route, route.invoke, delivery.args, delivery.kwargs)
            while value is not None and type(value) in UNFINISHED:
                value = here.call(route, finish, (value,), {})
        finally:
            here.running = None
    except here.failures as error:  # SystemExit and KeyboardInterrupt too in a child: a task cannot end the worker
        here.end(delivery, error)
        return executor.failed(delivery, error)
    if not bare:  # not before, where its soft limit may still be raised in the midst of this
        here.end(delivery, None)
    if route.quiet and delivery._envelope is None:  # nothing to judge, nothing to store
        return delivery.id, b""
    return executor.succeeded(delivery, value)


async def arun(executor: Executor, delivery: Delivery, here: HereAsync) -> Outcome:
    """Do what `run` does, for an async task, on an event loop."""
    route = delivery.route
    try:
        value = await here.acall(delivery, route.invoke(*delivery.args, **delivery.kwargs))
        while type(value) in UNFINISHED:  # one that was returned instead of awaited
            value = await here.acall(delivery, value)
    except BaseException as error:
        here.end(delivery, error)
        return executor.interrupted(delivery) if here.cancelled(error) else executor.failed(delivery, error)
    here.end(delivery, None)
    return executor.succeeded(delivery, value)


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
