"""The dialogue of a lane with the server: take, settle, and take no harm if an answer is lost.

Pure protocols (see `taskq.broker.protocol`): no I/O, no thread, no clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from taskq.broker import call
from taskq.broker.commands import holding
from taskq.broker.commands.holding import Batch, Stale
from taskq.broker.commands.outcomes import words
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.protocol import Protocol, Sleep
from taskq.errors import BrokerRefused
from taskq.message.outcome import Outcome, ids_of
from taskq.spelling import count
from taskq.worker.child.incarnation import PAUSE_MAX, Incarnation

log = logging.getLogger("taskq.worker")

#: How many outcomes to tell in one call.
_AT_ONCE = 1000


class Session(Incarnation):
    """An incarnation at work.

    Attributes:
        fenced: Outcomes the server refused because the messages were another's by then.
    """

    fenced = 0

    @property
    def bells(self) -> tuple[bytes, ...]:
        """The bell of the queues."""
        return (self.keys["bell:" + self.queues.id],)

    def rang(self, reply: object) -> None:
        """Take note of what came of a wait for the bell; there is only one."""

    def exchange(
        self,
        outcomes: Sequence[Outcome],
        *,
        want: int = 0,
        caps: str = "",
        wait: float = 0.0,
        then: Callable[[int], call.Command[Any]] | None = None,
    ) -> Protocol[Batch]:
        """Settle ``outcomes`` and take up to ``want`` messages, however many times the connection breaks.

        With ``wait``, wait that many seconds at most for the bell of the queues first (at the first try). Outcomes do
        not wait for it: they are settled, and the wait is the next exchange's, which must ask for the same.
        ``then`` makes the command that is to be sent along (at the first try) from the number of this call; see
        `sent_along`.

        Raises:
            Lost: The lease ended and another recovered what this incarnation held; the outcomes changed nothing.
        """
        if len(outcomes) > _AT_ONCE:  # thousands of coroutines may end together
            for first in reversed(range(_AT_ONCE, len(outcomes), _AT_ONCE)):  # what is returned stays in order
                yield from self.exchange(outcomes[first : first + _AT_ONCE])
            outcomes = outcomes[:_AT_ONCE]
        groups = words(outcomes, self.result_ttl_ms)
        attempt, sent, self._ahead = 0, self._ahead, None
        self.doubtful = self.doubtful or (sent is not None and not wait)  # it may have taken what nobody waits for
        while True:
            if self.doubtful:
                yield from self._sync(self._number)
                self.doubtful, sent = False, None
            self._number += 1
            number = self._number
            try:
                batch: Batch = yield sent or self._call(number, groups, want, caps, wait, then)
                break
            except NotSent:
                self.doubtful = True  # it was not executed: say the same again
            except Passing:
                pass  # neither was it
            except (Unanswered, Stale):
                if (yield from self._sync(number)) and groups:
                    groups = []  # it was, so they are settled; what it took went back to the queues
                    self.held.difference_update(ids_of(outcomes))
                    yield from self._sync(number)  # also what it gave back (a retry, a return) and took again
            except BrokerRefused as error:
                self._tell(f"{error}; retrying")
                self.doubtful = True  # it may have been executed in part, and have taken something
                attempt = max(attempt, 6)
            wait, then, sent, self._ahead = 0.0, None, None, None
            yield Sleep(backoff(attempt, PAUSE_MAX))
            attempt += 1
        self._refusal = ""
        self.held.difference_update(ids_of(outcomes))
        self.held.update(batch.messages[::2])
        if batch.fenced:
            self.fenced += batch.fenced
            refused = count(batch.fenced, "outcome")
            log.warning("%s refused: the messages had been given to others meanwhile", refused)
        return batch

    def _call(
        self,
        number: int,
        groups: Sequence[call.Arg],
        want: int,
        caps: str,
        wait: float,
        then: Callable[[int], call.Command[Any]] | None,
    ) -> call.Command[Batch]:
        """Return the call to make; if it settles and there is to be a wait, that goes along as the next call."""
        fetch, queues = partial(holding.fetch, self.keys, self.incarnation), self.queues
        take = partial(fetch, want=want, set_id=queues.id, caps=caps, order=queues.order, wait=wait)
        if then is not None:
            self._ahead = then(number)
        elif groups and wait:
            self._ahead = take(number + 1, (), mode="next")
        if self._ahead is not None:
            return fetch(number, groups, ahead=self._ahead)
        return take(number, groups, mode="solo" if self._alone else "")

    def sent_along(self) -> call.Command[Any] | None:
        """Hand over the command that went with the last exchange; None if that needed more than one try."""
        ahead, self._ahead = self._ahead, None
        return ahead

    def next_number(self) -> int:
        """Count a call that is made by another, in the name of this session."""
        self._number += 1
        return self._number
