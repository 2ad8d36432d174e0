"""Repeating what got no answer, for as long as the caller has."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from taskq.broker.call import Command
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff, unavailable
from taskq.broker.protocol import Now, Protocol, Sleep

log = logging.getLogger("taskq")

T = TypeVar("T")


def persist(command: Command[T], where: str, seconds: float | None, patient: bool = False) -> Protocol[T]:
    """Repeat a repeatable command until it is answered, for at most ``seconds`` (None: for ever, saying so once).

    With ``patient`` a server that answers, and refuses for now, has all the time there is.

    Raises:
        BrokerUnavailable: The time is over.
        BrokerRefused: The server refuses, and not only for now.
    """
    began, attempt = (yield Now()), 0
    while True:
        try:
            reply: T = yield command
            return reply
        except (NotSent, Unanswered, Passing) as error:
            if isinstance(error, Unanswered) and not command.repeatable:
                raise unavailable(where, error, (yield Now()) - began) from None
            delay = backoff(attempt, 1.0)
            if seconds is None or (patient and isinstance(error, Passing)):
                if attempt == 0:
                    log.warning("waiting for %s: %s", where, error)
            elif (yield Now()) + delay - began > seconds:
                raise unavailable(where, error, seconds) from None
        attempt += 1
        yield Sleep(delay)


def persistent(steps: Protocol[T], where: str, seconds: float | None) -> Protocol[T]:
    """Run a protocol, each of its commands repeated as `persist` says; what it raises then is thrown into the steps."""
    try:
        step = next(steps)
        while True:
            try:
                reply: Any = (yield from persist(step, where, seconds)) if isinstance(step, Command) else (yield step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
