"""How a delivery can end, and what is stored about that.

A stored result is one letter and a payload: ``S`` and the value as the codec wrote it, ``F`` and what is known of the
exception (a msgpack map), ``D`` and the reason a script gave a message up, ``X`` and the reason it was discarded (of a
revoked one also, on a line of its own, why it was).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: The task returned: the id, and what to store (empty for nothing). A plain pair, for there are many.
Done = tuple[bytes, bytes]


@dataclass(slots=True)
class Ended:
    """Terminal without a dead letter; ``counter`` is ``failed``, ``discarded``, or ``done`` (revoked while it ran)."""

    id: bytes
    counter: str
    result: bytes


@dataclass(slots=True)
class Dead:
    """Given up and kept: ``reason`` is a word of the documented list, ``detail`` says more (see ``details``)."""

    id: bytes
    reason: str
    detail: bytes
    result: bytes


@dataclass(slots=True)
class Again:
    """To run again ``delay`` seconds from now, as ``value``; ``counter`` is ``retried``, ``postponed`` or ``deferred``.

    ``queue`` is the one it moves to, of the same partition, which its value names; empty if it stays where it was.
    """

    id: bytes
    value: bytes
    delay: float
    counter: str
    queue: str = ""


@dataclass(slots=True)
class Passed:
    """Not run here: to a lane, or a worker, that runs its task; any lane may look at it again in ``delay`` seconds.

    ``value`` is what to store instead, empty for nothing; ``again`` says that it has been passed on before.
    """

    id: bytes
    value: bytes
    delay: float
    again: bool


@dataclass(slots=True)
class SlowDown:
    """Told to slow down: the task's gate is shut for ``delay`` seconds. Back to the head of its queue, uncounted."""

    id: bytes
    delay: float


@dataclass(slots=True)
class Returned:
    """Not started, or interrupted: back to the head of its queue, uncounted."""

    id: bytes


Outcome = Done | Ended | Dead | Again | Passed | SlowDown | Returned


def ids_of(outcomes: Iterable[Outcome]) -> list[bytes]:
    """Return the ids of the messages that ended."""
    return [outcome[0] if isinstance(outcome, tuple) else outcome.id for outcome in outcomes]


def result_of(outcome: Outcome) -> bytes:
    """Return what is stored as the result, empty for nothing."""
    if isinstance(outcome, tuple):
        return outcome[1]
    return outcome.result if isinstance(outcome, (Ended, Dead)) else b""
