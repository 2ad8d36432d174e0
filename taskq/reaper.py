"""Bringing back what a lost worker held, promoting what is due, sending ticks.

Every worker's parent does this, and so does ``taskq reaper``, which needs no user code: the windows it goes by are
stored on the server by the workers. There is no leader: each step is one idempotent script, so any number may run at
once, and from stale reads.

Not promised: a reaper cannot tell a lost worker from one that the network hides; the latter's late outcomes are
refused by the server instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from taskq.broker import commands
from taskq.broker.commands import Move, Promotion, Reaping
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Pause, Protocol
from taskq.broker.ticks import Step
from taskq.entries import Ticker
from taskq.envelope import id_to_text
from taskq.errors import BrokerRefused
from taskq.spelling import count

log = logging.getLogger("taskq.reaper")

#: Incarnations recovered in one call, messages promoted in one call.
_REAP_LIMIT, _PROMOTE_LIMIT = 10, 500
#: Seconds until ticks are tried again that could not be sent, for want of memory there or of knowledge here.
_TICK_AGAIN = 1.0
#: Why a tick was skipped, by the server's answer.
_SKIPPED = {"s": "its last message has not ended", "u": "another message is the same unique work"}
#: Seconds by which a server may answer a wait too late.
_GRAIN = 0.11

#: Told of each incarnation that was recovered, with the moves of its messages.
Report = Callable[[str, list[Move]], None]


def log_report(incarnation: str, moves: list[Move]) -> None:
    """Log what became of an incarnation's messages."""
    log.warning("the lease of %s ended: recovered %s", incarnation, count(len(moves), "message"))
    for move in moves:
        log.info("message %s of queue %s: %s", id_to_text(move.id), move.queue, move.place)


class Reaper:
    """Looks after one app's partition.

    Attributes:
        interval: Seconds between two passes at most; a third of the lease, so that the pulse stays fresh.
    """

    def __init__(self, keys: Keys, name: str, lease: float, report: Report = log_report) -> None:
        """Prepare; ``name`` tells this reaper from others, ``lease`` is in seconds."""
        self.keys = keys
        self.name = name
        self.interval = lease / 3
        self._report = report
        self._ticker = Ticker()
        self._refused = False
        self._full: set[str] = set()
        self._failed: set[str] = set()

    def promote(self) -> Protocol[float]:
        """Move what is due to its queue, send what ticks; answers in how many seconds to come again."""
        while True:
            due: Promotion = yield commands.promote(self.keys, self.name, _PROMOTE_LIMIT, int(self.interval * 1000))
            # One batch of ticks a call: a long row of missed ones must not keep the caller from its leases.
            if due.ticks and (yield from self.take_ticks(due)):
                return 0.0
            if due.moved < _PROMOTE_LIMIT:
                wait = self.interval if due.wait is None else due.wait
                return min(wait, _TICK_AGAIN) if due.ticks else wait

    def take_ticks(self, due: Promotion) -> Protocol[bool]:
        """Send the ticks that are due and set those that follow; answers whether there were any to take."""
        steps = self._ticker.steps(due.ticks, due.now)
        if not steps:
            return False
        try:
            answers: bytes = yield commands.take_ticks(self.keys, steps)
        except BrokerRefused as error:  # it is full, most likely; what else this thread does must go on
            if not self._refused:
                log.warning("ticks of %d periodic entries wait: %s", len(steps), error)
            self._refused = True
            return False
        self._refused = False
        for step, answer in zip(steps, answers.decode(), strict=True):
            self._tell(step, answer)
        return True

    def _tell(self, step: Step, answer: str) -> None:
        """Log what became of a tick, if that is more than that it was sent."""
        name = step.due.name
        if answer in _SKIPPED:
            log.info("periodic entry %s: a tick was skipped, %s", name, _SKIPPED[answer])
        if answer == "!" and name not in self._full:
            log.warning("periodic entry %s: a tick waits, for its queue is full", name)
        (self._full.add if answer == "!" else self._full.discard)(name)
        if step.dropped and answer not in "x!":
            log.warning("periodic entry %s: missed ticks were left out", name)

    def reap(self) -> Protocol[float]:
        """Recover what lost incarnations held; answers in how many seconds to come again."""
        while True:
            reaping: Reaping = yield commands.reap(self.keys, _REAP_LIMIT)
            for incarnation, moves in reaping.moves.items():
                self._report(incarnation, moves)
            self._tell_failed(reaping.failed)
            if len(reaping.moves) < _REAP_LIMIT:
                next_end = self.interval if reaping.next_end is None else reaping.next_end
                return min(self.interval, next_end + 0.01)

    def _tell_failed(self, failed: dict[str, str]) -> None:
        """Say once of each incarnation that it cannot be recovered; it is tried again after a third of a lease."""
        for incarnation in failed.keys() - self._failed:
            log.error("what %s held cannot be recovered yet: %s", incarnation, failed[incarnation])
        self._failed.update(failed)

    def wait(self, bells: Sequence[str], seconds: float) -> Protocol[list[bytes] | None]:
        """Wait until one of the bells rings, at most ``seconds``; answers its key and its token, or None in vain.

        A server looks at the timeouts of its clients ten times a second only, so the last tenth is slept out here.
        """
        until = (yield Now()) + seconds
        if seconds > _GRAIN:
            rang: list[bytes] | None = yield commands.wait_bell(self.keys, bells, seconds - _GRAIN)
            if rang is not None:
                return rang
        yield Pause(max(0.0, until - (yield Now())))
        if seconds <= _GRAIN:  # nobody listened, and the next wait may be as short
            for bell in bells:
                token: bytes | None = yield commands.take_bell(self.keys, bell)
                if token is not None:
                    return [self.keys[bell], token]
        return None

    def step(self) -> Protocol[float]:
        """Do all of it once; answers in how many seconds to come again."""
        again = yield from self.reap()
        due = yield from self.promote()
        return min(again, due)
