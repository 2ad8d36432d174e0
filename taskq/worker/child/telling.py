"""Calls hooks for ends that the parent has decided, in a fresh child, since the parent runs no user code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from taskq.errors import TimeLimitExceeded
from taskq.runs.delivery import Delivery, End, Taken, current
from taskq.runs.execution import Executor
from taskq.runs.hooks import due
from taskq.worker.twin import leave_if_twin


class Untold(NamedTuple):
    """A run that was killed at its ``time_limit``, and how its message was settled.

    Attributes:
        id: The id in its stored form.
        value: head ‖ envelope.
        taken: When it was found.
        events: The names of the hooks that are to be told.
        error: What they are told, as text.
    """

    id: bytes
    value: bytes
    taken: Taken
    events: tuple[str, ...]
    error: str


def tell(executor: Executor, untold: Iterable[Untold]) -> None:
    """Call the hooks for such ends."""
    for one in untold:
        delivery = Delivery(one.id, one.value, one.taken)
        if executor.prepare(delivery) is None:
            current.set(delivery)
            delivery.end = End(one.events, TimeLimitExceeded(one.error))
            for hook in due(executor, delivery):
                hook.call()
                leave_if_twin(0)
