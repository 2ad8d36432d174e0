"""What follows a run that its task's retry policy judges: another one, or nothing but the error."""

from __future__ import annotations

import logging
from typing import Any

from taskq.config import LONGEST
from taskq.errors import ConfigError, MaxRetriesExceeded, TaskqError
from taskq.message.ids import id_to_text
from taskq.message.outcome import Again
from taskq.runs.context import Retry
from taskq.runs.delivery import Delivery
from taskq.runs.errors_as_text import safe_text
from taskq.runs.logs import tell
from taskq.spelling import count
from taskq.tasks.retry import Attempt, GiveUp, Policy, RunAgain


def after_value(delivery: Delivery, value: Any) -> Again | BaseException | None:
    """Say what follows a run that returned ``value``: another, a failure with that error, or nothing: it is accepted.

    Raises what a policy of one's own raises.
    """
    decision = _policy(delivery).decide(_attempt(delivery, None, value))
    if isinstance(decision, RunAgain):
        return _again(delivery, decision.delay, None)
    if isinstance(decision, GiveUp):
        refused = TaskqError(f"the retry policy still refuses the value {value!r:.200}, and no retries are left")
        return decision.error or refused
    return None


def after_error(delivery: Delivery, error: BaseException) -> Again | BaseException:
    """Say what follows a run that raised ``error``: another, or a failure with the error that is answered.

    Raises what a policy of one's own raises.
    """
    frames = error.__traceback__  # a policy re-raises the error, which would add frames of its own
    decision = _policy(delivery).decide(_attempt(delivery, error, None))
    if isinstance(decision, RunAgain):
        return _again(delivery, decision.delay, error)
    error.with_traceback(frames)  # not by setting it: a frozen dataclass would refuse
    return decision.error if isinstance(decision, GiveUp) and decision.error is not None else error


def after_request(delivery: Delivery, asked: Retry) -> Again | BaseException:
    """Say what follows a run that asked for another by ``self.retry()``, as `after_error` does.

    Raises:
        ConfigError: It asks for what cannot be.
    """
    _check_request(asked)
    attempt = _attempt(delivery, asked if asked.error is None else asked.error, None)
    decision = _policy(delivery).asked(attempt, asked.delay, asked.max_retries)
    if isinstance(decision, RunAgain):
        return _again(delivery, decision.delay, asked.error, asked.max_retries)
    if decision.error is not None and decision.error is not asked:
        return decision.error
    times = count(delivery.retries, "time")
    return MaxRetriesExceeded(f"{delivery.task.name} has been retried {times}, and may not be again")


def _policy(delivery: Delivery) -> Policy:
    """Return the retry policy of a call: its task's, with the options of the call."""
    policy, options = delivery.task.policy, delivery.envelope.headers.get("retry")
    return policy.with_call_options(options) if isinstance(options, dict) and options else policy


def _attempt(delivery: Delivery, error: BaseException | None, value: Any) -> Attempt:
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


def _again(delivery: Delivery, delay: float, error: BaseException | None, most: int | None = None) -> Again:
    """Write the message as it is to run again, ``delay`` seconds from now."""
    headers = delivery.envelope.headers
    again = {
        **headers,
        "retries": delivery.retries + 1,
        "of": _policy(delivery).options.most_retries if most is None else most,
        "first": headers.get("first", delivery.taken.now),
        "idle": float(headers.get("idle", 0.0)) + delay,
        "slept": delay,
        "error": "" if error is None else f"{type(error).__name__}: {safe_text(error)}"[:500],
    }
    why = f": {again['error']}" if again["error"] else ""
    tell(
        logging.WARNING, delivery, "task %s[%s] runs again in %.3g s (retry %d)%s",
        delivery.task.name, id_to_text(delivery.id), delay, delivery.retries + 1, why,
        retries=delivery.retries + 1, delay=delay,
    )  # fmt: skip
    return Again(delivery.id, delivery.envelope.with_headers(again), delay, "retried")


def _check_request(asked: Retry) -> None:
    """Refuse what ``self.retry()`` cannot mean."""
    error, delay, most = asked.error, asked.delay, asked.max_retries
    if error is not None and not isinstance(error, BaseException):
        raise ConfigError(f"self.retry(exc=...) takes an exception, such as ValueError(...), not {error!r}")
    if delay is not None and not (isinstance(delay, (int, float)) and delay < LONGEST):
        raise ConfigError(f"self.retry(countdown=...) takes a number of seconds below {LONGEST:g}, not {delay!r}")
    if most is not None and type(most) is not int:
        raise ConfigError(f"self.retry(max_retries=...) takes a whole number or None, not {most!r}")
