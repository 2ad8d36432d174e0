"""What the server knows of one message, as a state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from taskq.errors import DecodeError
from taskq.message.envelope import decode
from taskq.views.workers import WorkerInfo

if TYPE_CHECKING:
    from taskq.broker.commands.looking import Located


class Status(NamedTuple):
    """What the server knows of a call.

    Attributes:
        state: PENDING (waits in its queue, or for its time), STARTED (a worker holds it), RETRY (waits for its next
            try), SUCCESS, FAILURE, REVOKED (revoked, expired or discarded), or UNKNOWN: no message and no result of
            that id exists. It may have ended longer than ``result_ttl`` ago, been forgotten, or never been sent.
        worker: Name of the worker that holds it.
        since: When that worker took it, or when it became a dead letter; seconds since the epoch, server's clock.
        due: When it is due; seconds since the epoch.
        retries: How many times it has been retried.
        reason: Why it is a dead letter or was discarded.
    """

    state: str
    worker: str | None = None
    since: float | None = None
    due: float | None = None
    retries: int = 0
    reason: str | None = None


def status_of(found: Located) -> Status:
    """Return the state of a message that has not ended; of one that has, UNKNOWN: its outcome says how."""
    match found.place:
        case "dead":
            why = found.reason.partition(b"\n")[0].decode(errors="replace")
            return Status("FAILURE", since=found.time, retries=retries_of(found.value), reason=why)
        case "processing":
            name = WorkerInfo.read(found.worker).worker
            return Status("STARTED", worker=name, since=found.time, retries=retries_of(found.value))
        case "scheduled" | "pending":
            retries = retries_of(found.value)
            return Status("RETRY" if retries else "PENDING", due=found.time, retries=retries)
        case _:
            return Status("UNKNOWN")


def retries_of(value: bytes) -> int:
    """Return how many times a stored message has been retried; 0 for one that cannot be read."""
    try:
        retries = decode(value).headers.get("retries", 0)
    except DecodeError:
        return 0
    return retries if isinstance(retries, int) and math.isfinite(retries) else 0
