"""The parent's thread that keeps the children's leases, and does the reaper's work on the side.

It shares nothing with the thread that forks but the slots, has a connection of its own, and writes no log on its
regular path, so a child is never forked in the middle of something it holds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from taskq.broker import commands
from taskq.broker.commands import Renewal
from taskq.broker.connection import Connection
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.keys import Keys
from taskq.broker.protocol import boottime, drive
from taskq.errors import BrokerRefused
from taskq.reaper import Reaper
from taskq.worker.plan import Plan
from taskq.worker.slots import Slot

log = logging.getLogger("taskq.worker")


class Heartbeat(threading.Thread):
    """Renews leases every third of a lease; in between it waits for due times and for suspects.

    Attributes:
        trouble: Why the server cannot be reached at the moment, empty if it can; for the main thread to report.
    """

    def __init__(
        self, keys: Keys, url: str, plan: Plan, lease: float, slots: list[Slot], suspects: Callable[[], None]
    ) -> None:
        """Prepare; ``slots`` are those of all children, ``suspects`` is called when some wait to run alone."""
        super().__init__(name="taskq-heartbeat", daemon=True)
        self.keys = keys
        self.plan = plan
        self.lease = lease
        self.slots = slots
        self.ended = False
        self.trouble = ""
        self._suspects = suspects
        self._reaper = Reaper(keys, plan.name, lease)
        self._connection = Connection(url, timeout=lease / 5)
        self._bells = ["alarm", *("solo-bell:" + queues.id for queues in plan.sets)]

    def run(self) -> None:
        """Keep the leases until the process ends."""
        attempt, renew_at, reap_at = 0, 0.0, 0.0
        while not self.ended:
            try:
                now = time.monotonic()
                if now >= renew_at:
                    renewal = self._renew()
                    renew_at = now + self.lease / 3
                    reap_at = min(renew_at, now + renewal.next_end)
                if time.monotonic() >= reap_at:
                    reap_at = time.monotonic() + drive(self._reaper.reap(), self._connection)
                due = time.monotonic() + drive(self._reaper.promote(), self._connection)
                drive(self._reaper.upkeep(), self._connection)
                self._wait(min(due, renew_at, reap_at) - time.monotonic())
                attempt, self.trouble = 0, ""
            except (NotSent, Unanswered, Passing, BrokerRefused) as error:
                renew_at, self.trouble = 0.0, str(error)
                time.sleep(backoff(attempt, min(1.0, self.lease / 10)))
                attempt += 1

    def _renew(self) -> Renewal:
        sent = boottime()
        by_incarnation = {slot.incarnation: slot for slot in self.slots if slot.incarnation}
        sets = [queues.id for queues in self.plan.sets]
        renewal = self._connection.execute(commands.renew(self.keys, int(self.lease * 1000), sets, by_incarnation))
        for incarnation, slot in by_incarnation.items():
            if incarnation not in renewal.lost and slot.incarnation == incarnation:
                slot.renewed(sent + self.lease)
        if renewal.suspects:
            self._suspects()
        return renewal

    def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            return
        rang = self._connection.execute(commands.wait_bell(self.keys, self._bells, seconds))
        if rang is not None and b"solo-bell" in rang[0]:
            self._suspects()
