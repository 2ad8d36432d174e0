"""Running one delivery: small total steps over one value, from stored bytes to an outcome.

``prepare`` reads the message and finds its task, `taskq.runs.invoke` calls that (plainly, in a thread, on a loop), then
``succeeded`` or ``failed`` says how the delivery ends. Every mishap becomes an `Outcome`; nothing here talks to the
server or sleeps.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from taskq.config import Settings
from taskq.errors import DecodeError, RateLimited, SerializationError, TaskqError
from taskq.message.codec import NO_ARGUMENTS
from taskq.message.details import error_detail
from taskq.message.envelope import plain_body
from taskq.message.head import names_of, plain_start
from taskq.message.ids import id_to_text
from taskq.message.letters import DISCARDED, FAILURE, SUCCESS
from taskq.message.outcome import Again, Dead, Ended, Outcome, Passed, Returned, SlowDown
from taskq.runs.asking import Postponed, Retry
from taskq.runs.context import Context, Revoked, ShuttingDown
from taskq.runs.delivery import Delivery, End, Route
from taskq.runs.errors_as_text import forget_frames, format_error, own_frames, safe_text, type_name
from taskq.runs.logs import tell
from taskq.runs.retrying import after_error, after_request, after_value, postponed
from taskq.runs.surround import surround
from taskq.runs.unknown import wait_for_one_that_knows
from taskq.tasks.definition import Definition
from taskq.tasks.hooks import Hooks

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
            try:
                return wait_for_one_that_knows(delivery, self.settings.unknown_after)
            except DecodeError as error:
                return self._bury(delivery, "unknown-task", error)
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

    # -- after -------------------------------------------------------------------------------------------

    def succeeded(self, delivery: Delivery, value: Any) -> Outcome:
        """Say how the delivery of a task that returned ``value`` ends."""
        if delivery._envelope is not None and hasattr(delivery, "asked"):
            return self._follow(delivery, after_request(delivery, delivery.asked), delivery.asked.error)
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
            follows = after_value(delivery, value)
            return None if follows is None else self._follow(delivery, follows, None)
        except Exception as bug:  # a policy's own bug must not take the worker down
            return self._give_up(delivery, bug)

    def _note(self, delivery: Delivery, subject: Any, *events: str) -> None:
        """Note for hooks how a delivery ends."""
        if self.told:
            delivery.end = End(events, subject)

    def failed(self, delivery: Delivery, error: BaseException) -> Outcome:
        """Say how the delivery of a task that raised ``error`` ends."""
        try:
            if isinstance(error, ShuttingDown):
                return self.interrupted(delivery)
            if isinstance(error, Revoked):
                text = "task %s[%s] was revoked while it ran"
                tell(logging.WARNING, delivery, text, delivery.task.name, id_to_text(delivery.id))
                return Ended(delivery.id, "done", DISCARDED + b"revoked")
            if isinstance(error, RateLimited):
                return SlowDown(delivery.id, float(error.retry_after))
            if isinstance(error, Postponed):
                return postponed(delivery, error)
            asked = error if isinstance(error, Retry) else getattr(delivery, "asked", None)
            if asked is not None:
                return self._follow(delivery, after_request(delivery, asked), asked.error)
            return self._follow(delivery, after_error(delivery, error), error)
        except Exception as bug:  # a policy's own bug must not take the worker down
            BaseException.__setattr__(bug, "__context__", error)  # likewise
            return self._give_up(delivery, bug)

    def _follow(self, delivery: Delivery, follows: Again | BaseException, error: BaseException | None) -> Outcome:
        """End a delivery after which there is another run, or none."""
        if isinstance(follows, Again):
            self._note(delivery, error, "retry")
            return follows
        return self._give_up(delivery, follows)

    def interrupted(self, delivery: Delivery) -> Outcome:
        """Say how a delivery ends that a stop has interrupted: its task has begun, but has not ended."""
        if delivery.task.at_most_once:
            error = TaskqError("interrupted by a stop of its worker; at_most_once forbids another run")
            return self._bury(delivery, "abandoned", error)
        return Returned(delivery.id)

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
