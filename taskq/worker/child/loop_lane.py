"""Many messages at once, on a child's event loop: coroutines, and sync tasks in threads of an executor.

A child has one loop, in a thread of its own, with a lane for queues of coroutines and one for queues whose tasks run
in threads. Both take as many messages as they have free slots; what they take they start at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from taskq.broker.commands import awaiting
from taskq.broker.commands.holding import Batch, Lost
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.protocol import adrive, boottime
from taskq.errors import BrokerRefused
from taskq.message.outcome import Outcome, Returned
from taskq.runs import logs
from taskq.runs.delivery import NOWHERE, Delivery, Taken, current
from taskq.runs.hooks import Due, due
from taskq.runs.invoke import arun, run
from taskq.worker.child.lane import Means, Stopped
from taskq.worker.child.loops import run_lanes
from taskq.worker.child.main_lane import UNRENEWED_PAUSE, WAIT
from taskq.worker.child.pace import Pace
from taskq.worker.child.where import OnLoop, OwnThread
from taskq.worker.seats import CAPACITY
from taskq.worker.twin import leave_if_twin

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Seconds an outcome waits for others before it is settled.
_SETTLE_AFTER = 0.002
#: Seconds before the end of the grace at which coroutines are cancelled; a fifth of a short grace.
_TO_TIDY_UP = 1.0


class LoopLane:
    """One lane of a child's event loop."""

    def __init__(self, means: Means) -> None:
        """Prepare the lane."""
        self.session, self.executor, self.seat, self._url, self.quota, self._surroundings = means
        self.stopping = False
        self._pace = Pace({task.queue for task in self.executor.tasks.values() if task.at_most_once}, many=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._here = OnLoop(self.seat)
        self._cancel_at: asyncio.TimerHandle | None = None
        self._outcomes: list[Outcome] = []
        self._unsettled: list[int] = []  # indexes of messages that have ended, until the server knows
        self._threads = ThreadPoolExecutor(self.seat.capacity, "taskq-task")  # threads are made as they are needed

    def stop(self, grace: float | None = None) -> None:
        """Start nothing more; safe from any thread and from a signal handler.

        With ``grace`` the process is killed after that many seconds, so coroutines are cancelled shortly before.
        """
        self.stopping = True
        self._tell(self._wake, grace)

    def revoke(self) -> None:
        """Let what is revoked run no longer; safe from a signal handler."""
        self._tell(self._here.revoke)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        """Call something on the loop; a closed one need not be told, and its error would hit another lane's task."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(what, *arguments)

    @property
    def interrupted(self) -> bool:
        """Whether a coroutine was cancelled since the grace was nearly over."""
        return self._here.interrupted

    def _wake(self, grace: float | None) -> None:
        self._changed.set()
        if self._bell is not None:
            self._bell.cancel()
        if grace is not None and self._cancel_at is None:
            left = max(grace - _TO_TIDY_UP, grace * 0.8)
            self._cancel_at = asyncio.get_running_loop().call_later(left, self._cancel)

    def _cancel(self) -> None:
        self._here.cancelling = True
        for task, delivery in self._running.items():
            if delivery.route is NOWHERE or delivery.task.is_async:  # a thread cannot be cancelled
                task.cancel()

    async def main(self) -> None:
        """Take and run messages until told to stop."""
        await self._begin()
        while not self.stopping:
            if boottime() > self.seat.lease_until:  # take nothing before it is renewed, or known to be lost
                await self._exchange(0)
                await asyncio.sleep(UNRENEWED_PAUSE)
                continue
            free = self.quota.room(min(CAPACITY, self.seat.capacity - len(self._running)))
            batch = await self._exchange(free)
            if batch is None:
                continue
            if batch.messages:
                self._start(batch)
            else:
                await self._rest(free)
        await self._finish()

    def run_alone(self, ended: Callable[[], object]) -> bool:
        """Run one message, for which the child was made; says whether there was one, and calls ``ended`` if so."""
        batch: Batch | None = None

        async def main() -> None:
            nonlocal batch
            await self._begin()
            batch = None if self.stopping else await self._exchange(1)
            if batch is not None:
                self._start(batch)
            await self._finish()

        run_lanes([main], lambda: ended() if batch is not None and batch.messages else None)
        return batch is not None and bool(batch.messages)

    async def _begin(self) -> None:
        self._changed = asyncio.Event()  # an outcome, a free slot, a stop
        self._bell: asyncio.Task[None] | None = None
        self._connection = AsyncConnection(self._url)
        self._bell_connection = AsyncConnection(self._url)
        self._loop = asyncio.get_running_loop()
        os.register_at_fork(after_in_child=self._became_twin)
        with suppress(Stopped):
            await adrive(self.session.open(), self._connection, self._pause)

    def _became_twin(self) -> None:
        """In the twin of a coroutine that forks: that coroutine alone goes on, and no further than to the loop."""
        assert self._loop is not None
        ready = getattr(self._loop, "_ready", None)  # asyncio's own; uvloop's cannot be reached
        if ready is not None:
            self._never = list(ready)  # a task that was dropped while it is pending would be logged as an error
            ready.clear()
        self._loop.call_soon(os._exit, 1)

    async def _rest(self, free: int) -> None:
        """Wait for the bell (if there is room), an outcome, or a stop."""
        if self.stopping:
            return
        if self._bell is None and free > 0:
            self._bell = asyncio.create_task(self._wait_for_bell())
        changed = asyncio.create_task(self._changed.wait())
        waits = {changed} if self._bell is None else {changed, self._bell}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        if self._changed.is_set():
            self._changed.clear()
            if not self.stopping:
                await asyncio.sleep(_SETTLE_AFTER)  # let others end too
        if self._bell is not None and self._bell.done():
            if not self._bell.cancelled():
                self._bell.result()
            self._bell = None

    async def _wait_for_bell(self) -> None:
        # Whatever goes wrong, the fetch that follows is refused as well, and waits.
        with suppress(NotSent, Unanswered, Passing, BrokerRefused):
            self.session.rang(await self._bell_connection.execute(awaiting.wait_bells(self.session.bells, WAIT)))

    async def _exchange(self, want: int) -> Batch | None:
        """Settle what has ended and take up to ``want`` messages; None if the incarnation was lost."""
        outcomes, self._outcomes = self._outcomes, []
        indexes, self._unsettled = self._unsettled, []
        steps = self.session.exchange(outcomes, want=want, caps=self._pace.caps)
        batch: Batch | None = None
        try:
            batch = await adrive(steps, self._connection, asyncio.sleep if outcomes else self._pause)
        except Stopped:
            self.session.doubtful = True
        except Lost:
            log.warning("the lease of this child ended before it could be renewed: starting anew")
            self._outcomes = []
            with suppress(Stopped):
                await adrive(self.session.open(), self._connection, self._pause)
        for index in indexes:  # not if anything else was raised: that ends the process, and they may be to blame
            self.seat.leave(index)
        return batch

    async def _pause(self, seconds: float) -> None:
        """Wait between two tries of what need not be done any more once the lane is to stop."""
        if self.stopping and not self._running:
            raise Stopped
        await asyncio.sleep(seconds)

    def _start(self, batch: Batch) -> None:
        if boottime() > self.seat.lease_until:  # they may be another's already; if not, they go back
            self._outcomes += [Returned(raw_id) for raw_id in batch.messages[::2]]
            return
        taken = Taken(batch.now, time.monotonic(), batch.crashes)
        self._surroundings.restore_if_idle()
        for i in range(0, len(batch.messages), 2):
            index = self.seat.enter(batch.messages[i])  # reading it may already kill this process
            delivery = Delivery(batch.messages[i], batch.messages[i + 1], taken, index)
            outcome = self.executor.prepare(delivery)
            if outcome is None:
                self._go_on(delivery, self._run_one(delivery, self.session.incarnation))
            else:
                self._end(delivery, outcome)
                if self.executor.told:
                    self._go_on(delivery, self._tell_hooks(delivery))
        self.quota.spend(len(batch.messages) // 2)

    def _go_on(self, delivery: Delivery, steps: Coroutine[Any, Any, None]) -> None:
        """Do something for a delivery beside what else there is to do."""
        task = asyncio.create_task(steps)
        self._running[task] = delivery
        task.add_done_callback(self._running.pop)

    async def _run_one(self, delivery: Delivery, incarnation: str) -> None:
        task = delivery.task
        if task.time_limit:  # the parent watches it
            self.seat.deadline(delivery.index, boottime() + task.time_limit)
        current.set(delivery)
        self._surroundings.enter()
        self._surroundings.loop_busy += 1
        logs.started(delivery)
        began = time.monotonic()
        try:
            if task.is_async:
                outcome = await arun(self.executor, delivery, self._here)
            else:
                here = OwnThread()
                running = self._in_thread(run, self.executor, delivery, here)
                outcome = await self._here.interruptible(delivery, here, running)
        finally:
            self._surroundings.loop_busy -= 1
        seconds = time.monotonic() - began
        self._pace.saw(delivery.route.queue, seconds, 1)
        self.seat.deadline(delivery.index, 0.0)
        logs.ended(delivery, outcome, seconds)
        # After a lost lease the message is another's, and may even have come back to this very lane.
        if incarnation != self.session.incarnation:
            self._end(delivery, None)
            return
        self._end(delivery, outcome)
        if self.executor.told:
            await self._tell_hooks(delivery)

    def _in_thread(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call something in a thread of the lane's, in a copy of this context."""
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, function, *args))

    async def _tell_hooks(self, delivery: Delivery) -> None:
        """Call the hooks for the end of a delivery, which is settled meanwhile; one that would block in a thread."""
        for hook in due(self.executor, delivery):
            await (hook.acall() if hook.is_async else self._in_thread(_call, hook))
            leave_if_twin(0)

    def _end(self, delivery: Delivery, outcome: Outcome | None) -> None:
        """Note how a delivery ended; its seat says that it runs until the server knows."""
        self._unsettled.append(delivery.index)
        if outcome is not None:
            self._outcomes.append(outcome)
        self._changed.set()

    async def _finish(self) -> None:
        """Let what runs end (the parent's grace bounds it), settling as it does, then leave."""
        if self._bell is not None:
            self._bell.cancel()
        while self._running:
            await asyncio.wait(list(self._running), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(_SETTLE_AFTER)
            await self._exchange(0)
        await self._exchange(0)
        await adrive(self.session.close(), self._connection)
        await self._bell_connection.close()
        await self._connection.close()
        self._threads.shutdown(wait=False)


def _call(hook: Due) -> None:
    hook.call()
    leave_if_twin(0)
