"""Looking after children that run: their time limits, what is revoked, their memory, what they are doing."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress

from taskq.worker.child import child as child_process
from taskq.worker.parent.children import Children
from taskq.worker.parent.revocations import REVOKE_GRACE, Revocations
from taskq.worker.parent.watch import resident_bytes

log = logging.getLogger("taskq.worker")

#: Seconds a child has to show its stacks, else it is deep in C; between two looks whether it has.
_STACK_TAKES, _STACK_LOOK = 0.5, 0.005


def enforce_time_limits(children: Children, now: float) -> None:
    """Kill those in which a task is over its ``time_limit``."""
    for number, child in children.running.items():
        late = [entry for seat in child.seats for entry in seat.overdue(now)]
        if late and not child.overdue:
            log.error("child %s (pid %s) is killed: a task is over its time limit", number, child.process.pid)
            child.overdue.update(late)
            children.signal(child, signal.SIGKILL)


def enforce_revocations(children: Children, revocations: Revocations, now: float) -> None:
    """Tell those that run something revoked; kill those in which it does not end."""
    for number, child in children.running.items():
        for seat in child.seats:
            tell, late = revocations.look(seat, now)
            if late:
                log.error(
                    "child %s (pid %s) is killed: a task still runs %g s after it was revoked",
                    number, child.process.pid, REVOKE_GRACE,
                )  # fmt: skip
                child.revoked.update(late)
                children.signal(child, signal.SIGKILL)
            elif tell:
                children.signal(child, child_process.REVOKED)
    revocations.forget(now)


def look_at_memory(children: Children) -> None:
    """Replace those that have grown too large."""
    for child in children.workforce:
        child.memory = resident_bytes(child.process.pid or 0)
        if 0 < children.plan.max_memory < child.memory:
            if not child.stale:
                log.info(
                    "child (pid %s) has %d MiB, more than --max-memory-per-child %d: it is replaced",
                    child.process.pid, child.memory >> 20, children.plan.max_memory >> 20,
                )  # fmt: skip
            child.stale = True


def show_stacks(children: Children) -> None:
    """Show on standard error what every thread of each is doing."""
    for number, child in children.running.items():
        with suppress(OSError):  # nobody reads it
            os.write(2, b"\nchild %d (pid %d):\n" % (number, child.process.pid or 0))
        seat = child.seats[0]
        seat.shown = False
        children.signal(child, signal.SIGQUIT)
        until = time.monotonic() + _STACK_TAKES
        while not seat.shown and time.monotonic() < until:
            time.sleep(_STACK_LOOK)
        if not seat.shown:
            children.signal(child, child_process.SHOW_C)
            time.sleep(_STACK_LOOK)


def reap_orphans(children: Children) -> None:
    """As the first process of a container: bury processes that tasks left behind."""
    ours = children.processes
    with suppress(ChildProcessError):
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in ours:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
