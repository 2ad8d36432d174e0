"""A child process: sets itself up, runs its lanes, ends when told or when its parent is gone."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from taskq.broker.commands import QueueSet
from taskq.broker.connection import Connection
from taskq.broker.outcomes import Outcome
from taskq.broker.protocol import drive
from taskq.delivery import Delivery, Stopping, Taken, current
from taskq.execution import Executor
from taskq.worker.loop_lane import LoopLane, run_lanes
from taskq.worker.main_lane import MainLane
from taskq.worker.plan import Plan
from taskq.worker.quota import Quota
from taskq.worker.session import Session
from taskq.worker.slots import Slot, SlotTable, boottime

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Exit code of an isolated child that found no suspect to run.
NOTHING_TO_DO = 3


class Child:
    """One child of a worker."""

    def __init__(self, plan: Plan, number: int, app: TaskQ, slots: SlotTable, parent: int) -> None:
        """Prepare child ``number`` of the process ``parent``."""
        self.plan = plan
        self.number = number
        self.app = app
        self.slots = slots.of(number)
        self.parent = parent
        self.executor = Executor(app.tasks, app.settings, plan.name)
        self.lanes: list[MainLane | LoopLane] = []

    def run(self) -> None:
        """Run the lanes until told to stop."""
        url, plan = self.app.client.url, self.plan
        quota = Quota(plan.max_tasks or None, self._retire)
        main_lane = loop_thread = None
        loop_lanes = [
            LoopLane(*self._lane(queues, slot), url, quota, plan.drain)
            for queues, slot in ((plan.loop, self.slots[1]), (plan.thread, self.slots[2]))
            if queues.queues
        ]
        self.lanes += loop_lanes
        if plan.main.queues:
            main_lane = MainLane(*self._lane(plan.main, self.slots[0]), url, quota, plan.drain)
            self.lanes.append(main_lane)
        self._set_up()
        if loop_lanes:
            loop_thread = threading.Thread(target=run_lanes, args=(loop_lanes,), name="taskq-loop")
            loop_thread.start()
        if main_lane is not None:
            main_lane.run()
        if loop_thread is not None:
            loop_thread.join()

    def run_alone(self) -> int:
        """Run one suspect, with nothing else in this process; returns the exit code."""
        self._set_up()
        connection = Connection(self.app.client.url)
        for queues in self.plan.sets:
            session, executor, slot = self._lane(queues, self.slots[0])
            drive(session.open(serve=False), connection)
            batch = drive(session.exchange([], want=1, mode="solo"), connection)
            if batch.messages:
                raw_id, value = batch.messages
                slot.load([raw_id])
                slot.memory[slot.index_at] = 0
                taken = Taken(batch.now, time.monotonic(), batch.crashes)
                outcome = _run_to_end(executor, slot, Delivery(raw_id, value, taken))
                slot.idle()
                drive(session.exchange([outcome]), connection)
            drive(session.close(), connection)
            if batch.messages:
                return 0
        return NOTHING_TO_DO

    def _lane(self, queues: QueueSet, slot: Slot) -> tuple[Session, Executor, Slot]:
        settings = self.app.settings

        def began(incarnation: str) -> None:
            slot.begin(incarnation, boottime() + settings.lease)

        info = self.plan.info(self.number, queues)
        ttl_ms = int(settings.result_ttl * 1000)
        return Session(self.app.client.keys, queues, info, settings.lease_ms, ttl_ms, began), self.executor, slot

    def _set_up(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent acts on it
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        faulthandler.register(signal.SIGQUIT, all_threads=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        die_with_parent(self.parent)

    def _stop(self, _signal: int, _frame: Any) -> None:
        Stopping.now = True
        self._retire()

    def _retire(self) -> None:
        """Take nothing more, and end when what runs has ended."""
        for lane in self.lanes:
            lane.stop()


def _run_to_end(executor: Executor, slot: Slot, delivery: Delivery) -> Outcome:
    outcome = executor.prepare(delivery)
    if outcome is not None:
        return outcome
    current.set(delivery)
    if delivery.task.time_limit:
        slot.limit(0, boottime() + delivery.task.time_limit)
    try:
        value = delivery.task.function(*delivery.args, **delivery.kwargs)
        if delivery.task.is_async:
            value = asyncio.run(value)
    except BaseException as error:
        return executor.failed(delivery, error)
    return executor.succeeded(delivery, value)


def die_with_parent(parent: int) -> None:
    """Make sure this process does not outlive its parent, even one killed with SIGKILL."""
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG counts from the thread that forked, which is the parent's main thread.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        return
    process = multiprocessing.parent_process()

    def watch() -> None:
        if process is not None:
            process.join()
        os._exit(1)

    threading.Thread(target=watch, name="taskq-parent-watch", daemon=True).start()


def main(
    plan: Plan, number: int, app: TaskQ | None, slots: SlotTable | str, children: int, parent: int, alone: bool
) -> None:
    """Begin a child process; under fork it inherits the app and the slots, otherwise it makes its own."""
    if app is None:
        from taskq.loading import find_app, set_up_logging

        set_up_logging(plan.level)
        app = find_app(plan.app_path)
    if isinstance(slots, str):
        slots = SlotTable(children, plan.capacities, slots)
    child = Child(plan, number, app, slots, parent)
    code = 0
    if alone:
        code = child.run_alone()
    else:
        child.run()
    sys.exit(code)
