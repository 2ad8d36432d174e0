"""Bringing back what a lost worker held, promoting what is due; once a minute: retiring old dead letters, the audit.

Every worker's parent does this, and so does ``taskq reaper``, which needs no user code: the windows it goes by are
stored on the server by the workers. There is no leader: each step is one idempotent script, so any number may run at
once, and from stale reads.

Not promised: a reaper cannot tell a lost worker from one that the network hides; the latter's late outcomes are
refused by the server instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from taskq.audit import audit
from taskq.broker import commands
from taskq.broker.commands import Move, Reaping
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol
from taskq.envelope import id_to_text

log = logging.getLogger("taskq.reaper")

#: Incarnations recovered in one call, messages promoted in one call.
_REAP_LIMIT, _PROMOTE_LIMIT = 10, 500
_UPKEEP_EVERY = 60.0

#: Told of each incarnation that was recovered, with the moves of its messages.
Report = Callable[[str, list[Move]], None]


def log_report(incarnation: str, moves: list[Move]) -> None:
    """Log what became of an incarnation's messages."""
    log.warning("the lease of %s ended: recovered %d messages", incarnation, len(moves))
    for move in moves:
        log.info("message %s of queue %s: %s", id_to_text(move.id), move.queue, move.place)


class Reaper:
    """The upkeep of one app's partition.

    Attributes:
        interval: Seconds between two passes at most; a third of the lease, so that the pulse stays fresh.
    """

    def __init__(self, keys: Keys, name: str, lease: float, report: Report = log_report) -> None:
        """Prepare; ``name`` tells this reaper from others, ``lease`` is in seconds."""
        self.keys = keys
        self.name = name
        self.interval = lease / 3
        self._report = report
        self._upkeep_at = 0.0

    def promote(self) -> Protocol[float]:
        """Move what is due to its queue; answers in how many seconds to come again."""
        while True:
            moved, wait = yield commands.promote(self.keys, self.name, _PROMOTE_LIMIT, int(self.interval * 1000))
            if moved < _PROMOTE_LIMIT:
                return self.interval if wait is None else wait

    def reap(self) -> Protocol[float]:
        """Recover what lost incarnations held; answers in how many seconds to come again."""
        while True:
            reaping: Reaping = yield commands.reap(self.keys, _REAP_LIMIT)
            for incarnation, moves in reaping.moves.items():
                self._report(incarnation, moves)
            if len(reaping.moves) < _REAP_LIMIT:
                next_end = self.interval if reaping.next_end is None else reaping.next_end
                return min(self.interval, next_end + 0.01)

    def upkeep(self) -> Protocol[None]:
        """Purge dead letters past their time, and audit; once a minute."""
        now = yield Now()
        if now < self._upkeep_at:
            return
        self._upkeep_at = now + _UPKEEP_EVERY
        queues = yield commands.survey(self.keys)
        if dead := [queue for queue, survey in queues.items() if survey.dead]:
            yield commands.retire(self.keys, 100, dead)
        yield from audit(self.keys, int(_UPKEEP_EVERY * 1000) - 1000)

    def step(self) -> Protocol[float]:
        """Do all of it once; answers in how many seconds to come again."""
        again = yield from self.reap()
        due = yield from self.promote()
        yield from self.upkeep()
        return min(again, due)
