"""Sends the ticks of periodic entries that are due, and says what becomes of them."""

from __future__ import annotations

import logging
from collections import Counter

from taskq.broker.commands import ticking
from taskq.broker.commands.keeping import Promotion
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.ticks import Step
from taskq.errors import BrokerFull, BrokerRefused
from taskq.periodic.entry import Ticker

log = logging.getLogger("taskq.reaper")

#: Why a tick was skipped, by the server's answer.
_SKIPPED = {"s": "its last message has not ended", "u": "another message is the same unique work"}
#: What may go on for long, by the server's answer; it is said when it begins.
_PILING = {
    "!": "a tick waits, for its queue is full",
    "-": "no worker serves its queue: what it sends waits there",
}


class Ticks:
    """The ticks of one partition.

    Attributes:
        taken: How many, by the server's answers: ``+`` sent, ``-`` sent where nobody serves the queue.
    """

    def __init__(self, keys: Keys) -> None:
        """Prepare; nothing is known of any entry yet."""
        self.taken: Counter[str] = Counter()
        self._keys = keys
        self._ticker = Ticker()
        self._refused = False
        self._told: dict[str, str] = {}  # what was said last of an entry

    def take(self, due: Promotion) -> Protocol[bool]:
        """Send the ticks that are due and set those that follow; answers whether any was taken."""
        steps = self._ticker.steps(due.ticks, due.now)
        if not steps:
            return False
        try:
            answers = yield from self._take(steps)
        except BrokerRefused as error:  # it is full, most likely; what else this thread does must go on
            if not self._refused:
                log.warning("ticks of %d periodic entries wait: %s", len(steps), error)
            self._refused = True
            return False
        self._refused = False
        self.taken.update(answers.replace("x", ""))
        for step, answer in zip(steps, answers, strict=True):
            self._tell(step, answer)
        return any(answer != "x" for answer in answers)

    def _take(self, steps: list[Step]) -> Protocol[str]:
        """Take ticks in one call; one by one if some cannot be: a key of the wrong type is in the way of its own."""
        try:
            answers: bytes = yield ticking.take_ticks(self._keys, steps)
            return answers.decode()
        except BrokerFull:
            raise
        except BrokerRefused:
            if len(steps) == 1:
                raise
        each, refusal = "", None
        for step in steps:
            try:
                each += yield from self._take([step])
            except BrokerRefused as error:
                each, refusal = each + "x", error
        if refusal is not None and not each.strip("x"):
            raise refusal
        return each

    def _tell(self, step: Step, answer: str) -> None:
        """Log what became of a tick, if that is more than that it was sent; of what goes on, when it begins."""
        name = step.due.name
        if answer in _SKIPPED:
            log.info("periodic entry %s: a tick was skipped, %s", name, _SKIPPED[answer])
        if answer in _PILING and self._told.get(name) != answer:
            log.warning("periodic entry %s: %s", name, _PILING[answer])
        if answer in _PILING:
            self._told[name] = answer
        else:
            self._told.pop(name, None)
        if step.dropped and answer not in "x!":
            log.warning("periodic entry %s: missed ticks were left out", name)
