"""What waits in a queue, page by page, in the order in which it would be taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskq.broker.commands import looking
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import DecodeError
from taskq.message.head import decode_head

#: Messages read in one call, each of which may have a megabyte.
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Waits:
    """A message that waits.

    Attributes:
        number: Where it stands, from 1.
        place: suspects (which run alone, beside the others), ranked (by a priority, or by turns of keys), or queue.
        id: Its id.
        task: The name of its task; ``?`` if it cannot be read, empty if it has gone meanwhile.
        accepted: When the server accepted it, in seconds since the epoch; None if that cannot be read.
    """

    number: int
    place: str
    id: bytes
    task: str
    accepted: float | None


def waiting(partitions: Topology, queue: str, skip: int, most: int) -> Protocol[tuple[int, Sequence[Waits]]]:
    """Read up to ``most`` of what waits in a queue, but for the first ``skip``; and how many wait in all."""
    found: list[Waits] = []
    while True:
        at = skip + len(found)
        total, some = yield looking.peek(partitions.of(queue), queue, at, min(_PAGE, most - len(found)))
        found += [_waits(number, one) for number, one in enumerate(some, at + 1)]
        if not some or len(found) >= most:
            return total, found


def _waits(number: int, one: looking.Waiting) -> Waits:
    try:
        task, _, accepted = decode_head(one.head)[:3]
        return Waits(number, one.place, one.id, task, accepted / 1000)
    except DecodeError:
        return Waits(number, one.place, one.id, "?" if one.head else "", None)
