"""What follows a run that its task's retry policy judges: another one, or nothing but the error."""

from __future__ import annotations

import logging
from typing import Any

from taskq.errors import TaskqError
from taskq.message.envelope import encode_envelope
from taskq.message.ids import id_to_text
from taskq.message.outcome import Again
from taskq.message.stored import with_expiry, with_queue
from taskq.runs.asking import Postponed, Retry, ask, attempt_of, granted, policy_of
from taskq.runs.delivery import Delivery
from taskq.runs.errors_as_text import safe_text
from taskq.runs.logs import tell
from taskq.spelling import count
from taskq.tasks.retry import GiveUp, RunAgain


def after_value(delivery: Delivery, value: Any) -> Again | BaseException | None:
    """Say what follows a run that returned ``value``: another, a failure with that error, or nothing: it is accepted.

    Raises what a policy of one's own raises.
    """
    decision = policy_of(delivery).decide(attempt_of(delivery, None, value))
    if isinstance(decision, RunAgain):
        return _again(delivery, granted(Retry(), decision))
    if isinstance(decision, GiveUp):
        refused = TaskqError(f"the retry policy still refuses the value {value!r:.200}, and no retries are left")
        return decision.error or refused
    return None


def after_error(delivery: Delivery, error: BaseException) -> Again | BaseException:
    """Say what follows a run that raised ``error``: another, or a failure with the error that is answered.

    Raises what a policy of one's own raises.
    """
    final: BaseException | None = getattr(delivery, "final", None)
    if error is final:  # the policy has been asked by ``self.retry()``
        return error
    frames = error.__traceback__  # a policy re-raises the error, which would add frames of its own
    decision = policy_of(delivery).decide(attempt_of(delivery, error, None))
    if isinstance(decision, RunAgain):
        return _again(delivery, granted(Retry(error), decision))
    error.with_traceback(frames)  # not by setting it: a frozen dataclass would refuse
    return decision.error if isinstance(decision, GiveUp) and decision.error is not None else error


def after_request(delivery: Delivery, asked: Retry) -> Again:
    """Say what follows a run that asked for another; raises as `ask` if it has made and raised the `Retry` itself."""
    if not asked.granted:
        asked = ask(delivery, asked.error, asked.delay, asked.max_retries)
    return _again(delivery, asked)


def postponed(delivery: Delivery, asked: Postponed) -> Again:
    """Say what follows a run that was too early."""
    before = delivery.envelope.headers.get("postponed")
    times = (before if isinstance(before, int) else 0) + 1
    headers = {**delivery.envelope.headers, "postponed": times, "early": asked.why[:500]}
    tell(
        logging.INFO, delivery, "task %s[%s] postpones itself by %.3g s (%s)%s",
        delivery.task.name, id_to_text(delivery.id), asked.seconds, count(times, "time"),
        f": {asked.why}" if asked.why else "", delay=asked.seconds,
    )  # fmt: skip
    return Again(delivery.id, delivery.envelope.with_headers(headers), asked.seconds, "postponed")


def _again(delivery: Delivery, retry: Retry) -> Again:
    """Write the message as it is to run again."""
    envelope, error, delay = delivery.envelope, retry.error, retry.delay or 0.0
    queue, body, expires = retry.changes
    headers = envelope.headers
    again = {
        **{name: value for name, value in headers.items() if name not in ("postponed", "early")},
        "retries": delivery.retries + 1,
        "of": policy_of(delivery).options.most_retries if retry.max_retries is None else retry.max_retries,
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
    if body is not None:
        again["sig"] = delivery.task.fingerprint
    head = envelope.head if queue is None else with_queue(envelope.head, queue)
    head = head if expires is None else with_expiry(head, expires)
    value = head + encode_envelope(envelope.id, again, envelope.body if body is None else body)
    return Again(delivery.id, value, delay, "retried", "" if queue is None or queue == envelope.queue else queue)
