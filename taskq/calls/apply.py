"""Running a call in the process that makes it, on the path it takes in a worker but without the server."""

from __future__ import annotations

import time

from taskq.calls.client import Client
from taskq.calls.sending import Call
from taskq.message.details import error_detail
from taskq.message.head import stamped
from taskq.message.letters import FAILURE
from taskq.message.outcome import Again, Outcome, result_of
from taskq.runs.delivery import Delivery, Taken, current
from taskq.runs.errors_as_text import format_error, safe_text, type_name
from taskq.runs.execution import Executor
from taskq.runs.hooks import due
from taskq.runs.invoke import Here, run
from taskq.tasks.definition import Definition


class _Locally(Here):
    """The calling thread; the error that ended the last run is an answer, whatever a worker would do with it."""

    error: BaseException | None = None

    def end(self, delivery: Delivery, error: BaseException | None) -> None:
        self.error = error


def run_here(task: Definition, client: Client, call: Call) -> bytes:
    """Run a call of ``task`` to its end, retries at once; returns its result, as it would be stored."""
    executor = Executor({task.name: task}, client.settings, "local", hooks=client.hooks)
    raw_id, value, _ = call.message
    value = stamped(value, time.time() * 1000)
    outer = current.set(None)
    try:
        while True:
            here, delivery = _Locally(), Delivery(raw_id, value, Taken(time.time() * 1000, time.monotonic()))
            outcome = executor.prepare(delivery) or run(executor, delivery, here)
            for hook in due(executor, delivery):
                hook.call()
            if not isinstance(outcome, Again) or outcome.counter == "postponed":  # nothing will have changed
                return _answer(outcome, here.error)
            value = outcome.value
    finally:
        current.reset(outer)


def _answer(outcome: Outcome, error: BaseException | None) -> bytes:
    result = result_of(outcome)
    if error is None or result:
        return result
    # It was told to slow down, and there is no queue to wait in; or results are ignored, but this is an answer.
    return FAILURE + error_detail(type_name(error), safe_text(error), format_error(error))
