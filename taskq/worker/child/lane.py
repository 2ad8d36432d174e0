"""What the lanes of a child have in common."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskq.broker.commands.holding import Batch
from taskq.broker.protocol import Protocol
from taskq.message.outcome import Outcome
from taskq.runs.execution import Executor
from taskq.worker.child.quota import Quota
from taskq.worker.child.surroundings import Surroundings
from taskq.worker.seats import Seat


class Stopped(Exception):
    """The lane is to stop, and what it was trying to do need not be done."""


class Dialogue(typing.Protocol):
    """A lane's dialogue with the server: the `Session` with an app's only partition, or `Sessions` with several.

    Attributes:
        incarnation: A random id; empty before `open` and after `close`.
        doubtful: Whether the connection broke since the last exchange; see `Session`.
    """

    incarnation: str
    doubtful: bool

    @property
    def bells(self) -> Sequence[bytes]:
        """The bells that ring when there is something to take."""

    def rang(self, reply: Any) -> None:
        """Take note of what came of a wait for the bells: None in vain."""

    def open(self) -> Protocol[None]:
        """Begin a new incarnation."""

    def exchange(
        self, outcomes: Sequence[Outcome], *, want: int = 0, caps: str = "", wait: float = 0.0
    ) -> Protocol[Batch]:
        """Settle ``outcomes`` and take up to ``want`` messages; raises `Lost`."""

    def close(self) -> Protocol[None]:
        """End the incarnation."""


class Means(NamedTuple):
    """What a lane works with.

    Attributes:
        session: Its dialogue with the server at ``url``.
        executor: Knows the tasks that it runs.
        seat: The memory in which it says what it runs.
        quota: How many messages the child still runs.
        surroundings: What all lanes of the child put back when tasks have changed it.
    """

    session: Dialogue
    executor: Executor
    seat: Seat
    url: str
    quota: Quota
    surroundings: Surroundings
