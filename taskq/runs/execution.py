"""Running one delivery: small total steps over one value, from stored bytes to an outcome.

``prepare`` reads the message and finds its task, `taskq.runs.invoke` calls that (plainly, in a thread, on a loop), then
``succeeded`` or ``failed`` says how the delivery ends. Every mishap becomes an `Outcome`; nothing here talks to the
server or sleeps.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from taskq.config import LONGEST, Settings
from taskq.errors import ConfigError, DecodeError, MaxRetriesExceeded, RateLimited, SerializationError, TaskqError
from taskq.message.codec import NO_ARGUMENTS
from taskq.message.envelope import Envelope, plain_body
from taskq.message.head import names_of, plain_start
from taskq.message.ids import id_to_text
from taskq.message.letters import DISCARDED, FAILURE, SUCCESS
from taskq.message.outcome import Again, Dead, Ended, Outcome, Passed, Returned, SlowDown, error_detail
from taskq.runs.context import Context, Retry, Revoked, ShuttingDown
from taskq.runs.delivery import Delivery, End, Route
from taskq.runs.errors_as_text import forget_frames, format_error, own_frames, safe_text, type_name
from taskq.runs.invoke import surround
from taskq.runs.logs import tell
from taskq.spelling import count
from taskq.tasks.definition import Definition
from taskq.tasks.hooks import Hooks
from taskq.tasks.retry import Attempt, GiveUp, Policy, RunAgain

#: What taskq itself adds to a message that was sent, at most: stamps, and the headers of a retry.
_ADDED_MAX = 4096


#: Seconds after which any lane looks again at a message that waits for the right lane: that may have ended.
_PASSED_PAUSE = 60.0


class Executor:
    """The steps, for the tasks of one app in one process."""

    def __init__(
        self,
        tasks: Mapping[str, Definition],
        settings: Settings,
        worker: str,
        only: Collection[str] | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        """Prepare to run ``tasks`` as ``worker``, with the app's ``hooks``.

        With ``only``, run those of one lane: others are handed on to theirs.
        """
        self.tasks = tasks
        self.hooks = hooks or Hooks()
        #: Whether any hook is told how runs end.
        self.told = self.hooks.told or any(task.hooks.told for task in tasks.values())
        self._only = tasks.keys() if only is None else frozenset(only)
        self.settings = settings
        self.worker = worker
        self._max_bytes = settings.max_message_bytes + _ADDED_MAX
        self._routes: dict[bytes, Route] = {}

    # -- before ------------------------------------------------------------------------------------------

    def prepare(self, delivery: Delivery) -> Outcome | None:
        """Read a message and find its task and arguments; an outcome if it cannot or must not run."""
        value = delivery.value
        try:
            # Most messages are plain calls of a task already seen: what stands before the id leads to a route, and what
            # stands between the id and the body is known.
            names, at = plain_start(value)
            route = self._routes[names]
            if value.startswith(delivery.id + route.plain, at):
                at += route.body_at
                if value[at] == 0xC4 and value[at + 1] == len(value) - at - 2:  # nearly always: below 256 bytes
                    body: bytes | None = value[at + 2 :]
                else:
                    body = plain_body(value, at) if len(value) <= self._max_bytes else None
                if body is not None:
                    delivery.route = route
                    return self._load(delivery, body)
        except (IndexError, KeyError):
            pass
        return self._prepare_any(delivery)

    def _prepare_any(self, delivery: Delivery) -> Outcome | None:
        """Do the same for a message of any kind."""
        outcome = self.find(delivery)
        return self._load(delivery, delivery.envelope.body) if outcome is None else outcome

    def find(self, delivery: Delivery) -> Outcome | None:
        """Find the task of a message, and leave its arguments unread: no code of a user runs."""
        try:
            if len(delivery.value) > self._max_bytes:
                limit = self.settings.max_message_bytes
                raise DecodeError(f"{len(delivery.value):,} bytes, more than this worker's max_message_bytes={limit}")
            envelope = delivery.envelope
        except DecodeError as error:
            return self._bury(delivery, "undecodable", error)
        if envelope.id != delivery.id and not envelope.headers.get("debounced"):  # such a call has another's place
            return self._bury(delivery, "undecodable", DecodeError("the envelope is of another id"))
        if envelope.expires is not None and delivery.taken.now >= envelope.expires:
            return Ended(delivery.id, "discarded", DISCARDED + b"expired")
        task = self.tasks.get(envelope.task)
        if task is None:
            return self._unknown(delivery, envelope)
        if task.name not in self._only:
            return Passed(delivery.id, b"", _PASSED_PAUSE, again=False)
        told = bool(self.hooks.of("success") or task.hooks.of("success"))
        delivery.route = Route(task, envelope.queue, self.worker, surround(task, self.hooks), told)
        if envelope.expires is None:
            self._routes[names_of(envelope.head, envelope.task, envelope.queue)] = delivery.route
        return None

    def _load(self, delivery: Delivery, body: bytes) -> Outcome | None:
        """Read the arguments."""
        route = delivery.route
        if body != NO_ARGUMENTS:
            try:
                delivery.args, delivery.kwargs = route.load(body)
            except DecodeError as error:
                return self._bury(delivery, "undecodable", error)
            except BaseException as error:  # SystemExit too: a message cannot end the worker
                return self._bury(delivery, "bad-arguments", error)
        if delivery._envelope is not None and delivery._envelope.headers.get("sig") != route.task.fingerprint:
            try:
                route.task.check(*delivery.args, **delivery.kwargs)
            except TypeError as error:
                return self._bury(delivery, "bad-arguments", error)
        if route.bind:
            delivery.args = [Context(delivery), *delivery.args]
        return None

    def _bury(self, delivery: Delivery, reason: str, error: BaseException) -> Dead:
        text = "message %s is a dead letter, %s: %s"
        tell(logging.ERROR, delivery, text, id_to_text(delivery.id), reason, error, outcome=reason)
        self._note(delivery, error, "dead")
        detail = error_detail(reason, safe_text(error), worker=self.worker)
        return Dead(delivery.id, reason, detail, FAILURE + detail)

    def _unknown(self, delivery: Delivery, envelope: Envelope) -> Outcome:
        """The task is not registered here; most likely the producer is newer. It waits for a worker that knows it."""
        since, now = envelope.headers.get("unknown"), delivery.taken.now
        if not (isinstance(since, (int, float)) and since <= now):  # the first time; or a moment no taskq has written
            since = now
        waited = (now - since) / 1000
        if waited >= self.settings.unknown_after:
            error = DecodeError(f"no worker has known the task {envelope.task!r} for {waited:.0f} s")
            return self._bury(delivery, "unknown-task", error)
        text = "message %s is of task %r, which this worker does not know"
        tell(logging.WARNING, delivery, text, id_to_text(delivery.id), envelope.task)
        pause = max(0.1, self.settings.unknown_after - waited)
        again = envelope.headers.get("unknown") == since
        value = b"" if again else envelope.with_headers({**envelope.headers, "unknown": since})
        return Passed(delivery.id, value, pause, again)

    # -- after -------------------------------------------------------------------------------------------

    def succeeded(self, delivery: Delivery, value: Any) -> Outcome:
        """Say how the delivery of a task that returned ``value`` ends."""
        if delivery.route.judged:
            refused = self._judge_value(delivery, value)
            if refused is not None:
                return refused
        if delivery.route.ignores if delivery._envelope is None else delivery.ignored:
            return delivery.id, b""
        try:
            result = SUCCESS + delivery.route.pack(value, "result")
            limit = self.settings.max_message_bytes
            if len(result) > limit:
                raise SerializationError(
                    f"the result has {len(result):,} bytes, more than max_message_bytes={limit}; "
                    "keep the data elsewhere and return its key, or declare the task with ignore_result=True"
                )
        except SerializationError as error:
            return self._give_up(delivery, error)
        return delivery.id, result

    def _judge_value(self, delivery: Delivery, value: Any) -> Outcome | None:
        """Show a value to everything that judges it; None if the policy accepts it."""
        self._note(delivery, value, "success")  # as long as nothing else becomes of it
        if not delivery.task.policy.looks_at_values:
            return None
        try:
            decision = self._decide(delivery, None, value)
            if isinstance(decision, RunAgain):
                return self._again(delivery, decision.delay, None)
            if isinstance(decision, GiveUp):
                return self._give_up(delivery, decision.error or _refused_value(value))
        except Exception as bug:  # a policy's own bug must not take the worker down
            return self._give_up(delivery, bug)
        return None

    def _note(self, delivery: Delivery, subject: Any, *events: str) -> None:
        """Note for hooks how a delivery ends."""
        if self.told:
            delivery.end = End(events, subject)

    def failed(self, delivery: Delivery, error: BaseException) -> Outcome:
        """Say how the delivery of a task that raised ``error`` ends."""
        frames = error.__traceback__  # a policy re-raises the error, which would add frames of its own
        try:
            if isinstance(error, ShuttingDown):
                return self.interrupted(delivery)
            if isinstance(error, Revoked):
                text = "task %s[%s] was revoked while it ran"
                tell(logging.WARNING, delivery, text, delivery.task.name, id_to_text(delivery.id))
                return Ended(delivery.id, "done", DISCARDED + b"revoked")
            if isinstance(error, RateLimited):
                return SlowDown(delivery.id, float(error.retry_after))
            if isinstance(error, Retry):
                return self._asked_for_retry(delivery, error)
            decision = self._decide(delivery, error, None)
            if isinstance(decision, RunAgain):
                return self._again(delivery, decision.delay, error)
            error.with_traceback(frames)  # not by setting it: a frozen dataclass would refuse
            final = decision.error if isinstance(decision, GiveUp) and decision.error is not None else error
            return self._give_up(delivery, final)
        except Exception as bug:  # a policy's own bug must not take the worker down
            BaseException.__setattr__(bug, "__context__", error)  # likewise
            return self._give_up(delivery, bug)

    def interrupted(self, delivery: Delivery) -> Outcome:
        """Say how a delivery ends that a stop has interrupted: its task has begun, but has not ended."""
        if delivery.task.at_most_once:
            error = TaskqError("interrupted by a stop of its worker; at_most_once forbids another run")
            return self._bury(delivery, "abandoned", error)
        return Returned(delivery.id)

    def _asked_for_retry(self, delivery: Delivery, asked: Retry) -> Outcome:
        _check_request(asked)
        attempt = self._attempt(delivery, asked if asked.error is None else asked.error, None)
        decision = _policy(delivery).asked(attempt, asked.delay, asked.max_retries)
        if isinstance(decision, RunAgain):
            return self._again(delivery, decision.delay, asked.error, asked.max_retries)
        if decision.error is None or decision.error is asked:
            name, times = delivery.task.name, delivery.retries
            return self._give_up(
                delivery, MaxRetriesExceeded(f"{name} has been retried {count(times, 'time')}, and may not be again")
            )
        return self._give_up(delivery, decision.error)

    def _decide(self, delivery: Delivery, error: BaseException | None, value: Any) -> RunAgain | GiveUp | None:
        return _policy(delivery).decide(self._attempt(delivery, error, value))

    def _attempt(self, delivery: Delivery, error: BaseException | None, value: Any) -> Attempt:
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

    def _again(self, delivery: Delivery, delay: float, error: BaseException | None, most: int | None = None) -> Again:
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
        self._note(delivery, error, "retry")
        return Again(delivery.id, delivery.envelope.with_headers(again), delay, "retried")

    def _give_up(self, delivery: Delivery, error: BaseException) -> Outcome:
        raw_id = delivery.id
        text = format_error(error)
        tell(
            logging.ERROR, delivery, "task %s[%s] failed: %s",
            delivery.task.name, id_to_text(raw_id), safe_text(error)[:500],
            error=(type(error), error, own_frames(error)), retries=delivery.retries,
        )  # fmt: skip
        detail = error_detail(type_name(error), safe_text(error), text, worker=self.worker, retries=delivery.retries)
        if not self.told:  # else the hooks want to see them first
            forget_frames(error)
        result = b"" if delivery.ignored else FAILURE + detail
        self._note(delivery, error, "failure")
        if delivery.task.dead_letter:
            self._note(delivery, error, "failure", "dead")
            return Dead(raw_id, "failed", detail, result)
        return Ended(raw_id, "failed", result)


def _policy(delivery: Delivery) -> Policy:
    """Return the retry policy of a call: its task's, with the options of the call."""
    policy, options = delivery.task.policy, delivery.envelope.headers.get("retry")
    return policy.with_call_options(options) if isinstance(options, dict) and options else policy


def _check_request(asked: Retry) -> None:
    """Refuse what ``self.retry()`` cannot mean."""
    error, delay, most = asked.error, asked.delay, asked.max_retries
    if error is not None and not isinstance(error, BaseException):
        raise ConfigError(f"self.retry(exc=...) takes an exception, such as ValueError(...), not {error!r}")
    if delay is not None and not (isinstance(delay, (int, float)) and delay < LONGEST):
        raise ConfigError(f"self.retry(countdown=...) takes a number of seconds below {LONGEST:g}, not {delay!r}")
    if most is not None and type(most) is not int:
        raise ConfigError(f"self.retry(max_retries=...) takes a whole number or None, not {most!r}")


def _refused_value(value: Any) -> BaseException:
    return TaskqError(f"the retry policy still refuses the value {value!r:.200}, and no retries are left")
