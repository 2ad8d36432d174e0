"""The parent's thread that keeps the children's leases, and does the reaper's work on the side.

It shares nothing with the thread that forks but the seats, has a connection of its own, and writes no log on its
regular path, so a child is never forked in the middle of something it holds. The leases come first: what goes wrong
with anything else (a server's refusal, stored bytes that nobody can read) is said once and tried again, beside them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from taskq.broker.commands import announcing, leasing
from taskq.broker.commands.leasing import Renewal
from taskq.broker.faults import backoff
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import Now, Protocol, Sleep, drive
from taskq.broker.queue_set import QueueSet
from taskq.broker.topology import Topology
from taskq.errors import BrokerRefused
from taskq.upkeep.listening import listen
from taskq.upkeep.reaper import AGAIN, Reaper
from taskq.upkeep.stumbles import OUTAGES
from taskq.worker.parent.chores import Chore
from taskq.worker.plan import Plan
from taskq.worker.seats import Seat
from taskq.worker.vital import vital

log = logging.getLogger("taskq.worker")

#: Longest time between two renewals, in seconds: however long the lease, a renewal also learns what the server lost,
#: and rings the bells that nobody heard.
_RENEW_EVERY = 4.0
#: After it rang one, the next renewal comes so soon: the token may go to a client that is gone, which the server takes
#: for alive until its wait is over.
_RING_AGAIN = 0.25
#: Seconds between two times the server is told which tasks the lanes run.
_ENLIST_EVERY = 15.0
#: Seconds by which a partition's turn to promote may come early, so that all partitions have theirs together.
_TOGETHER = 0.1


class Heartbeat(threading.Thread):
    """Renews leases every third of a lease; in between it waits for due times, suspects, and what is revoked.

    Attributes:
        trouble: Why no lease can be renewed at the moment, empty if they can; for the main thread to report.
        quiet: Whether the worker takes no more: then it serves no queue, and is not told of suspects.
    """

    def __init__(
        self,
        partitions: Topology,
        connection: Connection,
        plan: Plan,
        lease: float,
        seats: list[Seat],
        suspects: Callable[[], None],
        revoked: Callable[[str, bytes], None],
        chores: Sequence[Chore] = (),
        describe: Callable[[str], bytes] = lambda _incarnation: b"",
        ordered: Callable[[str], None] = lambda _word: None,
    ) -> None:
        """Prepare.

        Args:
            partitions: Those of the app.
            connection: The thread's own. It is made before the thread begins, for making one imports, and a child
                that is forked meanwhile would inherit the lock of an import.
            plan: What the worker is to do.
            lease: In seconds.
            seats: Those of all children.
            suspects: Called when some wait to run alone.
            revoked: Called with an incarnation and the id of a message that it is to run no longer.
            chores: What else is to be done.
            describe: Called with an incarnation of which the server has forgotten what it is.
            ordered: Called with a word that an operator has left for this worker.
        """
        super().__init__(name="taskq-heartbeat", daemon=True)
        self.partitions = partitions
        self.plan = plan
        self.lease = lease
        self.seats = seats
        self.ended = False
        self.trouble = ""
        self.quiet = False
        self._connection = connection
        self._suspects = suspects
        self._revoked = revoked
        self._chores = [*chores, Chore("say what its lanes run", _ENLIST_EVERY, self._enlist)]
        self._describe = describe
        self._ordered = ordered
        self._unknown: dict[Keys, set[str]] = {keys: set() for keys in partitions.all}
        self._serves = False  # whether it ever renewed: before, nobody may have told the server yet
        self._unheard = False  # whether something was ready and its bell was silent, at the last renewal
        self._renew_at = 0.0
        self._reap_at = dict.fromkeys(partitions.all, 0.0)
        self._due_at = dict.fromkeys(partitions.all, 0.0)
        self._reapers = {keys: Reaper(keys, plan.name, lease) for keys in partitions.all}
        self._reaper = self._reapers[partitions.first]
        self._orders = partitions.first["orders:" + plan.id]

    def run(self) -> None:
        """Keep the leases until the process ends."""
        vital("the heartbeat", lambda: drive(self.keep(), self._connection), lambda: self.ended)

    def keep(self) -> Protocol[None]:
        """Do the same as a protocol."""
        attempt = 0
        while not self.ended:
            try:
                yield from self._turn()
                attempt, self.trouble = 0, ""
                continue
            except (*OUTAGES, BrokerRefused) as error:
                self._renew_at, self.trouble = 0.0, str(error)
            except Exception as error:  # what the server answered makes no sense; the leases must be kept all the same
                self.trouble = f"{type(error).__name__}: {error}"
                self._reaper.stumble("renew the leases", error)
            yield Sleep(backoff(attempt, min(1.0, self.lease / 10)))
            attempt += 1

    def _turn(self) -> Protocol[None]:
        """Do what is due, and wait for what comes next."""
        now = yield Now()
        if now >= self._renew_at:
            next_ends = yield from self._renew(now)
            self._renew_at = now + min(self.lease / 3, _RING_AGAIN if self._unheard else _RENEW_EVERY)
            self._reap_at = {keys: min(self._renew_at, now + next_end) for keys, next_end in next_ends.items()}
        began: float = yield Now()
        for keys, reaper in self._reapers.items():
            if (yield Now()) >= self._reap_at[keys]:
                again = yield from reaper.beside("reap", reaper.reap(), AGAIN)
                self._reap_at[keys] = (yield Now()) + again
            if len(self._reapers) == 1 or began >= self._due_at[keys] - _TOGETHER:
                wait = yield from reaper.beside("promote what is due", reaper.promote(), AGAIN)
                self._due_at[keys] = (yield Now()) + wait
        for chore in self._chores:
            if (yield Now()) >= chore.at:
                chore.at = (yield Now()) + chore.every
                yield from self._reaper.beside(chore.what, chore.steps(), None)
        left = min(self._renew_at, *self._due_at.values(), *self._reap_at.values()) - (yield Now())
        if left > 0 and not (yield from self._reaper.beside("listen for what happens", self._wait(left), False)):
            yield Sleep(min(left, AGAIN))

    def _enlist(self) -> Protocol[None]:
        for keys in self.partitions.all:
            yield announcing.enlist(keys, self._sets)

    @property
    def _sets(self) -> list[QueueSet]:
        return [] if self.quiet else self.plan.sets

    def _renew(self, now: float) -> Protocol[dict[Keys, float]]:
        """Renew all leases from ``now`` on; answers in how many seconds to look for one that has ended, and where."""
        by_incarnation = {seat.incarnation: seat for seat in self.seats if seat.incarnation}
        lost, next_ends, healed = set[str](), dict[Keys, float](), list[str]()
        unannounced = self._unheard = False
        for keys in self.partitions.all:
            infos = {incarnation: self._describe(incarnation) for incarnation in self._unknown[keys]}
            renewal: Renewal = yield leasing.renew(
                keys, int(self.lease * 1000), self._sets, by_incarnation, self.plan.announced, infos
            )
            next_ends[keys], self._unknown[keys] = renewal.next_end, renewal.unknown
            lost |= renewal.lost
            healed += (what for what in renewal.healed if what not in healed)
            unannounced = unannounced or renewal.unannounced
            self._unheard = self._unheard or renewal.unheard
            if renewal.suspects:
                self._suspects()
            for incarnation, raw_id in renewal.revoked:  # of which nobody may have heard
                self._revoked(incarnation, raw_id)
        for incarnation, seat in by_incarnation.items():
            if incarnation not in lost and seat.incarnation == incarnation:
                seat.renewed(now + self.lease)
        if not self._serves:  # the first renewal is what makes it known
            self._serves, healed = True, []
        if healed:
            log.warning("the server had lost what this worker serves, and is told again: %s", ", ".join(healed))
        if unannounced or healed:
            for chore in self._chores:
                chore.at = 0.0
        return next_ends

    def _wait(self, seconds: float) -> Protocol[bool]:
        names = ["alarm", *("solo-bell:" + queues.id for queues in self._sets)]
        names += ["control:" + seat.incarnation for seat in self.seats if seat.incarnation]
        rang = yield from listen(
            [self._orders, *(keys[name] for keys in self.partitions.all for name in names)], seconds
        )
        if rang is None:
            return True
        keys = next(keys for keys in self.partitions.all if rang[0].startswith(keys.prefix))
        kind, _, name = rang[0].removeprefix(keys.prefix).partition(b":")
        self._due_at[keys] = 0.0  # an alarm says that something is due there
        if kind == b"solo-bell":
            self._suspects()
        elif kind == b"control":
            self._revoked(name.decode(), rang[1])
        elif kind == b"orders":
            self._ordered(rang[1].decode(errors="replace"))
        return True
