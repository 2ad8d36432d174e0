"""The children of a worker as its parent handles them: started, signalled, held to their limits, shown, killed."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from taskq.errors import ConfigError
from taskq.worker.child import child as child_process
from taskq.worker.child.telling import Untold
from taskq.worker.forking import fork_beside_threads
from taskq.worker.parent.revocations import REVOKE_GRACE, Revocations
from taskq.worker.parent.starting import Starter
from taskq.worker.parent.watch import resident_bytes
from taskq.worker.plan import Plan
from taskq.worker.slots import Slot, SlotTable

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Seconds a child has to show its stacks, else it is deep in C; between two looks whether it has.
_STACK_TAKES, _STACK_LOOK = 0.5, 0.005
#: Seconds for which a child that holds nothing any more is waited for, whatever a task has left running in it.
_LEAVES_WITHIN = 3.0
#: How many replaced children may at least finish what they run beside their replacements.
_ENDING = 8


@dataclass(slots=True)
class Running:
    """A child that runs.

    Attributes:
        stale: It is to be replaced as soon as there is a place for another.
        retiring: It takes nothing more, and another takes its place.
        stopping: It was told that the worker stops.
        leaves_by: When it is killed if it is still there, since it has said that it holds nothing any more.
        overdue: Digests of messages for whose time limit it was killed.
        revoked: Digests of revoked messages that did not end, for which it was killed.
        memory: Its resident memory at the last look, in bytes.
    """

    process: BaseProcess
    started: float
    slots: list[Slot]
    stale: bool = False
    retiring: bool = False
    stopping: bool = False
    leaves_by: float = float("inf")
    overdue: set[bytes] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    memory: int = 0

    @property
    def busy(self) -> bool:
        """Whether it runs anything."""
        return any(slot.entries() for slot in self.slots)

    @property
    def exit_code(self) -> int | None:
        """With which code it leaves, if it has said that it holds nothing any more."""
        return self.slots[0].exit_code


class Children:
    """The children by their places; a place is a region of the slot table, too.

    Attributes:
        plan: What they are to do.
        running: Those that run, by place.
        isolation: The place of the child that runs a suspect alone.
    """

    def __init__(self, app: TaskQ, plan: Plan) -> None:
        """Prepare places.

        Raises:
            ConfigError: Children that are not forked need the app's name.
        """
        if plan.start_method != "fork" and not plan.app_path:
            raise ConfigError(
                f"start_method={plan.start_method}: each child imports the app itself, and nothing says which: "
                "start the worker with -A MODULE:ATTR, or use start_method=fork"
            )
        self._app = app
        self.plan = plan
        self._starter = Starter(plan.start_method)
        # More places than children, so that a replacement can start before its predecessor has ended; one more for the
        # isolated child.
        children = max(plan.concurrency, plan.max_concurrency)
        self.isolation = children + max(children, _ENDING)
        self.slots = SlotTable(self.isolation + 1, plan.capacities)
        self.running: dict[int, Running] = {}
        fork_beside_threads()
        for slot in self.every_slot():
            slot.clear()

    def every_slot(self) -> list[Slot]:
        """Return the slots of all places."""
        return [slot for place in range(self.isolation + 1) for slot in self.slots.of(place)]

    @property
    def workforce(self) -> list[Running]:
        """The children that take messages as they come."""
        return [child for place, child in self.running.items() if place != self.isolation and not child.retiring]

    def ended(self) -> list[tuple[int, Running]]:
        """Return those whose processes have ended, with their places."""
        return [(place, child) for place, child in self.running.items() if self._starter.is_over(child.process)]

    @property
    def tellers(self) -> list[int]:
        """Descriptors that can be read when a child has ended, as far as no SIGCHLD says so."""
        return self._starter.tellers(child.process for child in self.running.values())

    def start_missing(self, wanted: int) -> None:
        """Start children until ``wanted`` take messages, as far as there are places; raises as `start`."""
        free = [place for place in range(self.isolation) if place not in self.running]
        missing = max(0, wanted - len(self.workforce))
        # One that is not replaced at once works on: a place is taken until what runs there has ended.
        for child in [child for child in self.workforce if child.stale][: max(0, len(free) - missing)]:
            self.retire(child)
            missing += 1
        for place in free[:missing]:
            self.start(place)

    def start(self, place: int, untold: Sequence[Untold] = ()) -> None:
        """Start a child, which first tells hooks of those ends.

        Raises:
            OSError: It cannot be started now.
        """
        slots = self.slots.of(place)
        for slot in slots:
            slot.clear()
        alone = place == self.isolation
        app = self._app if self._starter.copies else self._app.name
        name = f"taskq-{'isolated' if alone else place}"
        process = self._starter.start(child_process.main, (self.plan, place, app, self.slots, alone, untold), name)
        self.running[place] = Running(process, time.monotonic(), slots)

    def retire(self, child: Running) -> None:
        """Let a child end when what it runs has ended; another takes its place at once."""
        child.retiring = True
        self._signal(child, signal.SIGHUP)

    def replace_all(self) -> None:
        """Replace every child, one beside the other, as places allow."""
        for child in self.workforce:
            child.stale = True

    def stop(self) -> None:
        """Tell those that have not been told that the worker stops."""
        for child in self.running.values():
            if not child.stopping:
                child.stopping = child.retiring = True
                # One that has not begun holds nothing, and may be deaf for as long as its module takes to import.
                began = any(slot.incarnation for slot in child.slots)
                self._signal(child, signal.SIGTERM if began else signal.SIGKILL)

    def listen(self) -> None:
        """Take in what children say in their slots; end those that hold nothing any more but do not leave."""
        now = time.monotonic()
        for place, child in self.running.items():
            child.retiring = child.retiring or child.slots[0].retiring
            if child.exit_code is None:
                continue
            child.leaves_by = min(child.leaves_by, now + _LEAVES_WITHIN)
            if now >= child.leaves_by and child.process.exitcode is None:
                log.warning(
                    "child %s (pid %s) is killed: it holds nothing any more, but something in it still runs, such as a "
                    "thread that a task has left, or a hook for child_shutdown", place, child.process.pid,
                )  # fmt: skip
                self._signal(child, signal.SIGKILL)

    @property
    def leaving(self) -> bool:
        """Whether there is one that holds nothing any more."""
        return any(child.exit_code is not None for child in self.running.values())

    def incarnations(self) -> list[str] | None:
        """Return those of all lanes; None while any child has not begun."""
        lanes = [queues.id for queues in (self.plan.main, self.plan.loop, self.plan.thread)]
        found = [
            slot.incarnation
            for child in self.running.values()
            for slot, lane in zip(child.slots, lanes, strict=True)
            if lane
        ]
        return found if all(found) else None

    def _signal(self, child: Running, number: int) -> None:
        if child.process.pid is not None and child.process.exitcode is None:
            with suppress(ProcessLookupError):  # its fork server has waited for it already
                os.kill(child.process.pid, number)

    def kill_all(self) -> None:
        """End them at once."""
        for child in self.running.values():
            self._signal(child, signal.SIGKILL)

    def close(self) -> None:
        """End them at once, and start none any more."""
        self.kill_all()
        self.slots.close()

    # -- looking after them ------------------------------------------------------------------------------

    def enforce_time_limits(self, now: float) -> None:
        """Kill those in which a task is over its ``time_limit``."""
        for place, child in self.running.items():
            late = [entry for slot in child.slots for entry in slot.overdue(now)]
            if late and not child.overdue:
                log.error("child %s (pid %s) is killed: a task is over its time limit", place, child.process.pid)
                child.overdue.update(late)
                self._signal(child, signal.SIGKILL)

    def enforce_revocations(self, revocations: Revocations, now: float) -> None:
        """Tell those that run something revoked; kill those in which it does not end."""
        for place, child in self.running.items():
            for slot in child.slots:
                tell, late = revocations.look(slot, now)
                if late:
                    log.error(
                        "child %s (pid %s) is killed: a task still runs %g s after it was revoked",
                        place, child.process.pid, REVOKE_GRACE,
                    )  # fmt: skip
                    child.revoked.update(late)
                    self._signal(child, signal.SIGKILL)
                elif tell:
                    self._signal(child, child_process.REVOKED)
        revocations.forget(now)

    def look_at_memory(self) -> None:
        """Replace those that have grown too large."""
        for child in self.workforce:
            child.memory = resident_bytes(child.process.pid or 0)
            if 0 < self.plan.max_memory < child.memory:
                if not child.stale:
                    log.info(
                        "child (pid %s) has %d MiB, more than --max-memory-per-child %d: it is replaced",
                        child.process.pid, child.memory >> 20, self.plan.max_memory >> 20,
                    )  # fmt: skip
                child.stale = True

    def show_stacks(self) -> None:
        """Show on standard error what every thread of each is doing."""
        for place, child in self.running.items():
            with suppress(OSError):  # nobody reads it
                os.write(2, b"\nchild %d (pid %d):\n" % (place, child.process.pid or 0))
            slot = child.slots[0]
            slot.shown = False
            self._signal(child, signal.SIGQUIT)
            until = time.monotonic() + _STACK_TAKES
            while not slot.shown and time.monotonic() < until:
                time.sleep(_STACK_LOOK)
            if not slot.shown:
                self._signal(child, child_process.SHOW_C)
                time.sleep(_STACK_LOOK)

    def reap_orphans(self) -> None:
        """As the first process of a container: bury processes that tasks left behind."""
        ours = {child.process.pid for child in self.running.values()} | self._starter.helpers
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in ours:
                    return
                os.waitpid(found.si_pid, os.WNOHANG)
