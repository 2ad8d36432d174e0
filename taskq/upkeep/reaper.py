"""Brings back what a lost worker held, promotes what is due, sends ticks.

Every worker's parent does this, and so does ``taskq reaper``, which needs no user code: workers store the time windows
that it uses on the server. There is no leader: each step is one idempotent script, so any number may run at once, and
from stale reads.

Not promised: a reaper cannot tell a lost worker from one that the network hides; the latter's late outcomes are
refused by the server instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from taskq.broker.commands import keeping
from taskq.broker.commands.keeping import Promotion, Reaping
from taskq.broker.commands.leasing import Move
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.message.ids import id_to_text
from taskq.spelling import count
from taskq.upkeep.stumbles import Stumbles
from taskq.upkeep.ticks import Ticks

log = logging.getLogger("taskq.reaper")

#: Incarnations recovered in one call, messages promoted in one call.
_REAP_LIMIT, _PROMOTE_LIMIT = 10, 500
#: Seconds until ticks are tried again that could not be sent, because the server lacks memory or this machine cannot
#: read the entry.
_TICK_AGAIN = 1.0
#: Seconds until what went wrong is tried again.
AGAIN = 1.0
#: Due ticks named in one call.
TICKS = 100

#: Told of each incarnation that was recovered, with the moves of its messages.
Report = Callable[[str, list[Move]], None]


def log_report(incarnation: str, moves: list[Move]) -> None:
    """Log what became of an incarnation's messages."""
    log.warning("the lease of %s ended: recovered %s", incarnation, count(len(moves), "message"))
    for move in moves:
        log.info("message %s of queue %s: %s", id_to_text(move.id), move.queue, move.place)


class Reaper(Stumbles):
    """Looks after one app's partition.

    Attributes:
        interval: Seconds between two passes at most; a third of the lease, so that the pulse stays fresh.
        promoted: How many messages it has moved to their queues.
        ticks: The ticks of its periodic entries.
        failed: Incarnations that cannot be recovered, and why.
    """

    def __init__(self, keys: Keys, name: str, lease: float, report: Report = log_report, *, keeps: bool = True) -> None:
        """Prepare; ``name`` tells this reaper from others, ``lease`` is in seconds.

        Unless it ``keeps`` the time of the schedule, others do beside it.
        """
        super().__init__()
        self.keys = keys
        self.name = name
        self.interval = lease / 3
        self._report = report
        self._skip = 0
        self.promoted = 0
        self.ticks = Ticks(keys)
        self.failed: dict[str, str] = {}
        self._keep_ms = int(self.interval * 1000) if keeps else 0

    def promote(self) -> Protocol[float]:
        """Move what is due to its queue, send what ticks; answers in how many seconds to come again.

        One batch of each a call: what else is due, or was missed, must not keep the caller from its leases.
        """
        due: Promotion = yield keeping.promote(self.keys, self.name, _PROMOTE_LIMIT, self._keep_ms, self._skip)
        self.promoted += due.moved
        if due.ticks and (yield from self.ticks.take(due)):
            return 0.0
        # Ticks of which this machine can make nothing stay due; those behind them are not to wait for that.
        skipped, self._skip = self._skip, self._skip + TICKS if due.more else 0
        if due.more:
            return 0.0
        wait = self.interval if due.wait is None else due.wait
        return min(wait, _TICK_AGAIN) if due.ticks or skipped else wait

    @property
    def behind(self) -> bool:
        """Whether more ticks may be due than those that were looked at."""
        return self._skip > 0

    def reap(self) -> Protocol[float]:
        """Recover what lost incarnations held, some of them a call; answers in how many seconds to come again."""
        reaping: Reaping = yield keeping.reap(self.keys, _REAP_LIMIT)
        for incarnation, moves in reaping.moves.items():
            self._report(incarnation, moves)
        self._tell_failed(reaping.failed)
        if len(reaping.moves) + len(reaping.failed) >= _REAP_LIMIT or reaping.unfinished:
            return 0.0
        next_end = self.interval if reaping.next_end is None else reaping.next_end
        return min(self.interval, next_end + 0.01)

    def _tell_failed(self, failed: dict[str, str]) -> None:
        """Say once of each incarnation that it cannot be recovered; it is tried again after a third of a lease."""
        for incarnation in failed.keys() - self.failed.keys():
            log.error("what %s held cannot be recovered yet: %s", incarnation, failed[incarnation])
        self.failed.update(failed)

    def step(self) -> Protocol[float]:
        """Do all of it once; answers in how many seconds to come again."""
        again = yield from self.beside("reap", self.reap(), AGAIN)
        due = yield from self.beside("promote what is due", self.promote(), AGAIN)
        return min(again, due)
