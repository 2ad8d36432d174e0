"""The children of a worker as its parent handles them: started, replaced, told to end, killed."""

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
from taskq.worker.parent.starting import Starter
from taskq.worker.plan import Plan
from taskq.worker.seats import Seat, SeatTable

if TYPE_CHECKING:
    from taskq.app import TaskQ

log = logging.getLogger("taskq.worker")

#: Seconds for which a child that holds nothing any more is waited for, whatever a task has left running in it.
_LEAVES_WITHIN = 3.0
#: Seconds after which a child that is to end, and runs nothing, is told again.
_TELL_AGAIN = 1.0
#: How many replaced children may at least finish what they run beside their replacements.
_ENDING = 8


@dataclass(slots=True)
class Running:
    """A child that runs.

    Attributes:
        stale: It is to be replaced as soon as a number is free for another.
        retiring: It takes nothing more, and another takes its place.
        stopping: It was told that the worker stops.
        tell_again: When it is told so again: a wait that begins just after a signal does not notice it.
        leaves_by: When it is killed if it is still there, since it has said that it holds nothing any more.
        overdue: Digests of messages for whose time limit it was killed.
        revoked: Digests of revoked messages that did not end, for which it was killed.
        memory: Its resident memory at the last look, in bytes.
    """

    process: BaseProcess
    started: float
    seats: list[Seat]
    stale: bool = False
    retiring: bool = False
    stopping: bool = False
    tell_again: float = float("inf")
    leaves_by: float = float("inf")
    overdue: set[bytes] = field(default_factory=set)
    revoked: set[bytes] = field(default_factory=set)
    memory: int = 0

    @property
    def busy(self) -> bool:
        """Whether it runs anything."""
        return any(seat.running() for seat in self.seats)

    @property
    def code(self) -> int | None:
        """With which code it has ended: that with which it said it would, whatever a task has made of its exit."""
        return self.process.exitcode if self.exit_code is None else self.exit_code

    @property
    def exit_code(self) -> int | None:
        """With which code it leaves, if it has said that it holds nothing any more."""
        return self.seats[0].exit_code


class Children:
    """The children by their numbers; a number is a region of the seat table, too.

    Attributes:
        plan: What they are to do.
        running: Those that run, by number.
        isolation: The number of the child that runs a suspect alone.
    """

    def __init__(self, app: TaskQ, plan: Plan) -> None:
        """Prepare their seats.

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
        # More numbers than children, so that a replacement can start before its predecessor has ended; one more for the
        # isolated child.
        children = max(plan.concurrency, plan.max_concurrency)
        self.isolation = children + max(children, _ENDING)
        self.seats = SeatTable(self.isolation + 1, plan.capacities)
        self.running: dict[int, Running] = {}
        fork_beside_threads()
        for seat in self.every_seat():
            seat.clear()

    def every_seat(self) -> list[Seat]:
        """Return the seats of all children."""
        return [seat for number in range(self.isolation + 1) for seat in self.seats.of(number)]

    @property
    def workforce(self) -> list[Running]:
        """The children that take messages as they come."""
        return [child for number, child in self.running.items() if number != self.isolation and not child.retiring]

    def ended(self) -> list[tuple[int, Running]]:
        """Return those whose processes have ended, with their numbers."""
        return [(number, child) for number, child in self.running.items() if self._starter.is_over(child.process)]

    @property
    def tellers(self) -> list[int]:
        """Descriptors that can be read when a child has ended, as far as no SIGCHLD says so."""
        return self._starter.tellers(child.process for child in self.running.values())

    @property
    def processes(self) -> set[int | None]:
        """The ids of all processes that are this worker's own: children, and what starts them."""
        return {child.process.pid for child in self.running.values()} | self._starter.helpers

    def start_missing(self, wanted: int) -> None:
        """Start children until ``wanted`` take messages, as far as numbers are free; raises as `start`."""
        free = [number for number in range(self.isolation) if number not in self.running]
        missing = max(0, wanted - len(self.workforce))
        # One that is not replaced at once works on: a number is taken until what runs there has ended.
        for child in [child for child in self.workforce if child.stale][: max(0, len(free) - missing)]:
            self.retire(child)
            missing += 1
        for number in free[:missing]:
            self.start(number)

    def start(self, number: int, untold: Sequence[Untold] = ()) -> None:
        """Start a child, which first tells hooks of those ends.

        Raises:
            OSError: It cannot be started now.
        """
        seats = self.seats.of(number)
        for seat in seats:
            seat.clear()
        alone = number == self.isolation
        app = self._app if self._starter.copies else self._app.name
        name = f"taskq-{'isolated' if alone else number}"
        process = self._starter.start(child_process.main, (self.plan, number, app, self.seats, alone, untold), name)
        self.running[number] = Running(process, time.monotonic(), seats)

    def retire(self, child: Running) -> None:
        """Let a child end when what it runs has ended; another takes its place at once."""
        child.retiring = True
        self._tell_to_end(child)

    def replace_all(self) -> None:
        """Replace every child, one beside the other, as far as numbers are free."""
        for child in self.workforce:
            child.stale = True

    def stop(self) -> None:
        """Tell those that have not been told that the worker stops."""
        for child in self.running.values():
            if not child.stopping:
                child.stopping = child.retiring = True
                # One that has not begun holds nothing, and may be deaf for as long as its module takes to import.
                if any(seat.incarnation for seat in child.seats):
                    self._tell_to_end(child)
                else:
                    self.signal(child, signal.SIGKILL)

    def _tell_to_end(self, child: Running) -> None:
        """Tell one to take nothing more, and to end when what it runs has ended."""
        child.tell_again = time.monotonic() + _TELL_AGAIN
        self.signal(child, signal.SIGTERM if child.stopping else signal.SIGHUP)

    def listen(self) -> None:
        """Take in what children say in their seats; tell those again that go on, end those that do not leave."""
        now = time.monotonic()
        for number, child in self.running.items():
            if child.seats[0].retiring and not child.retiring:
                child.retiring, child.tell_again = True, now + _TELL_AGAIN
            if child.exit_code is None:
                if child.retiring and now >= child.tell_again and not child.busy:
                    self._tell_to_end(child)
                continue
            child.leaves_by = min(child.leaves_by, now + _LEAVES_WITHIN)
            if now >= child.leaves_by and child.process.exitcode is None:
                log.warning(
                    "child %s (pid %s) is killed: it holds nothing any more, but something in it still runs, such as a "
                    "thread that a task has left, or a hook for child_shutdown", number, child.process.pid,
                )  # fmt: skip
                self.signal(child, signal.SIGKILL)

    @property
    def leaving(self) -> bool:
        """Whether there is one that holds nothing any more."""
        return any(child.exit_code is not None for child in self.running.values())

    def incarnations(self) -> list[str] | None:
        """Return those of all lanes; None while any child has not begun."""
        lanes = [queues.id for queues in (self.plan.main, self.plan.loop, self.plan.thread)]
        found = [
            seat.incarnation
            for child in self.running.values()
            for seat, lane in zip(child.seats, lanes, strict=True)
            if lane
        ]
        return found if all(found) else None

    def what_is(self, incarnation: str) -> bytes:
        """Return what the server is to know of an incarnation, if there is one; from any thread."""
        lanes = (self.plan.main, self.plan.loop, self.plan.thread)
        for number, child in list(self.running.items()):
            for queues, seat in zip(lanes, child.seats, strict=True):
                if seat.incarnation == incarnation:
                    return self.plan.info(number, queues, child.process.pid)
        return b""

    def signal(self, child: Running, number: int) -> None:
        """Send a signal to one that has not ended."""
        if child.process.pid is not None and child.process.exitcode is None:
            with suppress(ProcessLookupError):  # its fork server has waited for it already
                os.kill(child.process.pid, number)

    def kill_all(self) -> None:
        """End them at once."""
        for child in self.running.values():
            self.signal(child, signal.SIGKILL)

    def close(self) -> None:
        """End them at once, and start none any more."""
        self.kill_all()
        self.seats.close()
