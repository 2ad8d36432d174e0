"""The dialogue of one incarnation with the server: take, settle, and put right what a lost answer left open.

Pure protocols (see `taskq.broker.protocol`): no I/O, no thread, no clock. A session survives outages for as long as
its lease does; after that the server answers `Lost` and the lane begins a new incarnation.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from taskq.broker import call
from taskq.broker.commands import holding
from taskq.broker.commands.holding import Batch, QueueSet, Stale
from taskq.broker.commands.outcomes import words
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol, Sleep
from taskq.errors import BrokerRefused
from taskq.message.outcome import Outcome, ids_of
from taskq.spelling import count

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Longest pause between tries while the server does not answer, in seconds.
_PAUSE_MAX = 1.0
#: How many outcomes to tell in one call.
_AT_ONCE = 1000
#: How many times to try to say goodbye if nothing is held: about a second. The end of the lease does the same.
_GOODBYES = 8


class Stopped(Exception):
    """The lane is to stop, and what it was trying to do need not be done."""


class Session:
    """One lane's incarnation: its id, its call numbers, what it holds.

    Attributes:
        incarnation: A random id; empty before `open` and after `close`.
        held: Ids taken and not yet settled.
        fenced: Outcomes the server refused because the messages were another's by then.
        doubtful: Whether the connection broke since the last exchange: the server may have been restored to an older
            state since, in which this incarnation holds what it has settled. The next exchange begins with a sync.
    """

    def __init__(
        self,
        keys: Keys,
        queues: QueueSet,
        info: bytes,
        lease_ms: int,
        result_ttl_ms: int,
        began: Callable[[str], None],
        alone: bool = False,
        announced: int | None = None,
    ) -> None:
        """Prepare a session; ``began`` is called with each new incarnation before the server hears of it.

        With ``alone`` it does not serve the queues: it takes their suspects, one at a time. Nothing is taken before
        what the worker announced is in force (``announced``: since when, by the server's clock).
        """
        self.keys = keys
        self.queues = queues
        self.info = info
        self.lease_ms = lease_ms
        self.result_ttl_ms = result_ttl_ms
        self.incarnation = ""
        self.held: set[bytes] = set()
        self.fenced = 0
        self.doubtful = False
        self._number = 0
        self._began = began
        self._alone = alone
        self._announced = announced
        self._refusal = ""  # what the server refused last, told already
        self._ahead: call.Command[Batch] | None = None  # the next call, sent with the last one

    @property
    def bells(self) -> tuple[bytes, ...]:
        """The bell of the queues."""
        return (self.keys["bell:" + self.queues.id],)

    def rang(self, reply: object) -> None:
        """Take note of what came of a wait for the bell; there is only one."""

    def open(self, incarnation: str = "") -> Protocol[None]:
        """Begin a new incarnation, of a random id unless given; what the last one held is forgotten."""
        self.incarnation = incarnation or os.urandom(8).hex()
        self.held.clear()
        self.doubtful, self._ahead = False, None
        self._number = 0
        self._began(self.incarnation)
        queues = QueueSet("", ()) if self._alone else self.queues
        register = holding.register(
            self.keys, self.incarnation, self.lease_ms, self.info, queues, self._announced
        )  # fmt: skip
        attempt = 0
        while True:
            try:
                if (yield from self._until_answered(register)):
                    return
                self._tell("the server has lost what limits the tasks: nothing is taken until that is announced again")
            except BrokerRefused as error:
                self._tell(f"{error}; retrying")
                attempt = max(attempt, 6)
            yield Sleep(backoff(attempt, _PAUSE_MAX))
            attempt += 1

    def exchange(
        self,
        outcomes: Sequence[Outcome],
        *,
        want: int = 0,
        caps: str = "",
        wait: float = 0.0,
        bells: Sequence[bytes] = (),
        heard: Callable[[Any], object] = call.as_it_is,
    ) -> Protocol[Batch]:
        """Settle ``outcomes`` and take up to ``want`` messages, however many times the connection breaks.

        With ``wait``, wait that many seconds at most for the bell of the queues first (at the first try), or for any of
        ``bells``: ``heard`` is told which. Outcomes do not wait for it: they are settled, and the wait is the next
        exchange's, which must ask for the same.

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
                batch: Batch = yield sent or self._call(number, groups, want, caps, wait, bells, heard)
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
            wait, sent, self._ahead = 0.0, None, None
            yield Sleep(backoff(attempt, _PAUSE_MAX))
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
        bells: Sequence[bytes],
        heard: Callable[[Any], object],
    ) -> call.Command[Batch]:
        """Return the call to make; if it settles and there is to be a wait, that goes along as the next call."""
        fetch, queues = partial(holding.fetch, self.keys, self.incarnation), self.queues
        take = partial(
            fetch, want=want, set_id=queues.id, caps=caps, order=queues.order, wait=wait, bells=bells, heard=heard
        )
        if groups and wait:
            self._ahead = take(number + 1, (), mode="next")
            return fetch(number, groups, ahead=self._ahead)
        return take(number, groups, mode="solo" if self._alone else "")

    def _sync(self, lost: int) -> Protocol[bool]:
        """After call number ``lost`` found no answer: agree with the server on what is held. Says whether it ran."""
        attempt = 0
        while True:
            self._number += 1
            try:
                executed, gone = yield holding.sync(self.keys, self.incarnation, self._number, lost, tuple(self.held))
            except (NotSent, Unanswered, Passing, Stale, BrokerRefused):
                yield Sleep(backoff(attempt, _PAUSE_MAX))
                attempt += 1
                continue
            self.held.difference_update(gone)
            return bool(executed)

    def close(self) -> Protocol[None]:
        """End the incarnation; what it still holds goes back to its queues, uncounted."""
        if self.incarnation:
            command = holding.close(self.keys, self.incarnation, died=False, alone=False, running=())
            try:
                while (yield from self._until_answered(command, None if self.held else _GOODBYES)):
                    pass  # in pieces, if it held thousands
            except BrokerRefused as error:  # what is held its parent gives back
                self._tell(f"{error}; retrying")
            self.incarnation = ""

    def give_up(self) -> Protocol[None]:
        """Leave what is held to whoever looks after lost incarnations: nobody knows any more what of it has run."""
        if self.incarnation:
            lost = holding.close_lost(self.keys, self.incarnation)
            while (yield from self._until_answered(lost)):
                pass
            self.incarnation = ""

    def _tell(self, trouble: str) -> None:
        """Log once what an operator can fix: missing rights, a changed password, a key of the wrong type."""
        if trouble != self._refusal:
            self._refusal = trouble
            log.error("%s", trouble)

    def _until_answered(self, command: call.Command[T], tries: int | None = None) -> Protocol[T | None]:
        """Repeat a command until it is answered; None if it is not in so many ``tries``."""
        attempt = 0
        while attempt != tries:
            try:
                reply: T = yield command
                return reply
            except (NotSent, Unanswered, Passing):
                yield Sleep(backoff(attempt, _PAUSE_MAX))
                attempt += 1
        return None
