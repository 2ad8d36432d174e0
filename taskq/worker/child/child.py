"""A child process: sets itself up, runs its lanes, ends when told or when its parent is gone."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from taskq.broker.keys import Keys
from taskq.broker.protocol import boottime
from taskq.broker.queue_set import QueueSet
from taskq.errors import ConfigError
from taskq.runs.context import Stopping
from taskq.runs.execution import Executor
from taskq.worker.child.lane import Dialogue, Means
from taskq.worker.child.loop_lane import LoopLane
from taskq.worker.child.loops import run_lanes
from taskq.worker.child.main_lane import MainLane
from taskq.worker.child.quota import Quota
from taskq.worker.child.session import Session
from taskq.worker.child.sessions import Sessions
from taskq.worker.child.surroundings import Surroundings
from taskq.worker.child.telling import Untold, tell
from taskq.worker.forking import fork_beside_threads
from taskq.worker.lifecycle import beside, call_hooks
from taskq.worker.plan import Plan
from taskq.worker.seats import Seat, SeatTable
from taskq.worker.title import set_title
from taskq.worker.twin import leave_if_twin, watch_for_twins

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Exit codes: of an isolated child that found no suspect to run; of a child that cancelled a coroutine.
NOTHING_TO_DO, INTERRUPTED = 3, 4
#: Seconds within which hooks must have ended that are told of what the parent has decided.
_TELLING_TAKES = 10.0
#: By this signal a child learns from its parent that something is revoked.
REVOKED = signal.SIGUSR2
#: Shows the stack of the main thread while that is deep in C. Not for one that runs Python: without the GIL its frames
#: must not be read (SIGSEGV). A process that has no handler for this signal ignores it.
SHOW_C = signal.SIGURG
#: Those that a new process must not receive before it has handlers of its own; see `begin`.
HELD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Child:
    """One child of a worker."""

    def __init__(self, plan: Plan, number: int, app: TaskQ, seats: SeatTable, parent: int, alone: bool) -> None:
        """Prepare child ``number``, whose parent has the pid ``parent``; with ``alone`` it is to run one suspect."""
        self._showing = False
        self.plan = plan
        self.number = number
        self.app = app
        self.seats = seats.of(number)
        self.parent = parent
        self.surroundings = Surroundings()
        self._left = False
        app.client.hooks.close("the worker has begun; install it where the app's modules are imported")
        quota = Quota(plan.max_tasks or None, self._make_room)
        kinds: list[tuple[type[MainLane | LoopLane], QueueSet]]
        kinds = [(MainLane, plan.main), (LoopLane, plan.loop), (LoopLane, plan.thread)]
        url, around = app.client.url, self.surroundings
        self.lanes = [
            kind(Means(self._session(queues, seat, alone), self._executor(queues), seat, url, quota, around))
            for (kind, queues), seat in zip(kinds, self.seats, strict=True)
            if queues.id
        ]

    def run(self) -> int:
        """Run the lanes until told to stop; returns the exit code."""
        main_lane = next((lane for lane in self.lanes if isinstance(lane, MainLane)), None)
        loop_ended = threading.Event()
        if mains := [lane.main for lane in self.lanes if isinstance(lane, LoopLane)]:
            arguments = (run_lanes, mains, loop_ended.set)
            threading.Thread(target=copy_context().run, args=arguments, name="taskq-loop").start()
        if main_lane is not None:
            main_lane.run()
        if mains:
            loop_ended.wait()
        return self._leave(0)

    def run_alone(self) -> int:
        """Run one suspect, with nothing else in this process; returns the exit code."""
        ran = any(lane.run_alone(lambda: self._leave(0)) for lane in self.lanes)
        return self._leave(0 if ran else NOTHING_TO_DO)

    def _leave(self, code: int) -> int:
        """Say that this child holds nothing any more: its parent waits no longer for what tasks have left in it."""
        if any(lane.interrupted for lane in self.lanes):
            code = INTERRUPTED
        self.seats[0].leave_with(code)
        self._tell_parent()
        if not self._left:
            self._left = True
            call_hooks(self.app.client.hooks, "child_shutdown")
        logging.shutdown()
        flush()
        return code

    def _make_room(self) -> None:
        """Take nothing more, and let another take this one's place while what runs ends; any lane's thread calls it."""
        self.seats[0].retire()
        self._tell_parent()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGHUP)  # a lane is stopped in its own thread

    def _tell_parent(self) -> None:
        worker = multiprocessing.parent_process()  # not the fork server, if there is one
        if worker is not None and worker.pid is not None and os.getppid() == self.parent:
            os.kill(worker.pid, signal.SIGCHLD)

    def _executor(self, queues: QueueSet) -> Executor:
        return Executor(self.app.tasks, self.app.settings, self.plan.name, queues.tasks, self.app.client.hooks)

    def _session(self, queues: QueueSet, seat: Seat, alone: bool) -> Dialogue:
        settings, partitions = self.app.settings, self.app.client.partitions
        info, ttl_ms = self.plan.info(self.number, queues), int(settings.result_ttl * 1000)

        def began(incarnation: str) -> None:
            seat.begin(incarnation, boottime() + settings.lease)

        def new(keys: Keys, began: Callable[[str], None]) -> Session:
            return Session(keys, queues, info, settings.lease_ms, ttl_ms, began, alone, self.plan.announced)

        if len(partitions.all) == 1:
            return new(partitions.first, began)
        return Sessions(partitions, began, lambda keys: new(keys, lambda _incarnation: None))

    def set_up(self) -> None:
        """Make this process a child: its signals, its output line by line."""
        # Ctrl-C goes to the whole group; the parent acts on it. Ignored, it would be so in what tasks start, too.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_retire)
        signal.signal(REVOKED, self._on_revoked)
        signal.signal(signal.SIGQUIT, self._on_quit)
        faulthandler.register(SHOW_C, file=2, all_threads=False)  # whatever has become of sys.stderr
        watch_for_twins()
        fork_beside_threads()

    def begin(self, untold: Sequence[Untold]) -> None:
        """Call the hooks for the start of a child, then those of ``untold``. What the first set is what tasks find."""
        call_hooks(self.app.client.hooks, "child_init")
        self.surroundings.note()
        if untold:
            executor = Executor(self.app.tasks, self.app.settings, self.plan.name, hooks=self.app.client.hooks)
            beside("hooks for what was killed at its time_limit", partial(tell, executor, untold), _TELLING_TAKES)

    def _on_stop(self, _number: int, _frame: Any) -> None:
        """The worker stops: what runs has the grace to end."""
        Stopping.now = True
        self._retire(self.plan.grace)

    def _on_retire(self, _number: int, _frame: Any) -> None:
        """Another child takes this one's place: what runs has all the time it takes."""
        self._retire()

    def _on_revoked(self, _number: int, _frame: Any) -> None:
        """Something is revoked, the seats say what; the last of these may raise an error in the midst of a task."""
        for lane in reversed(self.lanes):  # the main lane comes first
            lane.revoke()

    def _on_quit(self, _number: int, _frame: Any) -> None:
        if self._showing:
            return  # else signals in a row nest, until the stack is full
        self._showing = True
        try:
            faulthandler.dump_traceback(file=2, all_threads=True)
            self.seats[0].shown = True
        finally:
            self._showing = False

    def _retire(self, grace: float | None = None) -> None:
        """Take nothing more, and end when what runs has ended."""
        for lane in self.lanes:
            lane.stop(grace)


def begin(start_method: str) -> None:
    """Make this process one that may be told to leave, which it does at once as long as it is not set up."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    signal.signal(signal.SIGQUIT, lambda _number, _frame: faulthandler.dump_traceback(file=2, all_threads=True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    if start_method == "forkserver":
        # `multiprocessing` gives it what keeps the server alive, so that it can use it, too: then neither would end
        # when the worker is killed.
        from multiprocessing import forkserver

        server = getattr(forkserver, "_forkserver")  # noqa: B009
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None


def die_with_parent(parent: int) -> None:
    """Make sure this process does not outlive its parent, even one killed with SIGKILL."""
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG counts from the thread that forked, which is the main thread of the parent, the worker or
        # its fork server.
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


def flush() -> None:
    """Write what the standard streams still hold, whatever has become of them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def main(
    plan: Plan,
    number: int,
    app: TaskQ | str,
    seats: SeatTable,
    alone: bool,
    untold: Sequence[Untold],
    parent: int,
) -> None:
    """Begin a child process: a fork of the worker is given the app, another its name, and finds it as the worker did.

    Raises:
        ConfigError: There is no app of that name at ``plan.app_path``.
    """
    begin(plan.start_method)
    die_with_parent(parent)
    if isinstance(app, str):
        app = _import_app(plan, app)
    set_title(plan.name, "isolated child" if alone else f"child {number}")
    child = Child(plan, number, app, seats, parent, alone)
    child.set_up()
    try:
        child.begin(untold)
        code = child.run_alone() if alone else child.run()
    except BaseException:  # else one lane would live on alone, and the leases of both be renewed
        leave_if_twin(1)
        try:
            log.critical("a lane of this child broke", exc_info=True)
            flush()
        finally:
            os._exit(1)
    sys.exit(code)


def _import_app(plan: Plan, name: str) -> TaskQ:
    from taskq.loading import find_app, set_up_logging

    app = find_app(plan.app_path)
    set_up_logging(plan.level)
    if app.name != name:
        raise ConfigError(
            f"-A {plan.app_path} is the app {app.name!r} in a child, and {name!r} in its worker: with "
            f"start_method={plan.start_method} each child imports it anew, so its name must not differ"
        )
    return app
