"""The parent's thread that keeps the children's leases, and does the reaper's work on the side.

It shares nothing with the thread that forks but the slots, has a connection of its own, and writes no log on its
regular path, so a child is never forked in the middle of something it holds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from taskq.broker import commands
from taskq.broker.commands import Renewal
from taskq.broker.connection import Connection
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Pause, Protocol, drive
from taskq.errors import BrokerRefused
from taskq.reaper import Reaper
from taskq.worker.plan import Plan
from taskq.worker.slots import Slot
from taskq.worker.strays import Strays

log = logging.getLogger("taskq.worker")

#: Seconds between two times the server is told which tasks the lanes run.
_ENLIST_EVERY = 15.0


class Heartbeat(threading.Thread):
    """Renews leases every third of a lease; in between it waits for due times, suspects, and what is revoked.

    Attributes:
        strays: Who looks for messages that are in nobody's queue, if anybody is to.
        trouble: Why the server cannot be reached at the moment, empty if it can; for the main thread to report.
    """

    def __init__(
        self,
        keys: Keys,
        connection: Connection,
        plan: Plan,
        lease: float,
        slots: list[Slot],
        suspects: Callable[[], None],
        revoked: Callable[[str, bytes], None],
    ) -> None:
        """Prepare.

        Args:
            keys: Names of the app's keys.
            connection: The thread's own. It is made before the thread begins, for making one imports, and a child
                that is forked meanwhile would inherit the lock of an import.
            plan: What the worker is to do.
            lease: In seconds.
            slots: Those of all children.
            suspects: Called when some wait to run alone.
            revoked: Called with an incarnation and the id of a message that it is to run no longer.
        """
        super().__init__(name="taskq-heartbeat", daemon=True)
        self.keys = keys
        self.plan = plan
        self.lease = lease
        self.slots = slots
        self.ended = False
        self.trouble = ""
        self.strays: Strays | None = None
        self._connection = connection
        self._suspects = suspects
        self._revoked = revoked
        self._reaper = Reaper(keys, plan.name, lease)
        self._bells = ["alarm", *("solo-bell:" + queues.id for queues in plan.sets)]

    def run(self) -> None:
        """Keep the leases until the process ends."""
        drive(self.keep(), self._connection)

    def keep(self) -> Protocol[None]:
        """Do the same as a protocol."""
        attempt, renew_at, reap_at, enlist_at = 0, 0.0, 0.0, 0.0
        while not self.ended:
            try:
                now = yield Now()
                if now >= renew_at:
                    next_end = yield from self._renew(now)
                    renew_at = now + self.lease / 3
                    reap_at = min(renew_at, now + next_end)
                if (yield Now()) >= reap_at:
                    reap_at = (yield Now()) + (yield from self._reaper.reap())
                due = (yield Now()) + (yield from self._reaper.promote())
                if now >= enlist_at:
                    enlist_at = now + _ENLIST_EVERY
                    yield commands.enlist(self.keys, self.plan.sets)
                if self.strays is not None:
                    yield from self.strays.look()
                yield from self._wait(min(due, renew_at, reap_at) - (yield Now()))
                attempt, self.trouble = 0, ""
            except (NotSent, Unanswered, Passing, BrokerRefused) as error:
                renew_at, self.trouble = 0.0, str(error)
                yield Pause(backoff(attempt, min(1.0, self.lease / 10)))
                attempt += 1

    def _renew(self, now: float) -> Protocol[float]:
        """Renew all leases from ``now`` on; answers in how many seconds the earliest lease of all ends."""
        by_incarnation = {slot.incarnation: slot for slot in self.slots if slot.incarnation}
        sets = [queues.id for queues in self.plan.sets]
        renewal: Renewal = yield commands.renew(self.keys, int(self.lease * 1000), sets, by_incarnation)
        for incarnation, slot in by_incarnation.items():
            if incarnation not in renewal.lost and slot.incarnation == incarnation:
                slot.renewed(now + self.lease)
        if renewal.suspects:
            self._suspects()
        for incarnation, raw_id in renewal.revoked:  # of which nobody may have heard
            self._revoked(incarnation, raw_id)
        return renewal.next_end

    def _wait(self, seconds: float) -> Protocol[None]:
        if seconds <= 0:
            return
        controls = ["control:" + slot.incarnation for slot in self.slots if slot.incarnation]
        rang = yield from self._reaper.wait([*self._bells, *controls], seconds)
        if rang is None:
            return
        kind, _, name = rang[0].removeprefix(self.keys.prefix).partition(b":")
        if kind == b"solo-bell":
            self._suspects()
        elif kind == b"control":
            self._revoked(name.decode(), rang[1])
