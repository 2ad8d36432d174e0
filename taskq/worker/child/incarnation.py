"""How a lane's incarnation begins and ends, and what puts right what a lost answer has left open.

A session survives outages for as long as its lease does; after that the server answers `Lost` and the lane begins a new
incarnation.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from taskq.broker.call import Command
from taskq.broker.commands import holding, leasing
from taskq.broker.commands.holding import Batch, Stale
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.errors import BrokerRefused

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Longest pause between tries while the server does not answer, in seconds.
PAUSE_MAX = 1.0
#: What is asked again, whatever it is.
_NO_ANSWER = (NotSent, Unanswered, Passing)
#: How many times to try to say goodbye if nothing is held: about a second. The end of the lease does the same.
_GOODBYES = 8


class Incarnation:
    """One lane's incarnation: its id, its call numbers, what it holds.

    Attributes:
        incarnation: A random id; empty before `open` and after `close`.
        held: Ids taken and not yet settled.
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
        """Prepare one; ``began`` is called with each new incarnation before the server hears of it.

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
        self.doubtful = False
        self._number = 0
        self._began = began
        self._alone = alone
        self._announced = announced
        self._refusal = ""  # what the server refused last, told already
        self._ahead: Command[Batch] | None = None  # the next call, sent with the last one

    def open(self, incarnation: str = "") -> Protocol[None]:
        """Begin a new incarnation, of a random id unless given; what the last one held is forgotten."""
        self.incarnation = incarnation or os.urandom(8).hex()
        self.held.clear()
        self.doubtful, self._ahead = False, None
        self._number = 0
        self._began(self.incarnation)
        queues = QueueSet("", ()) if self._alone else self.queues
        register = partial(
            holding.register, self.keys, self.incarnation, self.lease_ms, self.info, queues, self._announced
        )
        for attempt in itertools.count():
            try:
                if (yield from self._until_answered(register)):
                    return
                self._tell("the server has lost what limits the tasks: nothing is taken until that is announced again")
            except BrokerRefused as error:
                self._tell(f"{error}; retrying")
            yield Sleep(backoff(attempt, PAUSE_MAX))

    def _sync(self, lost: int) -> Protocol[bool]:
        """After call number ``lost`` found no answer: agree with the server on what is held. Says whether it ran."""

        def ask() -> Command[tuple[bool, list[bytes]]]:
            self._number += 1
            return holding.sync(self.keys, self.incarnation, self._number, lost, tuple(self.held))

        executed, gone = yield from self._until_answered(ask, (*_NO_ANSWER, Stale, BrokerRefused))
        self.held.difference_update(gone)
        return executed

    def close(self) -> Protocol[None]:
        """End the incarnation; what it still holds goes back to its queues, uncounted."""
        if self.incarnation:
            close = partial(leasing.close, self.keys, self.incarnation, died=False, alone=False, running=())
            try:
                while (yield from self._until_answered(close, tries=0 if self.held else _GOODBYES)):
                    pass  # in pieces, if it held thousands
            except _NO_ANSWER:
                pass  # its lease ends
            except BrokerRefused as error:  # what is held its parent gives back
                self._tell(str(error))
            self.incarnation = ""

    def give_up(self) -> Protocol[None]:
        """Leave what is held to whoever looks after lost incarnations: nobody knows any more what of it has run."""
        if self.incarnation:
            while (yield from self._until_answered(partial(leasing.close_lost, self.keys, self.incarnation))):
                pass
            self.incarnation = ""

    def _tell(self, trouble: str) -> None:
        """Log once what an operator can fix: missing rights, a changed password, a key of the wrong type."""
        if trouble != self._refusal:
            self._refusal = trouble
            log.error("%s", trouble)

    def _until_answered(
        self, ask: Callable[[], Command[T]], no_answer: tuple[type[Exception], ...] = _NO_ANSWER, tries: int = 0
    ) -> Protocol[T]:
        """Ask until there is an answer; raises what is another error, or came of the last of so many ``tries``."""
        attempt = 0
        while True:
            try:
                reply: T = yield ask()
                return reply
            except no_answer:
                if attempt + 1 == tries:
                    raise
                yield Sleep(backoff(attempt, PAUSE_MAX))
                attempt += 1
