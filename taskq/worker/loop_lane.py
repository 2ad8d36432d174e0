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
from typing import Any

from taskq.broker import commands
from taskq.broker.aio import AsyncConnection
from taskq.broker.commands import Batch, Lost
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.outcomes import Outcome
from taskq.broker.protocol import adrive
from taskq.delivery import Delivery, Taken, current
from taskq.execution import Executor
from taskq.worker.main_lane import WAIT
from taskq.worker.quota import Quota
from taskq.worker.session import Session
from taskq.worker.slots import CAPACITY, Slot, boottime
from taskq.worker.soft_limit import CoroutineLimit, ThreadLimit

log = logging.getLogger("taskq.worker")

#: Seconds an outcome waits for others before it is settled.
_SETTLE_AFTER = 0.002


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's way to make a loop if it is installed, None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run_lanes(lanes: list[LoopLane]) -> None:
    """Run lanes on a new event loop until all have ended; blocks its thread. Uses uvloop if it is installed.

    A bug in there ends the whole child, at once: its parent gives back what it held. Otherwise the thread would end
    alone, and its leases be renewed for ever.
    """

    async def all_of_them() -> None:
        await asyncio.gather(*(lane.main() for lane in lanes))

    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        runner.run(all_of_them())
    except BaseException:
        log.critical("the event loop of this child broke", exc_info=True)
        logging.shutdown()
        os._exit(1)  # before the runner cancels what runs, which would pass for failures
    runner.close()


class LoopLane:
    """One lane of a child's event loop."""

    def __init__(
        self, session: Session, executor: Executor, slot: Slot, url: str, quota: Quota, drain: bool = False
    ) -> None:
        """Prepare the lane; with ``drain`` it ends when it finds nothing to take and nothing runs."""
        self.session = session
        self.executor = executor
        self.slot = slot
        self.quota = quota
        self.drain = drain
        self.stopping = False
        self._url = url
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []
        self._threads = ThreadPoolExecutor(slot.capacity, "taskq-task")  # threads are made as they are needed

    def stop(self) -> None:
        """Start nothing more; safe from any thread and from a signal handler."""
        self.stopping = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        if self._bell is not None:
            self._bell.cancel()

    async def main(self) -> None:
        """Take and run messages until told to stop."""
        self._changed = asyncio.Event()  # an outcome, a free slot, a stop
        self._bell: asyncio.Task[bool] | None = None
        self._connection = AsyncConnection(self._url)
        self._bell_connection = AsyncConnection(self._url)
        self._loop = asyncio.get_running_loop()
        await adrive(self.session.open(), self._connection)
        mode = ""
        while not self.stopping:
            free = self.quota.room(min(CAPACITY, self.slot.capacity - len(self._running)))
            batch = await self._exchange(free, mode)
            mode = ""
            if batch is None:
                continue
            if batch.messages:
                self._start(batch)
            elif self.drain and not self._running and not self._outcomes:
                break
            else:
                mode = await self._rest(free)
        await self._finish()

    async def _rest(self, free: int) -> str:
        """Wait for the bell (if there is room), an outcome, or a stop; answers the next fetch's mode."""
        if self.stopping:
            return ""
        if self._bell is None and free > 0 and not self.drain:
            self._bell = asyncio.create_task(self._wait_for_bell())
        changed = asyncio.create_task(self._changed.wait())
        waits = {changed} if self._bell is None else {changed, self._bell}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        if self._changed.is_set():
            self._changed.clear()
            if not self.stopping:
                await asyncio.sleep(_SETTLE_AFTER)  # let others end too
        if self._bell is None or not self._bell.done():
            return ""
        rang = not self._bell.cancelled() and self._bell.result()
        self._bell = None
        return "" if rang else "repair"

    async def _wait_for_bell(self) -> bool:
        bell = commands.wait_bell(self.session.keys, ["bell:" + self.session.queues.id], WAIT)
        try:
            return await self._bell_connection.execute(bell) is not None
        except (NotSent, Unanswered, Passing):
            return True

    async def _exchange(self, want: int, mode: str = "") -> Batch | None:
        """Settle what has ended and take up to ``want`` messages; None if the incarnation was lost."""
        outcomes, self._outcomes = self._outcomes, []
        try:
            return await adrive(self.session.exchange(outcomes, want=want, mode=mode), self._connection)
        except Lost:
            log.warning("the lease of this child ended before it could be renewed: starting anew")
            self._outcomes = []
            await adrive(self.session.open(), self._connection)
            return None

    def _start(self, batch: Batch) -> None:
        taken = Taken(batch.now, time.monotonic(), batch.crashes)
        for i in range(0, len(batch.messages), 2):
            delivery = Delivery(batch.messages[i], batch.messages[i + 1], taken)
            outcome = self.executor.prepare(delivery)
            if outcome is not None:
                self._outcomes.append(outcome)
                self._changed.set()
                continue
            task = asyncio.create_task(self._run_one(delivery, self.session.incarnation))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self.quota.spend(len(batch.messages) // 2)

    async def _run_one(self, delivery: Delivery, incarnation: str) -> None:
        place = self.slot.enter(delivery.id)
        current.set(delivery)
        try:
            outcome = await self._outcome(delivery, place)
        finally:
            self.slot.leave(place)
        # After a lost lease the message is another's, and may even have come back to this very lane.
        if incarnation == self.session.incarnation:
            self._outcomes.append(outcome)
        self._changed.set()

    async def _outcome(self, delivery: Delivery, place: int) -> Outcome:
        try:
            if delivery.route.limited:
                value = await self._within_limits(delivery, place)
            elif delivery.task.is_async:
                value = await delivery.task.function(*delivery.args, **delivery.kwargs)
            else:
                value = await self._in_thread(delivery, delivery.task.function)
        except asyncio.CancelledError as error:
            if self.stopping:
                return self.executor.interrupted(delivery)
            return self.executor.failed(delivery, error)
        except BaseException as error:
            return self.executor.failed(delivery, error)
        return self.executor.succeeded(delivery, value)

    def _in_thread(self, delivery: Delivery, function: Any, *before: Any) -> asyncio.Future[Any]:
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(function, *before, *delivery.args, **delivery.kwargs)
        )

    async def _within_limits(self, delivery: Delivery, place: int) -> Any:
        """Run a task that has time limits: the parent watches the hard one, this loop the soft one."""
        task = delivery.task
        if task.time_limit:
            self.slot.limit(place, boottime() + task.time_limit)
        soft = task.soft_time_limit or 0.0
        limit: CoroutineLimit | ThreadLimit
        running: Coroutine[Any, Any, Any] | asyncio.Future[Any] | CoroutineLimit
        if task.is_async:
            running = task.function(*delivery.args, **delivery.kwargs)
            this = asyncio.current_task()
            assert this is not None
            limit = running = CoroutineLimit(running, soft, this.cancel)
        else:
            limit = ThreadLimit()
            running = self._in_thread(delivery, limit.run, task.function)
        timer = asyncio.get_running_loop().call_later(soft, limit.fire) if soft else None
        try:
            return await running
        finally:
            if timer is not None:
                timer.cancel()

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
