"""The parent of a worker: starts children, replaces those that die or have had enough, stops them all.

It runs no user code but the hooks of its own life, and its main thread never waits for the server (see ``errands``). A
child that has ended is closed (see ``closing``) and replaced; one that runs beyond a time limit is killed; one that has
grown too large is replaced first and then told to end. A whole worker that dies is the reaper's business.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from taskq.broker.net.connection import Connection
from taskq.broker.pool import Broker
from taskq.broker.protocol import boottime
from taskq.errors import BrokerError
from taskq.runs.execution import Executor
from taskq.upkeep.housekeeping import Upkeep
from taskq.worker.child import child as child_process
from taskq.worker.lifecycle import call_hooks, call_hooks_beside, tell_of_gaps
from taskq.worker.parent import tending
from taskq.worker.parent.announcing import Announcement
from taskq.worker.parent.children import Children, Running
from taskq.worker.parent.chores import Chore, chores_of
from taskq.worker.parent.closing import Closer
from taskq.worker.parent.drained import Left, left_over
from taskq.worker.parent.errands import Errands
from taskq.worker.parent.exits import Exits
from taskq.worker.parent.heartbeat import Heartbeat
from taskq.worker.parent.reporting import REPORT_EVERY, Reporting
from taskq.worker.parent.revocations import Revocations
from taskq.worker.parent.scaling import Scaler
from taskq.worker.parent.signals import Signals
from taskq.worker.plan import Plan
from taskq.worker.title import set_title

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Exit codes of ``taskq worker``; 2 is for wrong usage.
OK, INTERRUPTED, LEFT = 0, 1, 3

#: Seconds beyond the grace in which a worker tries to give back what its children held.
_CLOSE_FOR = 5.0
#: Seconds within which the hooks for its end must have ended.
_HOOKS_TAKE = 5.0
#: Seconds between two looks at the children's memory and at the work.
_LOOK_EVERY = 1.0
#: Seconds between two checks whether a drain is complete, or a child that holds nothing has ended.
_SOON = 0.1
#: Seconds between two looks at their time limits, where there are any.
_LIMITS_EVERY = 0.05


class Supervisor:
    """One worker.

    Attributes:
        left: When draining: what is left, once nothing can run any more.
    """

    def __init__(self, app: TaskQ, plan: Plan) -> None:
        """Prepare a worker for ``app``."""
        self.app = app
        self.plan = plan
        self.left: Left | None = None
        self.signals = Signals()
        self.children = Children(app, plan)
        self.broker = Broker(app.client.url, app.client.partitions, send_timeout=1.0)
        self._hooks = app.client.hooks
        executor = Executor(app.tasks, app.settings, plan.name, hooks=self._hooks)
        self._closer = Closer(self.broker.partitions, self.broker.where, executor)
        self._errands = Errands(self.broker, self._closer, self._on_closed)
        self._exits = Exits(plan.concurrency)
        self._wanted = plan.concurrency
        self._scaler: Scaler | None = None
        if plan.max_concurrency:
            self._scaler = Scaler(plan, self.children, self.broker, self._errands, self.signals.wake)
        self._start_at = 0.0
        self._no_child = ""  # why none could be started, told already
        self._look_at = 0.0
        self._troubled = False
        self._suspects = False
        self._revocations = Revocations()
        self._orders: deque[str] = deque()
        self._quiet = False
        self._reporting = Reporting(self.broker.keys, plan, self.children.running)
        self._report = Chore("say how it is", REPORT_EVERY, self._reporting.tell)
        self._deadline = float("inf")
        self._hooks.close("the worker has begun; install it where the app's modules are imported")
        self._ready = not self._hooks.of("worker_ready")

    # -- the main loop -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped (or drained); returns the exit code."""
        set_title(self.plan.name, "parent")
        self._prepare()
        self._begin()
        try:
            self._tend()
            while self.children.running or self._errands.closing or not self._over:
                if not self.children.running and time.monotonic() > self._deadline + _CLOSE_FOR:
                    log.error("the server does not answer: what this worker held is recovered when its lease has ended")
                    break
                self._sleep()
                self._tend()
        finally:
            self._end()
        return self._exit_code()

    def _prepare(self) -> None:
        """Let what the code says be in force before anything runs."""
        try:
            self._announcement = Announcement(self.app, self.plan)
            self.broker.drive(self._announcement.make(patience=None))
            self.plan = self.children.plan = replace(self.plan, announced=self._announcement.since)
            tell_of_gaps(self.app.tasks.values(), self._hooks)
            call_hooks(self._hooks, "worker_init")
        except BaseException:
            self.children.close()
            raise
        for task in self.app.tasks.values():
            if task.time_limit:
                _ = task.policy.retrying  # what is imported later, by another thread, a fork may find half imported

    def _begin(self) -> None:
        """Start the children, then the threads."""
        self.signals.catch()
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children
        self._start_children()
        settings, partitions = self.app.settings, self.broker.partitions
        self._heartbeat = Heartbeat(
            partitions, Connection(self.broker.url, timeout=settings.lease / 5), self.plan, settings.lease,
            self.children.every_seat(), self._on_suspects, self._on_revoked,
            [*chores_of(settings, self.plan, self.broker, self._announcement), self._report],
            self.children.what_is, self._on_ordered,
        )  # fmt: skip
        self._upkeep = Upkeep(partitions, Connection(self.broker.url))
        for thread in (self._heartbeat, self._errands, self._upkeep):
            thread.start()

    def _end(self) -> None:
        """End what still runs, and say that this worker is gone."""
        self._heartbeat.ended = True
        self._upkeep.end()
        self.children.close()
        with suppress(BrokerError):  # then it is forgotten after a while
            self.broker.run(self._reporting.leave(), seconds=0.0)
        call_hooks_beside(self._hooks, "worker_shutdown", _HOOKS_TAKE)

    def _exit_code(self) -> int:
        returned, abandoned = self._closer.interrupted, self._closer.abandoned
        if returned:
            log.warning("%d running tasks were interrupted and returned to their queues", returned)
        if abandoned:
            log.warning("%d running tasks with at_most_once were interrupted: they are dead letters", abandoned)
        if self.signals.stops:
            return INTERRUPTED if returned or abandoned or self._exits.interrupted else OK
        return LEFT if self.left is not None and self.left.waiting else OK

    @property
    def _over(self) -> bool:
        return self.signals.stops > 0 or self.left is not None

    def _tend(self) -> None:
        """Look after everything once."""
        for number, child in self.children.ended():
            self._on_exit(number, child)
        self.children.listen()
        if os.getpid() == 1:
            tending.reap_orphans(self.children)
        if self.plan.timed:
            tending.enforce_time_limits(self.children, boottime())
        if self._revocations.pending(boottime()):
            tending.enforce_revocations(self.children, self._revocations, boottime())
        if self.signals.quits:
            self.signals.quits = False
            tending.show_stacks(self.children)
        if self.signals.hung_up:
            self.signals.hung_up = False
            self.children.replace_all()
        while self._orders:
            self._obey(self._orders.popleft())
        if self.signals.stops:
            self._stop()
        else:
            self._keep_up()

    def _obey(self, word: str) -> None:
        """Do what an operator has left word for (see ``taskq.steering.ordering``)."""
        log.warning("an operator orders: %s", word)
        if word == "stop":
            self.signals.stops = max(1, self.signals.stops)
        elif word == "quiet":
            self._quiet = self._heartbeat.quiet = True
            self._is("quiet")
        else:
            log.error("this version does not know that order")

    def _is(self, state: str) -> None:
        """Say it when the heartbeat's thread comes by, within seconds."""
        self._reporting.state = state
        self._report.at = 0.0

    def _keep_up(self) -> None:
        """Have as many children as there should be, each fit for work."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY
            self._look()
        if self._quiet:
            self._retire_all()
            return
        if self._scaler is not None and (wanted := self._scaler.wanted()) is not None:
            self._wanted = wanted
        if not self._ready and self.children.incarnations():
            self._ready = True
            call_hooks_beside(self._hooks, "worker_ready")
        if self.plan.drain:
            self._drain()
        self._start_children()

    def _start_children(self) -> None:
        """Start those that are missing; what keeps the kernel from it is told once, and tried again."""
        try:
            if time.monotonic() >= self._start_at:
                self.children.start_missing(self._wanted)
            if (self._suspects or self._closer.untold) and self.children.isolation not in self.children.running:
                self.children.start(self.children.isolation, self._closer.untold)
                self._suspects = False
                self._closer.take_untold()
            self._no_child = ""
        except OSError as error:  # too little memory, too many processes, a fork server that was killed just now
            self._start_at = time.monotonic() + _SOON
            if str(error) != self._no_child:
                log.error("no child can be started, retrying: %s", error)
            self._no_child = str(error)

    def _stop(self) -> None:
        """Bring everything to its end: the children are told once, and killed when the grace is over."""
        if self._deadline == float("inf"):
            self._deadline = time.monotonic() + self.plan.grace
            self._is("stopping")
            log.warning("stopping: running tasks have %g s to end; a second signal ends them at once", self.plan.grace)
        if self.signals.stops >= 2 or not self.children.running:
            self._deadline = min(self._deadline, time.monotonic())
        self.children.stop()
        if time.monotonic() >= self._deadline:
            self.children.kill_all()

    def _sleep(self) -> None:
        timeout = min(_LOOK_EVERY, max(0.01, self._deadline - time.monotonic()))
        if self.plan.timed:
            timeout = min(timeout, _LIMITS_EVERY)
        if self.plan.drain or self.children.leaving or not self._ready:
            timeout = min(timeout, _SOON)
        self.signals.wait(timeout, self.children.tellers)

    def _drain(self) -> None:
        """Let the children end when nothing runs and nothing can."""
        if self.left is not None:
            self._deadline = min(self._deadline, time.monotonic() + self.plan.grace)
            self._retire_all()
            return
        incarnations = self.children.incarnations()
        busy = any(child.busy for child in self.children.running.values())
        if incarnations and not (busy or self._suspects or self._closer.untold or self._errands.closing):
            self._errands.ask(left_over(self.broker.partitions, self.plan, incarnations), self._on_drained)

    def _retire_all(self) -> None:
        self._wanted = 0
        for child in self.children.workforce:
            self.children.retire(child)

    def _on_exit(self, number: int, child: Running) -> None:
        """Have given back what a child held that has ended."""
        del self.children.running[number]
        closing = self._exits.look_at(number, child, stopping=self.signals.stops > 0)
        self._errands.close(closing)
        if number == self.children.isolation:
            self._suspects = self._suspects or child.code != child_process.NOTHING_TO_DO
        elif not self.signals.stops and (pause := self._exits.pause(child, closing)):
            self._start_at = time.monotonic() + pause

    def _look(self) -> None:
        """Look at the server, at the children's memory, and at how many of them the work needs."""
        trouble = self._heartbeat.trouble
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            log.warning("no lease can be renewed, retrying: %s" if trouble else "the server answers again%s", trouble)
        tending.look_at_memory(self.children)
        if self._scaler is not None:
            self._scaler.look()

    # -- from other threads ------------------------------------------------------------------------------

    def _on_closed(self, suspects: bool) -> None:
        self._suspects = self._suspects or suspects
        self.signals.wake()

    def _on_drained(self, left: Left | None) -> None:
        self.left = left
        self.signals.wake()

    def _on_suspects(self) -> None:
        self._suspects = True
        self.signals.wake()

    def _on_ordered(self, word: str) -> None:
        self._orders.append(word)
        self.signals.wake()

    def _on_revoked(self, incarnation: str, raw_id: bytes) -> None:
        self._revocations.hear(incarnation, raw_id)
        self.signals.wake()
