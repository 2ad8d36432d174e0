"""The upkeep of an app's partitions that nobody waits for, once a minute: deletes old dead letters and audits.

It has a thread and a connection of its own, so that it delays no renewal of a lease, no reaping and no due time,
however much there is to look through.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import suppress

from taskq.broker.commands import auditing, keeping, looking
from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.onward import carry_all
from taskq.broker.protocol import Now, Protocol, drive
from taskq.broker.topology import Topology
from taskq.config import whoami
from taskq.errors import BrokerRefused
from taskq.upkeep.audit import audit, paced, queues_of
from taskq.upkeep.derived import restore
from taskq.views.audits import Audit

log = logging.getLogger("taskq.upkeep")

_EVERY = 60.0
#: Queues looked through for old dead letters, and how many go of each, in one call.
_QUEUES, _LETTERS = 500, 100


def upkeep(keys: Keys, by: str = "") -> Protocol[Counter[str]]:
    """Do all of it once, unless somebody has lately; answers what the audit mended. ``by`` is who does it."""
    if not (yield auditing.audit(keys, int(_EVERY * 1000) - 1000)):
        return Counter()
    mended = yield from look_through(keys, by)
    yield keeping.keep_minute(keys)
    return mended


def look_through(keys: Keys, by: str) -> Protocol[Counter[str]]:
    """Let old dead letters go and audit, whoever did so when; answers what was mended, and keeps that to be read."""
    began = yield Now()
    queues = yield from queues_of(keys)
    for first in range(0, len(queues), _QUEUES):
        while (yield from paced(keeping.retire(keys, _LETTERS, queues[first : first + _QUEUES]))):
            pass
    mended = (yield from audit(keys, queues)) + (yield from restore(keys, queues))
    with suppress(BrokerRefused):  # it is full, or the key is not ours: that is no reason to have audited in vain
        now: float = yield looking.server_time()
        before = Audit.read((yield auditing.last_audit(keys)))
        last = (now, dict(mended)) if mended else (before.mended_at, before.mended_then)
        yield auditing.note_audit(keys, Audit(now, (yield Now()) - began, by, dict(mended), *last).stored())
    return mended


class Upkeep(threading.Thread):
    """Does the upkeep once a minute, until it is told to end."""

    def __init__(self, partitions: Topology, connection: Connection) -> None:
        """Prepare; the connection is the thread's own, made before it begins for what ``Heartbeat`` says."""
        super().__init__(name="taskq-upkeep", daemon=True)
        self._partitions = partitions
        self._connection = connection
        self._by = whoami()  # here, for it imports: what a thread imports a fork may find half imported
        self._end = threading.Event()
        self._said: set[str] = set()

    def run(self) -> None:
        """Work until `end`."""
        while True:
            try:
                self._turn()
                self._sleep(_EVERY)
            except _Ended:
                break
            except (NotSent, Unanswered, Passing):  # others see that and say so
                self._end.wait(1.0)
        self._connection.close()

    def _turn(self) -> None:
        """Do all of it once; bad data in one partition is in no other's way, and does not end the thread."""
        said = set()
        for steps in (carry_all(self._partitions), *(upkeep(keys, self._by) for keys in self._partitions.all)):
            try:
                drive(steps, self._connection, self._sleep)
            except (_Ended, NotSent, Unanswered, Passing):
                raise
            except Exception as error:
                if str(error) not in self._said:
                    log.error("the upkeep cannot be done: %s", error, exc_info=not isinstance(error, BrokerRefused))
                said.add(str(error))
        self._said = said

    def _sleep(self, seconds: float) -> None:
        if self._end.wait(seconds):
            raise _Ended

    def end(self) -> None:
        """Let it end soon."""
        self._end.set()


class _Ended(Exception):
    """The thread is to end."""
