"""Messages in queues that nobody serves: found, logged, and handed to workers that know their task elsewhere."""

from __future__ import annotations

import logging

from taskq.broker.commands import keeping, looking
from taskq.broker.commands.keeping import Stray
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol
from taskq.message.details import error_detail

log = logging.getLogger("taskq.worker")

#: Seconds between two looks, soon after the start and later; queues of one look.
_SOON, _EVERY, _MOST = 5.0, 30.0, 100


class Strays:
    """One worker's look-out."""

    def __init__(self, keys: Keys, worker: str, unknown_after: float) -> None:
        """Prepare; a task that no live worker knows is given up after ``unknown_after`` seconds."""
        self._keys = keys
        self._unknown_after = unknown_after
        text = f"no live worker has known its task, or served its queue, for {unknown_after:g} s"
        self._detail = error_detail("unknown-task", text, worker=worker)
        self._look_at: float | None = None
        self._looks = 0
        self._said: set[str] = set()

    def look(self) -> Protocol[None]:
        """Look, if it is time to: its own children are to have registered before the first look."""
        now = yield Now()
        if self._look_at is None:
            self._look_at = now + min(_SOON, max(0.5, self._unknown_after / 4))
        if now < self._look_at:
            return
        self._looks += 1
        self._look_at = now + min(_SOON if self._looks < 6 else _EVERY, max(0.5, self._unknown_after / 4))
        survey = yield looking.survey(self._keys)
        there = {queue for queue, found in survey.items() if found.pending or found.suspects}
        if there:
            there -= yield looking.served_queues(self._keys)
        self._said &= there
        if there:
            ms = int(self._unknown_after * 1000)
            adopt = keeping.adopt(self._keys, ms, self._detail, sorted(there)[:_MOST])
            for stray in (yield adopt):
                self._tell(stray)

    def _tell(self, stray: Stray) -> None:
        """Log what was found: what goes on waiting once, as long as it does."""
        if stray.handed_on:
            text = "%d messages in queue %s, which nobody serves any more, go to where their task is now"
            log.warning(text, stray.handed_on, stray.queue)
        if stray.given_up:
            text = (
                "%d messages in queue %s are dead letters, unknown-task: no live worker has known their task for %g s"
            )
            log.error(text, stray.given_up, stray.queue, self._unknown_after)
        if stray.waiting and stray.queue not in self._said:
            self._said.add(stray.queue)
            text = (
                "%d messages wait in queue %s, which no live worker serves (the first is of task %s): start one, -Q %s"
            )
            log.warning(text, stray.waiting, stray.queue, stray.task or "?", stray.queue)
