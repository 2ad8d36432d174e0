"""A message in the hands of a worker, and what the task that it calls may know and ask.

`Delivery` is the message itself; user code sees it by `Request`, `Context`, `checkpoint` and `current_request`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from taskq import celery_names
from taskq.celery_names import no_attribute
from taskq.errors import TaskqError, TaskRevoked
from taskq.message import codec
from taskq.message.envelope import Envelope, decode
from taskq.message.ids import id_to_text
from taskq.tasks.definition import Definition


class Retry(TaskqError):
    """Raised by ``self.retry()``: the call is to run again. Let it pass through your ``except`` clauses."""

    def __init__(self, error: BaseException | None, delay: float | None, max_retries: int | None) -> None:
        """Ask for another run ``delay`` seconds from now (None: as the policy says)."""
        super().__init__("the task asked to be retried")
        self.error = error
        self.delay = delay
        self.max_retries = max_retries


class Revoked(TaskRevoked):
    """What is raised inside a task that is revoked while it runs."""

    def __init__(self) -> None:
        """Make the error; in a thread the interpreter does it."""
        super().__init__("the call was revoked while it ran")


class ShuttingDown(BaseException):
    """Raised by `checkpoint` in a worker that is stopping: the message goes back to its queue, uncounted.

    Not an ``Exception``, so that a task's ``except Exception`` lets it pass.
    """


class Stopping:
    """Whether this process has been told to stop. One a process, set by the worker."""

    now = False


def checkpoint() -> None:
    """Give a long task a point at which it can be interrupted: does nothing, unless the worker is stopping.

    Raises:
        ShuttingDown: The worker is stopping. The message runs again elsewhere, from its beginning.
    """
    if Stopping.now and current.get() is not None:
        raise ShuttingDown


class Request(NamedTuple):
    """What a running task may know of its call.

    Attributes:
        id: The id of the call, the same over all its runs.
        task: Name of the task.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        retries: How often it was retried: 0 in the first run.
        crashes: How often its process died under it, as far as that was counted.
        queue: The queue it came from.
        headers: What the caller gave as ``headers``.
        eta: When it was first to run, if the caller said so.
        worker: Name of the worker.
    """

    id: str
    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    retries: int
    crashes: int
    queue: str
    headers: dict[str, Any]
    eta: datetime | None
    worker: str

    @property
    def shutting_down(self) -> bool:
        """Whether the worker has been told to stop; the task has then what is left of the grace to end."""
        return Stopping.now

    @property
    def idempotency_key(self) -> str:
        """What to give to a service that recognises repeats: the same in every run of this call, and of no other."""
        return self.id


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
    """How the run of a message has ended, as hooks are told.

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
        place: Its place among the messages taken with it.
        end: What hooks are to be told of its end; there only if any are.
    """

    __slots__ = ("_envelope", "args", "end", "id", "kwargs", "place", "route", "taken", "value")
    end: End

    def __init__(self, raw_id: bytes, value: bytes, taken: Taken, place: int = 0) -> None:
        """Hold a message that was just taken."""
        self.id = raw_id
        self.value = value
        self.taken = taken
        self.place = place
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
        """How often it was retried before."""
        retries = self.envelope.headers.get("retries", 0)
        return retries if isinstance(retries, int) else 0

    @property
    def ignored(self) -> bool:
        """Whether the result is dropped: as the call says, else as the task says."""
        return bool(self.envelope.headers.get("ignore", self.task.ignore_result))

    @property
    def request(self) -> Request:
        """The view of this call for the task."""
        headers = self.envelope.headers
        eta = headers.get("eta")
        return Request(
            id=id_to_text(self.id),
            task=self.task.name,
            args=tuple(self.args[1:] if self.task.bind else self.args),
            kwargs=self.kwargs,
            retries=self.retries,
            crashes=self.taken.crashes,
            queue=self.envelope.queue,
            headers=codec.unpack(headers["user"]) if "user" in headers else {},
            eta=datetime.fromtimestamp(eta / 1000, timezone.utc) if eta else None,
            worker=self.route.worker,
        )

    def server_now(self) -> float:
        """Server time in ms, as far as this process can tell."""
        return self.taken.now + (time.monotonic() - self.taken.received) * 1000


#: The route of a message whose head has not been read, or cannot be.
NOWHERE: Any = None


class Route:
    """What the head of a message leads to, worked out once for all messages that share it."""

    __slots__ = (
        "bare", "bind", "body_at", "ignores", "invoke", "judged", "limited", "load", "pack", "plain", "queue", "quiet",
        "task", "watched", "worker",
    )  # fmt: skip

    def __init__(
        self, task: Definition, queue: str, worker: str, invoke: Callable[..., Any], told: bool = False
    ) -> None:
        """Find what can be known of every message of ``task`` on ``queue`` in ``worker``.

        ``invoke`` is called for each: the function, with what surrounds it. ``told`` says that a hook gets its value.
        """
        self.task = task
        self.queue = queue
        self.worker = worker
        self.plain = task.plain_headers
        self.body_at = 16 + len(self.plain)  # counted from the id
        self.invoke = invoke  # to ask the task each time costs more: it answers for names that it has not
        self.load, self.pack = task.load, task.pack_result
        self.bind, self.ignores = task.bind, task.ignore_result
        self.judged = task.policy.looks_at_values or told  # whether anything looks at values
        self.quiet = task.ignore_result and not self.judged
        self.limited = bool(task.soft_time_limit or task.time_limit)
        self.watched = 16  # runs after which is looked whether it has left its surroundings changed
        self.bare = False  # whether there is nothing to do around the call


#: The call that runs in this context.
current: ContextVar[Delivery | None] = ContextVar("taskq_current", default=None)


class Context:
    """The ``self`` of a task with ``bind=True``: a view of the task and of this call."""

    def __init__(self, delivery: Delivery) -> None:
        """Look at ``delivery``."""
        self._delivery = delivery

    if not TYPE_CHECKING:  # for which there is no such attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of Celery's names."""
            raise no_attribute(self, name, celery_names.CONTEXT)

    @cached_property
    def request(self) -> Request:
        """What may be known of this call."""
        return self._delivery.request

    @property
    def task(self) -> Definition:
        """The task itself."""
        return self._delivery.task

    @property
    def name(self) -> str:
        """The task's name."""
        return self._delivery.task.name

    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
    ) -> NoReturn:
        """Ask to run again later; raises, so nothing after it is executed.

        Args:
            exc: Why; the task fails with it when no retries are left.
            countdown: Seconds until then; the policy's wait or ``default_retry_delay`` if None.
            max_retries: Limit for this call instead of the task's.

        Raises:
            Retry: Always.
        """
        raise Retry(exc, countdown, max_retries)


def current_request() -> Request | None:
    """Return the request of the task that runs in this context; None outside of tasks."""
    delivery = current.get()
    return None if delivery is None else delivery.request
