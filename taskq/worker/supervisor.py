"""The parent of a worker: starts children, replaces those that die or have had enough, stops them all.

It runs no user code. A child that has ended is closed (see ``closing``) and replaced; one that runs beyond a time limit
is killed; one that has grown too large is replaced first and then told to end. A whole worker that dies is the reaper's
business.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskq.broker import commands
from taskq.broker.connection import Connection
from taskq.broker.pool import Broker
from taskq.broker.protocol import boottime
from taskq.broker.server import LEDGER_EVERY, WATCH_EVERY, Ledger, Watch
from taskq.errors import BrokerError
from taskq.execution import Executor
from taskq.upkeep import Upkeep
from taskq.worker import child as child_process
from taskq.worker.announcing import ANNOUNCE_EVERY, Announcement
from taskq.worker.closing import Closer, Closing
from taskq.worker.heartbeat import Chore, Heartbeat
from taskq.worker.plan import Plan
from taskq.worker.revocations import REVOKE_GRACE, Revocations
from taskq.worker.slots import SlotTable
from taskq.worker.strays import Strays
from taskq.worker.watch import Scaling, describe_exit, oom_kills, resident_bytes

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Exit codes of ``taskq worker``.
OK, INTERRUPTED = 0, 1

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: A child that ends sooner than this many seconds after its start did not get to work.
_TOO_SOON = 1.0
#: Seconds beyond the grace in which a worker tries to give back what its children held.
_CLOSE_FOR = 5.0
#: Seconds between two looks at the children's memory and at the work.
_LOOK_EVERY = 1.0
#: Seconds between two looks at their time limits, where there are any.
_LIMITS_EVERY = 0.05
#: Seconds a child has to show its stacks, else it is deep in C; between two looks whether it has.
_STACK_TAKES, _STACK_LOOK = 0.5, 0.005


@dataclass(slots=True)
class Running:
    """A child that runs.

    Attributes:
        retiring: It was told to end, and another takes its place.
        stopping: It was told that the worker stops.
        overdue: Digests of messages for whose time limit it was killed.
        revoked: Digests of revoked messages that did not end, for which it was killed.
        memory: Its resident memory at the last look, in bytes.
    """

    process: BaseProcess
    started: float
    retiring: bool = False
    stopping: bool = False
    overdue: set[bytes] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    memory: int = 0


class Supervisor:
    """One worker."""

    def __init__(self, app: TaskQ, plan: Plan) -> None:
        """Prepare a worker for ``app``; its children are forked where that is safe, else spawned."""
        self.app = app
        self.plan = plan
        method = os.environ.get("TASKQ_START_METHOD") or ("fork" if os.uname().sysname == "Linux" else "spawn")
        self._context: Any = multiprocessing.get_context(method)
        self._forks = method == "fork"
        # Twice as many places as children, so that a replacement can start before its predecessor has ended; one more
        # for the isolated child.
        self._isolation = 2 * max(plan.concurrency, plan.max_concurrency)
        self._slot_file: str | None = None
        if not self._forks:
            descriptor, self._slot_file = tempfile.mkstemp(prefix="taskq-slots-")
            os.close(descriptor)
        self.slots = SlotTable(self._isolation + 1, plan.capacities, self._slot_file)
        self.broker = Broker(app.client.url, app.client.keys, send_timeout=1.0)
        self._closer = Closer(self.broker.keys, self.broker.where, Executor(app.tasks, app.settings, plan.name))
        self._closings: list[Closing] = []
        self._unclosed = ""  # why one cannot be closed, told already
        self._children: dict[int, Running] = {}
        self._wanted = plan.concurrency
        self._scaling = Scaling(plan.concurrency, plan.max_concurrency) if plan.max_concurrency else None
        self._too_soon = 0
        self._look_at = 0.0
        self._troubled = False
        self._oom_kills = oom_kills()
        self._suspects = False
        self._revocations = Revocations()
        self._stops = 0
        self._hung_up = False
        self._quits = False
        self._interrupted = False
        self._deadline = float("inf")

    # -- the main loop -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until stopped (or drained); returns the exit code."""
        self._announce()
        for place in range(self._isolation + 1):
            for slot in self.slots.of(place):
                slot.clear()
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children
        self._start_missing()
        heartbeat = self._heartbeat = self._heart()
        heartbeat.start()
        upkeep = Upkeep(self.broker.keys, Connection(self.broker.url))
        upkeep.start()
        try:
            self._tend()
            while self._children or self._closings or not self._finished():
                if not self._children and time.monotonic() > self._deadline + _CLOSE_FOR:
                    log.error("the server does not answer: what this worker held is recovered when its lease has ended")
                    break
                self._sleep()
                self._tend()
        finally:
            heartbeat.ended = True
            upkeep.end()
            self._kill_all()
            if self._slot_file:
                Path(self._slot_file).unlink(missing_ok=True)
        returned, abandoned = self._closer.interrupted, self._closer.abandoned
        if returned:
            log.warning("%d running tasks were interrupted and returned to their queues", returned)
        if abandoned:
            log.warning("%d running tasks with at_most_once were interrupted: they are dead letters", abandoned)
        return INTERRUPTED if self._stops and (returned or abandoned or self._interrupted) else OK

    def _announce(self) -> None:
        """Let what the code says be in force before anything runs."""
        self._announcement = Announcement(self.app, self.plan)
        self.broker.drive(self._announcement.make(patience=None))
        self.plan = replace(self.plan, announced=self._announcement.since)

    def _heart(self) -> Heartbeat:
        """Prepare the thread that keeps the leases."""
        every_slot = [slot for place in range(self._isolation + 1) for slot in self.slots.of(place)]
        lease = self.app.settings.lease
        connection = Connection(self.broker.url, timeout=lease / 5)
        strays = Strays(self.broker.keys, self.plan.name, self.app.settings.unknown_after)
        watch = Watch(self.broker.keys, self.broker.where, self.app.settings.result_memory)
        chores = [
            Chore("say again what it announced", ANNOUNCE_EVERY, self._announcement.make),
            Chore("watch the server", WATCH_EVERY, watch.look),
            Chore("look at the ledger", LEDGER_EVERY, Ledger(self.broker.keys).look),
            Chore("look for messages that nobody takes", 0.0, strays.look),  # it knows itself when
        ]
        return Heartbeat(
            self.broker.keys, connection, self.plan, lease, every_slot,
            self._on_suspects, self._on_revoked, chores, self._what_is,
        )  # fmt: skip

    def _what_is(self, incarnation: str) -> bytes:
        """Return what the server is to know of an incarnation; from the heartbeat's thread."""
        for place, child in list(self._children.items()):
            for queues, slot in zip(
                (self.plan.main, self.plan.loop, self.plan.thread), self.slots.of(place), strict=True
            ):
                if slot.incarnation == incarnation:
                    return self.plan.info(place, queues, child.process.pid)
        return b""

    def _tend(self) -> None:
        """Look after everything once."""
        for place, child in list(self._children.items()):
            if child.process.exitcode is not None:
                self._on_exit(place, child)
        self._close_ended()
        if os.getpid() == 1:
            self._reap_orphans()
        if self.plan.limited:
            self._enforce_time_limits()
        if self._revocations.pending(boottime()):
            self._enforce_revocations()
        if self._quits:
            self._quits = False
            self._show_stacks()
        if self._stops:
            self._stop()
            return
        if self._hung_up:
            self._hung_up = False
            for child in self._workforce:
                self._retire(child)
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY
            self._look()
        self._start_missing()
        if self._suspects and self._isolation not in self._children:
            self._suspects = False
            self._start(self._isolation)

    def _stop(self) -> None:
        """Bring everything to its end: the children are told once, and killed when the grace is over."""
        if self._deadline == float("inf"):
            self._deadline = time.monotonic() + self.plan.grace
            log.warning("stopping: running tasks have %g s to end; a second signal ends them at once", self.plan.grace)
        if self._stops >= 2 or not self._children:
            self._deadline = min(self._deadline, time.monotonic())
        for child in self._children.values():
            if not child.stopping:
                child.stopping = child.retiring = True
                self._signal(child, signal.SIGTERM)
        if time.monotonic() >= self._deadline:
            self._kill_all()

    def _sleep(self) -> None:
        sentinels = [child.process.sentinel for child in self._children.values()]
        timeout = min(_LOOK_EVERY, max(0.01, self._deadline - time.monotonic()))
        if self.plan.limited:
            timeout = min(timeout, _LIMITS_EVERY)
        if self._closings:
            timeout = 0.2
        if self._wake_r in wait([*sentinels, self._wake_r], timeout):
            os.read(self._wake_r, 4096)

    def _finished(self) -> bool:
        """Whether it is over, now that no child is left: when stopped; when draining, if nothing waits any more."""
        if self._stops or not self.plan.drain:
            return bool(self._stops)
        try:
            backlog = self.broker.run(commands.backlog(self.broker.keys, self.plan.queues))
        except BrokerError:
            return False
        if backlog.suspects:
            self._start(self._isolation)
        elif backlog.pending:
            self._wanted = self.plan.concurrency
            self._start_missing()
        return not self._children

    # -- children ----------------------------------------------------------------------------------------

    @property
    def _workforce(self) -> list[Running]:
        """The children that take messages as they come."""
        return [child for place, child in self._children.items() if place != self._isolation and not child.retiring]

    def _start_missing(self) -> None:
        free = (place for place in range(self._isolation) if place not in self._children)
        for place in list(free)[: max(0, self._wanted - len(self._workforce))]:
            self._start(place)

    def _start(self, place: int) -> None:
        for slot in self.slots.of(place):
            slot.clear()
        alone = place == self._isolation
        inherited = (self.app, self.slots) if self._forks else (None, self._slot_file)
        process = self._context.Process(
            target=child_process.main,
            args=(self.plan, place, *inherited, self._isolation + 1, os.getpid(), alone),
            name=f"taskq-{'isolated' if alone else place}",
        )
        # A signal must not find the child with this parent's handlers: the child lets them in when it is set up.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            with warnings.catch_warnings():
                # Python warns of forking beside a thread; the heartbeat holds nothing that a child needs.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        self._children[place] = Running(process, time.monotonic())

    def _on_exit(self, place: int, child: Running) -> None:
        """A child has ended: note what it left."""
        child.process.join()
        code = child.process.exitcode
        del self._children[place]
        lanes = [(slot.incarnation, slot.entries()) for slot in self.slots.of(place) if slot.incarnation]
        # A task may also end its process politely. What this parent killed was interrupted, or ran too long.
        polite = (0, child_process.NOTHING_TO_DO, child_process.INTERRUPTED)
        failed = code not in polite or any(entries for _, entries in lanes)
        self._interrupted = self._interrupted or code == child_process.INTERRUPTED
        died = failed and not self._stops and not child.overdue and not child.revoked
        if died:
            cause = f"its process {self._describe(child)}"
            log.error("child %s (pid %s) died: %s", place, child.process.pid, cause)
        elif child.overdue:
            cause = "its process was killed since a task in it was over its time_limit"
        else:
            cause = "its worker was stopped before it had ended"
        self._closings.append(Closing(died, lanes, frozenset(child.overdue), cause))
        self._close_ended()
        if place == self._isolation:
            self._suspects = self._suspects or code != child_process.NOTHING_TO_DO
        elif self.plan.drain and not failed and not child.retiring:
            self._wanted -= 1  # it found nothing more to do
        elif not self._stops:
            self._pause_if_children_keep_dying(child, died)

    def _describe(self, child: Running) -> str:
        text = describe_exit(child.process.exitcode)
        kills, self._oom_kills = self._oom_kills, oom_kills()
        if child.process.exitcode == -signal.SIGKILL and self._oom_kills > kills:
            text += (
                f" of the kernel for lack of memory (out of memory; {child.memory >> 20} MiB resident when last seen)"
            )
        return text

    def _pause_if_children_keep_dying(self, child: Running, died: bool) -> None:
        quick = time.monotonic() - child.started < _TOO_SOON
        self._too_soon = self._too_soon + 1 if died and quick else 0
        excess = self._too_soon - 4 * self.plan.concurrency
        if excess > 0:
            pause = min(5.0, 0.1 * 2**excess)
            log.error("children keep dying right after their start; the next one starts in %.1f s", pause)
            wait([self._wake_r], pause)

    def _close_ended(self) -> None:
        todo, self._closings = self._closings, []
        for closing in todo:
            try:
                self._suspects = self.broker.drive(self._closer.close(closing)) or self._suspects
                self._unclosed = ""
            except BrokerError as error:
                if str(error) != self._unclosed:
                    log.warning("cannot give back what a child held, trying on: %s", error)
                self._unclosed = str(error)
                self._closings.append(closing)

    def _retire(self, child: Running) -> None:
        """Let a child end when what it runs has ended; another takes its place at once."""
        child.retiring = True
        self._signal(child, signal.SIGHUP)

    def _signal(self, child: Running, number: int) -> None:
        if child.process.pid is not None and child.process.exitcode is None:
            os.kill(child.process.pid, number)

    # -- looking after them ------------------------------------------------------------------------------

    def _enforce_time_limits(self) -> None:
        now = boottime()
        for place, child in self._children.items():
            late = [entry for slot in self.slots.of(place) for entry in slot.overdue(now)]
            if late and not child.overdue:
                log.error("child %s (pid %s) is killed: a task is over its time limit", place, child.process.pid)
                child.overdue.update(late)
                child.process.kill()

    def _enforce_revocations(self) -> None:
        now = boottime()
        for place, child in self._children.items():
            for slot in self.slots.of(place):
                tell, late = self._revocations.look(slot, now)
                if late:
                    log.error(
                        "child %s (pid %s) is killed: a task runs %g s after it was revoked",
                        place, child.process.pid, REVOKE_GRACE,
                    )  # fmt: skip
                    child.revoked.update(late)
                    child.process.kill()
                elif tell and child.process.pid is not None and child.process.exitcode is None:
                    os.kill(child.process.pid, child_process.REVOKED)
        self._revocations.forget(now)

    def _look(self) -> None:
        """Look at the server, at the children's memory, and at how many of them the work needs."""
        trouble = self._heartbeat.trouble
        if bool(trouble) != self._troubled:
            self._troubled = bool(trouble)
            log.warning("no lease can be renewed, trying on: %s" if trouble else "the server answers again%s", trouble)
        for child in self._workforce:
            child.memory = resident_bytes(child.process.pid or 0)
            if 0 < self.plan.max_memory < child.memory:
                log.info(
                    "child (pid %s) has %d MiB, more than --max-memory-per-child %d: it is replaced",
                    child.process.pid, child.memory >> 20, self.plan.max_memory >> 20,
                )  # fmt: skip
                self._retire(child)
        if self._scaling is not None:
            self._scale(self._scaling)

    def _scale(self, scaling: Scaling) -> None:
        try:
            backlog = self.broker.run(commands.backlog(self.broker.keys, self.plan.queues))
        except BrokerError:
            return
        workforce = self._workforce
        places = [place for place, child in self._children.items() if child in workforce]
        busy = sum(any(slot.entries() for slot in self.slots.of(place)) for place in places)
        self._wanted = scaling.wanted(len(workforce), busy, backlog.pending, backlog.oldest, time.monotonic())
        for child in workforce[self._wanted :]:
            self._retire(child)

    def _show_stacks(self) -> None:
        for place, child in self._children.items():
            os.write(2, b"\nchild %d (pid %d):\n" % (place, child.process.pid or 0))
            slot = self.slots.of(place)[0]
            slot.shown = False
            self._signal(child, signal.SIGQUIT)
            until = time.monotonic() + _STACK_TAKES
            while not slot.shown and time.monotonic() < until:
                time.sleep(_STACK_LOOK)
            if not slot.shown:
                self._signal(child, child_process.SHOW_C)
                time.sleep(_STACK_LOOK)
        os.write(2, b"\n")

    def _reap_orphans(self) -> None:
        """As the first process of a container: bury processes that tasks left behind."""
        ours = {child.process.pid for child in self._children.values()}
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in ours:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)

    # -- signals -----------------------------------------------------------------------------------------

    def catch_signals(self) -> None:
        """From now on a signal is heeded; to be called before `run`."""
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGQUIT, self._on_quit)

    def _on_suspects(self) -> None:
        self._suspects = True
        self._wake()

    def _on_revoked(self, incarnation: str, raw_id: bytes) -> None:
        self._revocations.hear(incarnation, raw_id)
        self._wake()

    def _wake(self) -> None:
        """Let the main loop look at once; from the heartbeat's thread."""
        with suppress(BlockingIOError):  # the pipe is full of reasons to wake up
            os.write(self._wake_w, b"s")

    # Handlers only leave word: they may run in the midst of anything, such as between the fork of a child and the
    # note that it is there. The wake-up pipe has the main loop look at once.

    def _on_stop(self, _number: int, _frame: Any) -> None:
        self._stops += 1

    def _on_hangup(self, _number: int, _frame: Any) -> None:
        """Replace every child, one beside the other: what runs may end, nothing is lost."""
        self._hung_up = True

    def _on_quit(self, _number: int, _frame: Any) -> None:
        """Show on standard error what every thread is doing: of this process here and now, then of every child."""
        faulthandler.dump_traceback(all_threads=True)
        self._quits = True

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.process.kill()
