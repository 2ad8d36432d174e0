"""A message of a task that is not registered here; most likely its producer is newer."""

from __future__ import annotations

import logging

from taskq.errors import DecodeError
from taskq.message.ids import id_to_text
from taskq.message.outcome import Passed
from taskq.runs.delivery import Delivery
from taskq.runs.logs import tell


def wait_for_one_that_knows(delivery: Delivery, seconds: float) -> Passed:
    """Hand it on to workers that know the task, for so many seconds since it was first met.

    Raises:
        DecodeError: They are over.
    """
    envelope, now = delivery.envelope, delivery.taken.now
    since = envelope.headers.get("unknown")
    if not (isinstance(since, (int, float)) and since <= now):  # the first time; or a moment no taskq has written
        since = now
    waited = (now - since) / 1000
    if waited >= seconds:
        raise DecodeError(f"no worker has known the task {envelope.task!r} for {waited:.0f} s")
    text = "message %s is of task %r, which this worker does not know"
    tell(logging.WARNING, delivery, text, id_to_text(delivery.id), envelope.task)
    again = envelope.headers.get("unknown") == since
    value = b"" if again else envelope.with_headers({**envelope.headers, "unknown": since})
    return Passed(delivery.id, value, max(0.1, seconds - waited), again)
