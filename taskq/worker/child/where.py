"""Where a call runs in a child: its main thread, a thread beside others, its event loop. Each can be interrupted there.

`taskq.runs.invoke` says what a run is and how it ends; a place only adds time limits, interruptions and clean
surroundings, and stops the twin of a task that forks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from taskq.broker.protocol import boottime
from taskq.errors import TaskqError
from taskq.runs import logs
from taskq.runs.context import Revoked
from taskq.runs.delivery import Delivery, Route
from taskq.runs.invoke import Here
from taskq.runs.surround import UNFINISHED, finish
from taskq.worker.child.interrupt import (
    CoroutineInterrupt,
    MainThreadInterrupt,
    SoftLimits,
    ThreadInterrupt,
    soft_limit_error,
)
from taskq.worker.child.surroundings import Surroundings
from taskq.worker.seats import Seat
from taskq.worker.twin import leave_if_twin


class MainThread(MainThreadInterrupt, Here):
    """The main thread of a child: one call after the other.

    Attributes:
        starts_told: Whether the start of each is logged.
    """

    failures = BaseException

    def __init__(self, seat: Seat, surroundings: Surroundings) -> None:
        """Prepare; to be made in that thread."""
        super().__init__(seat)
        self.starts_told = False
        self._surroundings = surroundings
        self._soft_limits = SoftLimits(self)

    def begin(self, delivery: Delivery) -> None:
        """Log it and set its time limits: the parent watches the hard one."""
        if self.starts_told:
            logs.started(delivery)
        self.running = delivery  # from here on it may be interrupted
        if delivery.route.timed:
            task, now = delivery.task, boottime()
            if task.time_limit:
                self._seat.deadline(delivery.index, now + task.time_limit)
            if task.soft_time_limit:
                self._soft_limits.set(delivery, now + task.soft_time_limit)

    def call(self, route: Route, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call it, in a context of its own if the task is watched."""
        if route.watched:
            return self._surroundings.call(route, function, args, kwargs)
        return function(*args, **kwargs)

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        """Lift its time limits."""
        leave_if_twin(int(error is not None))
        if delivery.route.timed:
            self._soft_limits.lift()
            self._seat.deadline(delivery.index, 0.0)


class OwnThread(ThreadInterrupt, Here):
    """A thread that runs one call, beside others."""

    failures = BaseException

    def call(self, route: Route, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call it, interruptible until it has returned."""
        return self.run(function, *args, **kwargs)

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        """Nothing but a twin has anything to do."""
        leave_if_twin(int(error is not None))


class OnLoop:
    """The event loop of a child, and what runs beside it in threads: many calls at once.

    Attributes:
        cancelling: Whether coroutines have been cancelled, since the grace is nearly over.
        interrupted: Whether one has ended by that.
    """

    def __init__(self, seat: Seat) -> None:
        """Prepare for the calls of a lane."""
        self.cancelling = self.interrupted = False
        self._seat = seat
        self._running: dict[int, CoroutineInterrupt | ThreadInterrupt] = {}  # by index in the seat's table

    def revoke(self) -> None:
        """Interrupt what is revoked."""
        for index in self._seat.revoked() & self._running.keys():
            self._running.pop(index).fire(Revoked())  # once, so that the task can tidy up

    async def acall(self, delivery: Delivery, coroutine: Any) -> Any:
        """Await a coroutine that a call has returned, to be interrupted where it waits."""
        if type(coroutine) in UNFINISHED and not isinstance(coroutine, Coroutine):
            return finish(coroutine)
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:  # it waits for nothing: there is no point at which to interrupt it
            return stop.value
        running = CoroutineInterrupt(coroutine, awaited)
        return await self.interruptible(delivery, running, running)

    async def interruptible(
        self, delivery: Delivery, interrupt: CoroutineInterrupt | ThreadInterrupt, running: Awaitable[Any]
    ) -> Any:
        """Await what runs, to be interrupted when it is revoked, or at its soft limit."""
        self._running[delivery.index] = interrupt
        soft = delivery.task.soft_time_limit
        loop = asyncio.get_running_loop()
        timer = loop.call_later(soft, interrupt.fire, soft_limit_error(soft)) if soft else None
        try:
            return await running
        finally:
            self._running.pop(delivery.index, None)
            if timer is not None:
                timer.cancel()

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        """Nothing but a twin has anything to do."""
        leave_if_twin(int(error is not None))

    def cancelled(self, error: BaseException) -> bool:
        """Whether an error is that cancellation; ours for other reasons are errors of taskq, too."""
        ours = self.cancelling and isinstance(error, asyncio.CancelledError) and not isinstance(error, TaskqError)
        self.interrupted = self.interrupted or ours
        return ours
