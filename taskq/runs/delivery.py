"""A message in the hands of a worker: from its bytes to the call they stand for, and what its head leads to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from taskq.message.envelope import Envelope, decode
from taskq.tasks.definition import Definition


class Taken(NamedTuple):
    """What the messages of one fetch have in common.

    Attributes:
        now: Server time in ms when they were taken.
        received: This process's monotonic time then, in seconds.
        crashes: Counted deaths so far (of a suspect, which is taken alone).
    """

    now: float
    received: float
    crashes: int = 0


class End(NamedTuple):
    """How the run of a message has ended, for hooks.

    Attributes:
        events: The names of the hooks.
        subject: The value that the task returned, or the error.
    """

    events: tuple[str, ...]
    subject: Any


class Delivery:
    """A message in the hands of a worker, from its bytes to the call they stand for.

    Attributes:
        id: The id in its stored form.
        value: head ‖ envelope.
        taken: When, and with what history.
        route: The task and queue its head names, once `Executor.prepare` has read it.
        args: Positional arguments to call the function with.
        kwargs: Keyword arguments.
        index: Its index among the messages taken with it.
        end: What its hooks are called with; set only if there are any.
        asked: The `Retry` that the task was granted without raising it; set only then.
        final: The error after which its policy lets it run no more, since it has asked; set only then.
    """

    __slots__ = ("_envelope", "args", "asked", "end", "final", "id", "index", "kwargs", "route", "taken", "value")
    end: End
    asked: Any
    final: BaseException

    def __init__(self, raw_id: bytes, value: bytes, taken: Taken, index: int = 0) -> None:
        """Hold a message that was just taken."""
        self.id = raw_id
        self.value = value
        self.taken = taken
        self.index = index
        self.route: Route = NOWHERE
        self.args: Sequence[Any] = ()
        self.kwargs: dict[str, Any] = {}
        self._envelope: Envelope | None = None

    @property
    def envelope(self) -> Envelope:
        """The message, read; raises `DecodeError`."""
        if self._envelope is None:
            self._envelope = decode(self.value)
        return self._envelope

    @property
    def task(self) -> Definition:
        """The task to run."""
        return self.route.task

    @property
    def retries(self) -> int:
        """How many times it was retried before."""
        retries = self.envelope.headers.get("retries", 0)
        return retries if isinstance(retries, int) else 0

    @property
    def direct(self) -> bool:
        """Whether there is no message: the task was called as a function."""
        return not self.value

    @property
    def ignored(self) -> bool:
        """Whether the result is dropped: as the call says, else as the task says."""
        return bool(self.envelope.headers.get("ignore", self.task.ignore_result))

    def server_now(self) -> float:
        """Server time in ms, as far as this process can tell."""
        return self.taken.now + (time.monotonic() - self.taken.received) * 1000


#: The route of a message whose head has not been read, or cannot be.
NOWHERE: Any = None


class Route:
    """What the head of a message leads to, worked out once for all messages that share it."""

    __slots__ = (
        "bare", "bind", "body_at", "ignores", "invoke", "judged", "load", "pack", "plain", "queue", "quiet",
        "task", "timed", "watched", "worker",
    )  # fmt: skip

    def __init__(
        self, task: Definition, queue: str, worker: str, invoke: Callable[..., Any], told: bool = False
    ) -> None:
        """Find what holds for every message of ``task`` on ``queue`` in ``worker``.

        ``invoke`` is called for each: the function, with what surrounds it. ``told`` says that a hook gets its value.
        """
        self.task = task
        self.queue = queue
        self.worker = worker
        self.plain = task.plain_headers
        self.body_at = 16 + len(self.plain)  # counted from the id
        self.invoke = invoke  # asking the task each time costs more: it has a __getattr__
        self.load, self.pack = task.load, task.pack_result
        self.bind, self.ignores = task.bind, task.ignore_result
        self.judged = task.policy.looks_at_values or told  # whether anything looks at values
        self.quiet = task.ignore_result and not self.judged
        self.timed = bool(task.soft_time_limit or task.time_limit)
        self.watched = 16  # for how many more runs it is checked whether the task has left its surroundings changed
        self.bare = False  # whether there is nothing to do around the call


#: The call that runs in this context.
current: ContextVar[Delivery | None] = ContextVar("taskq_current", default=None)
