"""The one path of a run: call the function with what surrounds it, and say how that ends.

What surrounds it is decided once for each route (``taskq.runs.surround``). A `Here` says where it runs (the calling
thread, the main thread of a child, another thread, an event loop); nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from taskq.message.outcome import Outcome
from taskq.runs.delivery import Delivery, Route, current
from taskq.runs.surround import UNFINISHED, finish

if TYPE_CHECKING:
    from taskq.runs.execution import Executor


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
