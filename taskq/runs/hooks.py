"""Calls the hooks for the ends of runs, after the end is decided: nothing a hook does changes it.

A task's own hooks come first, then the app's. An error is logged with the name of the hook, and the next one is called.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple

from taskq.errors import DecodeError
from taskq.message.head import decode_head
from taskq.message.ids import id_to_text
from taskq.runs.context import Request, request_of
from taskq.runs.delivery import NOWHERE, Delivery
from taskq.runs.errors_as_text import forget_frames, own_frames
from taskq.runs.execution import Executor
from taskq.runs.logs import tell
from taskq.runs.surround import UNFINISHED, finish
from taskq.tasks.callables import is_async
from taskq.tasks.hooks import Function, name_of


class Due(NamedTuple):
    """A hook that is to be called."""

    delivery: Delivery
    event: str
    function: Function
    request: Request
    subject: Any

    @property
    def is_async(self) -> bool:
        """Whether a call gives a coroutine."""
        return is_async(self.function)

    def call(self) -> None:
        """Call it in this thread and a context of its own, an async one on a loop of its own."""
        try:
            copy_context().run(self._call)
        except BaseException as error:  # SystemExit too: a hook cannot end the worker
            self._tell(error)

    def _call(self) -> None:
        value = self.function(self.request, self.subject)
        if type(value) in UNFINISHED:
            finish(value)

    async def acall(self) -> None:
        """Await an async one."""
        try:
            await self.function(self.request, self.subject)
        except BaseException as error:  # also its cancellation, in a worker that stops
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        tell(
            logging.ERROR, self.delivery, "the hook %s for %s of message %s raised %s: this has no other effect",
            name_of(self.function), self.event, id_to_text(self.delivery.id), type(error).__name__,
            error=(type(error), error, own_frames(error)),
        )  # fmt: skip


def due(executor: Executor, delivery: Delivery) -> Iterator[Due]:
    """Go through the hooks to call for the end of a delivery, if there are hooks for such an end."""
    end = getattr(delivery, "end", None)
    if end is None:
        return
    own = delivery.task.hooks if delivery.route is not NOWHERE else None
    request = None
    for event in end.events:
        for function in (*(own.of(event) if own else ()), *executor.hooks.of(event)):
            request = request or _request_of(executor, delivery)
            yield Due(delivery, event, function, request, end.subject)
    if isinstance(end.subject, BaseException):
        forget_frames(end.subject)


def _request_of(executor: Executor, delivery: Delivery) -> Request:
    """Return the view of a call for its hooks; if it cannot be read or run, what is known of it."""
    with suppress(Exception):
        return request_of(delivery)
    try:
        task, queue, *_ = decode_head(delivery.value)
    except DecodeError:  # only its id is known
        task = queue = ""
    return Request(id_to_text(delivery.id), task, (), {}, 0, delivery.taken.crashes, queue, {}, None, executor.worker)
