"""What a running task may know of its call, and ask: `Request`, `Context`, `checkpoint`, `current_request`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, overload

from taskq import celery_names
from taskq.celery_names import no_attribute
from taskq.errors import ConfigError, TaskRevoked
from taskq.message import codec
from taskq.message.envelope import Envelope
from taskq.message.ids import id_to_text, new_id
from taskq.runs.asking import Postponed, Retry, ask, changes_for, seconds_until
from taskq.runs.delivery import Delivery, Route, Taken, current
from taskq.tasks.definition import Definition


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
        retries: How many times it was retried: 0 in the first run.
        crashes: How many times its process died under it, as far as that was counted.
        queue: The queue it came from.
        headers: What the caller gave as ``headers``.
        eta: The earliest time of its first run, if the caller gave one.
        worker: Name of the worker; empty if the task was called as a function.
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


def request_of(delivery: Delivery) -> Request:
    """Return the view of a call for its task."""
    headers = delivery.envelope.headers
    eta = headers.get("eta")
    return Request(
        id=id_to_text(delivery.id),
        task=delivery.task.name,
        args=tuple(delivery.args[1:] if delivery.task.bind else delivery.args),
        kwargs=delivery.kwargs,
        retries=delivery.retries,
        crashes=delivery.taken.crashes,
        queue=delivery.envelope.queue,
        headers=codec.unpack(headers["user"]) if "user" in headers else {},
        eta=datetime.fromtimestamp(eta / 1000, timezone.utc) if eta else None,
        worker=delivery.route.worker,
    )


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
        return request_of(self._delivery)

    @property
    def task(self) -> Definition:
        """The task itself."""
        return self._delivery.task

    @property
    def name(self) -> str:
        """The task's name."""
        return self._delivery.task.name

    @overload
    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        *,
        eta: datetime | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        expires: float | datetime | None = None,
        throw: Literal[True] = True,
    ) -> NoReturn: ...
    @overload
    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        *,
        eta: datetime | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        expires: float | datetime | None = None,
        throw: Literal[False],
    ) -> Retry: ...

    def retry(
        self,
        exc: BaseException | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        *,
        eta: datetime | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        expires: float | datetime | None = None,
        throw: bool = True,
    ) -> Retry:
        """Ask to run again later. The policy answers at once: this raises, so nothing after it is executed.

        Args:
            exc: Why; what is raised when no retries are left. The error that is being handled is the reason else.
            countdown: Seconds until then; the policy's wait or ``default_retry_delay`` if None.
            max_retries: Limit for this call instead of the task's.
            eta: A moment instead of ``countdown``, with a time zone.
            args: Other positional arguments for the next runs.
            kwargs: Other keyword arguments for the next runs.
            queue: Another queue for the next runs, in the same partition.
            expires: Seconds from now, or a moment, after which it is discarded instead of run.
            throw: False to go on with this run; the call runs again when it has ended, however it ends.

        Returns:
            What was granted, with ``throw=False``.

        Raises:
            Retry: It runs again. Also where the task was called as a function, which nobody repeats.
            MaxRetriesExceeded: No retries are left, and there is no ``exc``: the task fails with it, unless it catches
                it and ends otherwise.
            BaseException: ``exc``, likewise.
            ConfigError: An argument that cannot work.
        """
        if self._delivery.direct:
            raise exc or Retry(delay=countdown, max_retries=max_retries)
        if countdown is not None and eta is not None:
            raise ConfigError("self.retry takes either countdown= or eta=, not both")
        changes = changes_for(self._delivery, args=args, kwargs=kwargs, queue=queue, expires=expires)
        delay = countdown if eta is None else seconds_until(eta, self._delivery)
        retry = ask(self._delivery, exc, delay, max_retries, changes)
        if throw:
            raise retry
        self._delivery.asked = retry
        return retry

    def postpone(self, seconds: float, why: str = "") -> NoReturn:
        """Ask to run again later since it is too early, such as before a file has come: this run is no attempt.

        It raises, so nothing after it is executed. No retry is used up, and no limit of retries ends it: a task that
        postpones itself for ever waits for ever, unless its call ``expires``.

        Args:
            seconds: How many seconds from now.
            why: What it waits for, for ``taskq why``.

        Raises:
            Postponed: Always. Also where the task was called as a function, which nobody repeats.
            ConfigError: No number of seconds from 0.
        """
        raise Postponed(seconds, why)


def context_of_function(task: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Context:
    """Return the ``self`` of a bound task that is called as a function."""
    raw_id, now = new_id(), time.time() * 1000
    delivery = Delivery(raw_id, b"", Taken(now, time.monotonic()))
    delivery._envelope = Envelope(raw_id, task.name, task.queue, now, None, {}, b"", b"")
    delivery.route = Route(task, task.queue, "", task.function)
    delivery.args, delivery.kwargs = (None, *args), kwargs
    return Context(delivery)


def current_request() -> Request | None:
    """Return the request of the task that runs in this context; None outside of tasks."""
    delivery = current.get()
    return None if delivery is None else request_of(delivery)
