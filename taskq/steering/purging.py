"""Deleting what waits in a queue, in steps of some hundred messages."""

from __future__ import annotations

from taskq.broker.commands import auditing, looking, steering
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology

#: Messages deleted in one call; fields of a hash read in one.
_STEP, _CHUNK = 200, 1000


def purge_queue(partitions: Topology, queue: str) -> Protocol[int]:
    """Delete what waits in a queue: for its turn, as a suspect, or at a limit; answers how much it was.

    What is scheduled, what runs and dead letters stay. At most as many go as wait when it begins, so it comes to its
    end however much is sent meanwhile.
    """
    keys = partitions.of(queue)
    surveys = yield looking.survey(keys)
    there = surveys.get(queue) or looking.QueueSurvey({})
    left = there.pending + there.suspects + there.gated
    gone = yield from _clear(keys, queue, "", left)
    cursor = b"0"
    while gone < left:
        cursor, gates = yield auditing.scan_hash(keys, "gates", cursor, _CHUNK)
        for line in (line for owner, line in auditing.lines_of(gates) if owner == queue):
            gone += yield from _clear(keys, queue, line, left - gone)
        if cursor == b"0":
            break
    return gone


def _clear(keys: Keys, queue: str, line: str, most: int) -> Protocol[int]:
    gone = 0
    while gone < most and (some := (yield steering.clear(keys, queue, line, min(_STEP, most - gone)))):
        gone += some
    return gone
