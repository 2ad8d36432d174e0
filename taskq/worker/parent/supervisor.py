"""The parent of a worker: starts children, replaces those that die or have had enough, stops them all.

It runs no user code but the hooks of its own life, and its main thread never waits for the server (see ``errands``). A
child that has ended is closed (see ``closing``) and replaced; one that runs beyond a time limit is killed; one that has
grown too large is replaced first and then told to end. A whole worker that dies is the reaper's business.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from taskq.broker.commands.looking import Backlog
from taskq.broker.net.connection import Connection
from taskq.broker.net.server import LEDGER_EVERY, WATCH_EVERY, Ledger, Watch
from taskq.broker.patience import persistent
from taskq.broker.pool import Broker
from taskq.broker.protocol import boottime
from taskq.errors import BrokerError
from taskq.runs.execution import Executor
from taskq.upkeep.housekeeping import Upkeep
from taskq.worker.child import child as child_process
from taskq.worker.lifecycle import call_hooks, call_hooks_beside, tell_of_gaps
from taskq.worker.parent.announcing import ANNOUNCE_EVERY, Announcement
from taskq.worker.parent.children import Children, Running
from taskq.worker.parent.closing import Closer, Closing
from taskq.worker.parent.drained import Left, backlog_of, left_over
from taskq.worker.parent.errands import Errands
from taskq.worker.parent.heartbeat import Chore, Heartbeat
from taskq.worker.parent.reporting import REPORT_EVERY, Reporting
from taskq.worker.parent.revocations import Revocations
from taskq.worker.parent.signals import Signals
from taskq.worker.parent.strays import Strays
from taskq.worker.parent.watch import Scaling, describe_exit, oom_kills
from taskq.worker.plan import Plan
from taskq.worker.title import set_title

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Exit codes of ``taskq worker``; 2 is for wrong usage.
OK, INTERRUPTED, LEFT = 0, 1, 3

#: A child that ends sooner than this many seconds after its start did not get to work.
_TOO_SOON = 1.0
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
        self._wanted = plan.concurrency
        self._scaling = Scaling(plan.concurrency, plan.max_concurrency) if plan.max_concurrency else None
        self._too_soon = 0
        self._start_at = 0.0
        self._no_child = ""  # why none could be started, told already
        self._look_at = 0.0
        self._backlog: Backlog | None = None
        self._troubled = False
        self._oom_kills = oom_kills()
        self._suspects = False
        self._revocations = Revocations()
        self._orders: deque[str] = deque()
        self._quiet = False
        self._reporting = Reporting(self.broker.keys, plan, self.children.running)
        self._report = Chore("say how it is", REPORT_EVERY, self._reporting.tell)
        self._interrupted = False
        self._deadline = float("inf")
        self._hooks.close("the worker has begun; install it where the app's modules are imported")
        self._ready = not self._hooks.of("worker_ready")

    # -- the main loop -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped (or drained); returns the exit code."""
        set_title(self.plan.name, "parent")
        try:
            self._announce()
            tell_of_gaps(self.app.tasks.values(), self._hooks)
            call_hooks(self._hooks, "worker_init")
        except BaseException:
            self.children.close()
            raise
        for task in self.app.tasks.values():
            if task.time_limit:
                _ = task.policy.retrying  # what is imported later, by another thread, a fork may find half imported
        self.signals.catch()
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children
        self._start_children()
        heartbeat = self._heartbeat = self._heart()
        heartbeat.start()
        self._errands.start()
        upkeep = Upkeep(self.broker.partitions, Connection(self.broker.url))
        upkeep.start()
        try:
            self._tend()
            while self.children.running or self._errands.closing or not self._over:
                if not self.children.running and time.monotonic() > self._deadline + _CLOSE_FOR:
                    log.error("the server does not answer: what this worker held is recovered when its lease has ended")
                    break
                self._sleep()
                self._tend()
        finally:
            heartbeat.ended = True
            upkeep.end()
            self.children.close()
            with suppress(BrokerError):  # then it is forgotten after a while
                self.broker.run(self._reporting.leave(), seconds=0.0)
            call_hooks_beside(self._hooks, "worker_shutdown", _HOOKS_TAKE)
        returned, abandoned = self._closer.interrupted, self._closer.abandoned
        if returned:
            log.warning("%d running tasks were interrupted and returned to their queues", returned)
        if abandoned:
            log.warning("%d running tasks with at_most_once were interrupted: they are dead letters", abandoned)
        if self.signals.stops:
            return INTERRUPTED if returned or abandoned or self._interrupted else OK
        return LEFT if self.left is not None and self.left.waiting else OK

    @property
    def _over(self) -> bool:
        return self.signals.stops > 0 or self.left is not None

    def _announce(self) -> None:
        """Let what the code says be in force before anything runs."""
        self._announcement = Announcement(self.app, self.plan)
        self.broker.drive(self._announcement.make(patience=None))
        self.plan = self.children.plan = replace(self.plan, announced=self._announcement.since)

    def _heart(self) -> Heartbeat:
        """Prepare the thread that keeps the leases."""
        lease = self.app.settings.lease
        connection = Connection(self.broker.url, timeout=lease / 5)
        partitions = self.broker.partitions
        strays = [Strays(keys, self.plan.name, self.app.settings.unknown_after) for keys in partitions.all]
        watch = Watch(partitions, self.broker.where, self.app.settings.result_memory)
        chores = [
            Chore("say again what it announced", ANNOUNCE_EVERY, self._announcement.make),
            self._report,
            Chore("watch the server", WATCH_EVERY, watch.look),
            Chore("look at the ledger", LEDGER_EVERY, Ledger(partitions).look),
            *(Chore("look for messages that nobody takes", 0.0, one.look) for one in strays),  # they know when
        ]
        return Heartbeat(
            partitions, connection, self.plan, lease, self.children.every_seat(),
            self._on_suspects, self._on_revoked, chores, self._what_is, self._on_ordered,
        )  # fmt: skip

    def _what_is(self, incarnation: str) -> bytes:
        """Return what the server is to know of an incarnation; from the heartbeat's thread."""
        for number, child in list(self.children.running.items()):
            for queues, seat in zip((self.plan.main, self.plan.loop, self.plan.thread), child.seats, strict=True):
                if seat.incarnation == incarnation:
                    return self.plan.info(number, queues, child.process.pid)
        return b""

    def _tend(self) -> None:
        """Look after everything once."""
        for number, child in self.children.ended():
            self._on_exit(number, child)
        self.children.listen()
        if os.getpid() == 1:
            self.children.reap_orphans()
        if self.plan.timed:
            self.children.enforce_time_limits(boottime())
        if self._revocations.pending(boottime()):
            self.children.enforce_revocations(self._revocations, boottime())
        if self.signals.quits:
            self.signals.quits = False
            self.children.show_stacks()
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
        backlog, self._backlog = self._backlog, None
        if self._quiet:
            self._retire_all()
            return
        if self._scaling is not None and backlog is not None:
            self._scale(self._scaling, backlog)
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

    # -- children ----------------------------------------------------------------------------------------

    def _on_exit(self, number: int, child: Running) -> None:
        """A child has ended: note what it left."""
        child.process.join()
        code = child.process.exitcode if child.exit_code is None else child.exit_code
        del self.children.running[number]
        lanes = [(seat.incarnation, seat.running()) for seat in child.seats if seat.incarnation]
        # A task may also end its process politely. What this parent killed was interrupted, or ran too long.
        polite = (0, child_process.NOTHING_TO_DO, child_process.INTERRUPTED)
        failed = code not in polite or any(entries for _, entries in lanes)
        self._interrupted = self._interrupted or code == child_process.INTERRUPTED
        died = failed and not self.signals.stops and not child.overdue and not child.revoked
        if died:
            cause = f"its process {self._describe(child)}"
            log.error("child %s (pid %s) died: %s", number, child.process.pid, cause)
        elif child.overdue:
            cause = "its process was killed since a task in it was over its time_limit"
        else:
            cause = "its worker was stopped before it had ended"
        self._errands.close(Closing(died, lanes, frozenset(child.overdue), cause))
        if number == self.children.isolation:
            self._suspects = self._suspects or code != child_process.NOTHING_TO_DO
        elif not self.signals.stops:
            self._pause_if_children_keep_dying(child, died, bool(lanes))

    def _describe(self, child: Running) -> str:
        text = describe_exit(child.process.exitcode)
        kills, self._oom_kills = self._oom_kills, oom_kills()
        if child.process.exitcode == -signal.SIGKILL and self._oom_kills > kills:
            text += (
                f" of the kernel for lack of memory (out of memory; {child.memory >> 20} MiB resident when last seen)"
            )
        return text

    def _pause_if_children_keep_dying(self, child: Running, died: bool, began: bool) -> None:
        quick = not began or time.monotonic() - child.started < _TOO_SOON  # an import may take long to fail
        self._too_soon = self._too_soon + 1 if died and quick else 0
        excess = self._too_soon - 4 * self.plan.concurrency
        if excess > 0:
            pause = min(5.0, 0.1 * 2**excess)
            log.error("children keep dying right after their start; the next one starts in %.1f s", pause)
            self._start_at = time.monotonic() + pause

    def _look(self) -> None:
        """Look at the server, at the children's memory, and at how many of them the work needs."""
        trouble = self._heartbeat.trouble
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            log.warning("no lease can be renewed, retrying: %s" if trouble else "the server answers again%s", trouble)
        self.children.look_at_memory()
        if self._scaling is not None:
            question = backlog_of(self.broker.partitions, self.plan.queues)
            self._errands.ask(persistent(question, self.broker.where, 1.0), self._on_backlog)

    def _scale(self, scaling: Scaling, backlog: Backlog) -> None:
        workforce = self.children.workforce
        busy = sum(child.busy for child in workforce)
        self._wanted = scaling.wanted(len(workforce), busy, backlog.pending, backlog.oldest, time.monotonic())
        for child in workforce[self._wanted :]:
            self.children.retire(child)

    # -- from other threads ------------------------------------------------------------------------------

    def _on_closed(self, suspects: bool) -> None:
        self._suspects = self._suspects or suspects
        self.signals.wake()

    def _on_backlog(self, backlog: Backlog) -> None:
        self._backlog = backlog
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
