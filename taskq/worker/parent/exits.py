"""What children that have ended leave: what is to be given back, why they died, and how soon the next may start."""

from __future__ import annotations

import logging
import signal
import time

from taskq.worker.child.child import INTERRUPTED, NOTHING_TO_DO
from taskq.worker.parent.children import Running
from taskq.worker.parent.closing import Closing
from taskq.worker.parent.watch import describe_exit, oom_kills

log = logging.getLogger("taskq.worker")

#: A child that ends sooner than this many seconds after its start did not get to work.
_TOO_SOON = 1.0


class Exits:
    """The ends of one worker's children.

    Attributes:
        interrupted: Whether any has cancelled a coroutine.
    """

    def __init__(self, concurrency: int) -> None:
        """Begin; four times as many quick deaths in a row as the worker has children are bad luck, more are a cause."""
        self.interrupted = False
        self._patience = 4 * concurrency
        self._quick = 0  # deaths in a row right after the start
        self._oom_kills = oom_kills()

    def look_at(self, number: int, child: Running, stopping: bool) -> Closing:
        """Say what one has left, and log why it died if it did; ``stopping``: it was to end, and perhaps killed."""
        child.process.join()
        lanes = [(seat.incarnation, seat.running()) for seat in child.seats if seat.incarnation]
        # A task may also end its process politely. What this parent killed was interrupted, or ran too long.
        failed = child.code not in (0, NOTHING_TO_DO, INTERRUPTED) or any(entries for _, entries in lanes)
        self.interrupted = self.interrupted or child.code == INTERRUPTED
        died = failed and not stopping and not child.overdue and not child.revoked
        if died:
            cause = f"its process {self._describe(child)}"
            log.error("child %s (pid %s) died: %s", number, child.process.pid, cause)
        elif child.overdue:
            cause = "its process was killed since a task in it was over its time_limit"
        else:
            cause = "its worker was stopped before it had ended"
        return Closing(died, lanes, frozenset(child.overdue), cause)

    def _describe(self, child: Running) -> str:
        text = describe_exit(child.process.exitcode)
        kills, self._oom_kills = self._oom_kills, oom_kills()
        if child.process.exitcode == -signal.SIGKILL and self._oom_kills > kills:
            text += (
                f" of the kernel for lack of memory (out of memory; {child.memory >> 20} MiB resident when last seen)"
            )
        return text

    def pause(self, child: Running, closing: Closing) -> float:
        """Return for how many seconds no other is to start: 0, unless children keep dying right after their start."""
        began = bool(closing.lanes)
        quick = not began or time.monotonic() - child.started < _TOO_SOON  # an import may take long to fail
        self._quick = self._quick + 1 if closing.died and quick else 0
        excess = self._quick - self._patience
        if excess <= 0:
            return 0.0
        pause: float = min(5.0, 0.1 * 2**excess)
        log.error("children keep dying right after their start; the next one starts in %.1f s", pause)
        return pause
