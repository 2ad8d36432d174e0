"""Giving back what a child held that has ended: by what its seats say, after its process is gone and never before.

What was running is a crash, an interruption, or (killed at its ``time_limit``) a failure; what had not been started
goes back to the head of its queue, in order, as if it had never been taken.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

from taskq.broker.call import Command
from taskq.broker.commands import holding, leasing, looking
from taskq.broker.commands.looking import Located
from taskq.broker.commands.outcomes import words
from taskq.broker.keys import Keys
from taskq.broker.patience import persist
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import TimeLimitExceeded
from taskq.message.details import error_detail
from taskq.message.ids import id_to_text
from taskq.runs import logs
from taskq.runs.delivery import Delivery, Taken
from taskq.runs.execution import Executor
from taskq.worker.child.telling import Untold
from taskq.worker.seats import digest

log = logging.getLogger("taskq.worker")

T = TypeVar("T")

#: Seconds for which a call is repeated before the whole closing is put off.
_PATIENCE = 1.0


@dataclass(slots=True)
class Closing:
    """A child that has ended.

    Attributes:
        died: Whether it died under what ran in it; else that was interrupted.
        lanes: Its incarnations, each with the digests of what ran.
        overdue: Digests of those for whose time limit it was killed.
        cause: How it came to its end, for people.
    """

    died: bool
    lanes: list[tuple[str, frozenset[bytes]]]
    overdue: frozenset[bytes] = field(default_factory=frozenset)
    cause: str = ""

    @property
    def alone(self) -> bool:
        """Whether one message had the whole process for itself: only then is it to blame for its death."""
        return sum(len(entries) for _, entries in self.lanes) == 1


class Closer:
    """Closes the incarnations of a worker's children."""

    def __init__(self, partitions: Topology, where: str, executor: Executor) -> None:
        """Prepare; ``where`` is the server as people may see it, ``executor`` decides about what ran too long."""
        self._partitions = partitions
        self._where = where
        self._executor = executor
        # Higher than any number a child reaches, so that no call of it still on its way can execute afterwards; rising.
        self._numbers = itertools.count(1 << 52)
        #: Running messages that were interrupted: returned, and given up since they may run at most once.
        self.interrupted = self.abandoned = 0
        #: Ends for which a child has yet to call the hooks.
        self.untold: deque[Untold] = deque()

    def take_untold(self) -> list[Untold]:
        """Return the ends for which hooks are to be called, each once."""
        return [self.untold.popleft() for _ in range(len(self.untold))]

    def close(self, closing: Closing) -> Protocol[bool]:
        """Give back everything; answers whether suspects are waiting now. Again: changes nothing.

        Raises:
            BrokerError: The server does not answer; to be tried again.
        """
        suspects = False
        for incarnation, entries in closing.lanes:
            for keys in self._partitions.all:
                suspects = (yield from self._close(keys, closing, incarnation, entries)) or suspects
        return suspects

    def _close(self, keys: Keys, closing: Closing, incarnation: str, entries: frozenset[bytes]) -> Protocol[bool]:
        """Give back what an incarnation holds in one partition; answers whether suspects are waiting there now."""
        suspects = False
        held = (yield from self._ask(leasing.held_ids(keys, incarnation))) if entries else []
        for raw_id in [raw_id for raw_id in held if digest(raw_id) in closing.overdue]:
            yield from self._fail_overdue(keys, incarnation, raw_id)
        running = [raw_id for raw_id in held if digest(raw_id) in entries - closing.overdue]
        kind = "crashed" if closing.died else "interrupted"
        cause = error_detail(kind, closing.cause, worker=self._executor.worker)
        command = leasing.close(keys, incarnation, died=closing.died, alone=closing.alone, running=running, cause=cause)
        while moves := (yield from self._ask(command)):  # in pieces, if it held thousands
            for move in moves:
                log.info("message %s of queue %s: back to %s", id_to_text(move.id), move.queue, move.place)
                suspects = suspects or move.place == "suspect"
                if not closing.died and move.id in running and move.place != "revoked":
                    self.interrupted += move.place != "dead"
                    self.abandoned += move.place == "dead"
        return suspects

    def _ask(self, command: Command[T]) -> Protocol[T]:
        return persist(command, self._where, _PATIENCE)

    def _fail_overdue(self, keys: Keys, incarnation: str, raw_id: bytes) -> Protocol[None]:
        """End the delivery of a message that ran beyond its ``time_limit`` as its policy says.

        Its arguments stay unread, for reading them makes objects of a user's classes, and this is the parent: a policy
        that asks for them finds none.
        """
        found: Located = yield from self._ask(looking.locate(keys, raw_id))
        if found.place != "processing":
            return
        delivery = Delivery(raw_id, found.value, Taken((found.time or 0.0) * 1000, time.monotonic()))
        outcome = self._executor.find(delivery)
        if outcome is None:
            limit = delivery.task.time_limit or 0.0
            error = TimeLimitExceeded(f"the task ran longer than its time_limit of {limit:g} s and was killed")
            outcome = self._executor.failed(delivery, error)
            logs.ended(delivery, outcome, limit)
        ttl_ms = int(self._executor.settings.result_ttl * 1000)
        fetch = holding.fetch(keys, incarnation, next(self._numbers), words([outcome], ttl_ms))
        try:
            yield from self._ask(fetch)
        except (holding.Lost, holding.Stale):
            log.info("message %s was settled before", id_to_text(raw_id))
            return
        if (end := getattr(delivery, "end", None)) is not None:
            self.untold.append(Untold(raw_id, delivery.value, delivery.taken, end.events, str(end.subject)))
