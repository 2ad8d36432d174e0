"""Whether a delivery runs again, as its task's policy says: after its end, or when the task asks in the midst of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from taskq.config import LONGEST
from taskq.errors import ConfigError, MaxRetriesExceeded, TaskqError
from taskq.runs.delivery import Delivery
from taskq.spelling import count
from taskq.tasks.retry import Attempt, Policy, RunAgain


class Changes(NamedTuple):
    """What another run has that this one had not; None for what stays.

    Attributes:
        queue: The queue it waits in, which its task's partition has.
        body: Its arguments, written.
        expires: When it expires, in ms since the epoch by the server's clock.
    """

    queue: str | None = None
    body: bytes | None = None
    expires: float | None = None


_NO_CHANGES = Changes()


class Retry(TaskqError):
    """Raised by ``self.retry()``: the call is to run again. Let it pass through your ``except`` clauses.

    Attributes:
        error: Why, or None.
        delay: In how many seconds; None, before it is granted: as the policy says.
        max_retries: How many retries its request allows; None: as many as the policy.
        granted: Whether the policy has granted it, which it is asked else when the run has ended.
    """

    def __init__(
        self,
        error: BaseException | None = None,
        delay: float | None = None,
        max_retries: int | None = None,
        changes: Changes = _NO_CHANGES,
    ) -> None:
        """Ask for another run ``delay`` seconds from now."""
        super().__init__("the task asked to be retried")
        self.error = error
        self.delay = delay
        self.max_retries = max_retries
        self.changes = changes
        self.granted = False


class Postponed(TaskqError):
    """Raised by ``self.postpone()``: the call runs again later, and this run is no attempt. Let it pass."""

    def __init__(self, seconds: float, why: str = "") -> None:
        """Ask for it; raises `ConfigError` for what is no time or no text."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < LONGEST:
            raise ConfigError(f"self.postpone takes a number of seconds from 0, below {LONGEST:g}, not {seconds!r}")
        if not isinstance(why, str):
            raise ConfigError(f"self.postpone(why=...) takes a text, not {why!r:.80}")
        super().__init__(f"the task asked to be run again in {seconds:g} s{': ' if why else ''}{why}")
        self.seconds = seconds
        self.why = why


def granted(retry: Retry, decision: RunAgain) -> Retry:
    """Return the request, granted."""
    retry.delay, retry.granted = decision.delay, True
    return retry


def policy_of(delivery: Delivery) -> Policy:
    """Return the retry policy of a call: its task's, with the options of the call."""
    policy, options = delivery.task.policy, delivery.envelope.headers.get("retry")
    return policy.with_call_options(options) if isinstance(options, dict) and options else policy


def attempt_of(delivery: Delivery, error: BaseException | None, value: Any) -> Attempt:
    """Return what the policy is asked about."""
    headers = delivery.envelope.headers
    first = headers.get("first", delivery.taken.now)
    return Attempt(
        number=delivery.retries + 1,
        elapsed=max(0.0, (delivery.server_now() - first) / 1000),
        idle_for=float(headers.get("idle", 0.0)),
        slept=float(headers.get("slept", 0.0)),
        error=error,
        value=value,
        function=delivery.task.function,
        args=tuple(delivery.args),
        kwargs=delivery.kwargs,
    )


def ask(
    delivery: Delivery,
    error: BaseException | None,
    delay: float | None,
    max_retries: int | None,
    changes: Changes = _NO_CHANGES,
) -> Retry:
    """Ask the policy for another run, from inside this one.

    Returns:
        What it has granted.

    Raises:
        MaxRetriesExceeded: No retries are left, and there is no ``error``.
        BaseException: ``error``, if there is one; or what the policy itself has raised. The call then fails with it.
    """
    _check(error, delay, max_retries)
    why = sys.exception() if error is None else error
    retry = Retry(why, delay, max_retries, changes)
    decision = policy_of(delivery).asked(attempt_of(delivery, why or retry, None), delay, max_retries)
    if isinstance(decision, RunAgain):
        return granted(retry, decision)
    final = decision.error
    if final is None or final is retry or (error is None and final is why):
        times = count(delivery.retries, "time")
        final = MaxRetriesExceeded(f"{delivery.task.name} has been retried {times}, and may not be again")
    delivery.final = final
    raise final


def changes_for(
    delivery: Delivery,
    *,
    args: Iterable[Any] | None,
    kwargs: Mapping[str, Any] | None,
    queue: str | None,
    expires: float | datetime | None,
) -> Changes:
    """Check and write what a task wants to be otherwise in its next run.

    Raises:
        ConfigError: It cannot be so; the text says why.
        TypeError: The arguments do not fit the task.
        SerializationError: An argument cannot be written.
    """
    task, body = delivery.task, None
    if queue is not None:
        task.check_move(queue)
    if args is not None or kwargs is not None:
        if task.flow.depends_on_call:
            raise ConfigError(
                f"self.retry(args=...) cannot change the arguments of {task.name}: its priority, limits or unique work "
                "were worked out from the first ones. Send a new call instead"
            )
        own = delivery.args[1:] if task.bind else delivery.args
        args, kwargs = tuple(own if args is None else args), dict(delivery.kwargs if kwargs is None else kwargs)
        task.check(*args, **kwargs)
        body = task.pack_call(args, kwargs)
    return Changes(queue, body, None if expires is None else _end_of("expires", expires, delivery.server_now()))


def seconds_until(moment: datetime, delivery: Delivery) -> float:
    """Return how many seconds are left until ``eta``."""
    return max(0.0, (_end_of("eta", moment, 0.0) - delivery.server_now()) / 1000)


def _end_of(name: str, moment: Any, now: float) -> float:
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ConfigError(
                f"self.retry({name}={moment!r}) has no time zone, so it names another moment on each machine"
            )
        return moment.timestamp() * 1000
    if name == "expires" and isinstance(moment, (int, float)) and 0 <= moment < LONGEST:
        return now + moment * 1000
    raise ConfigError(f"self.retry({name}=...) takes a datetime{' or seconds' * (name == 'expires')}, not {moment!r}")


def _check(error: Any, delay: Any, most: Any) -> None:
    """Refuse what ``self.retry()`` cannot mean."""
    if error is not None and not isinstance(error, BaseException):
        raise ConfigError(f"self.retry(exc=...) takes an exception, such as ValueError(...), not {error!r}")
    if delay is not None and not (isinstance(delay, (int, float)) and delay < LONGEST):
        raise ConfigError(f"self.retry(countdown=...) takes a number of seconds below {LONGEST:g}, not {delay!r}")
    if most is not None and type(most) is not int:
        raise ConfigError(f"self.retry(max_retries=...) takes a whole number or None, not {most!r}")
