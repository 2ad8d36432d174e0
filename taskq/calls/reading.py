"""Stored results, read: a state, and a value or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from taskq.errors import TaskError, TaskRevoked, task_error
from taskq.message import codec
from taskq.message.details import read_error_detail
from taskq.message.letters import DISCARDED, FAILURE, GIVEN_UP, SUCCESS
from taskq.views.messages import Status


class Ended(NamedTuple):
    """A stored outcome, read: a state and either a value or an error.

    A failure that lies on the server as a dead letter is not final, since it can be replayed.
    """

    state: str
    value: Any = None
    error: TaskError | None = None
    final: bool = True

    @property
    def status(self) -> Status:
        """The same as a `Status`."""
        return Status(self.state, reason=None if self.error is None else self.error.type)


def outcome(stored: bytes, convert: Callable[[Any], Any] | None) -> Ended:
    """Read a stored result; ``convert`` makes of a value what the task's annotation says."""
    kind, payload = stored[:1], stored[1:]
    if kind == SUCCESS:
        try:
            value = codec.unpack(payload)
            return Ended("SUCCESS", value if convert is None else convert(value))
        except Exception as error:  # whatever the class of an annotation raises
            return Ended("SUCCESS", error=task_error(type(error).__name__, f"the result cannot be read: {error}", ""))
    if kind == FAILURE:
        detail = read_error_detail(payload)
        return _failed(detail["type"], detail["message"], detail["traceback"])
    reason = payload.decode(errors="replace")
    if kind == GIVEN_UP:
        return _failed(reason, "the message was given up, see `taskq dead ls`")
    if kind == DISCARDED:
        word, _, why = reason.partition("\n")
        revoked = TaskRevoked(f"the message was discarded: {word}{': ' if why else ''}{why}")
        revoked.type = word
        return Ended("REVOKED", error=revoked)
    return _failed("unreadable", "a result of a kind this taskq does not know")


def _failed(kind: str, message: str, traceback: str = "") -> Ended:
    return Ended("FAILURE", error=task_error(kind, message, traceback), final=False)


def dead(reason: bytes) -> Ended:
    """Read the reason of a dead letter whose result has gone."""
    word, _, detail = reason.partition(b"\n")
    known = read_error_detail(detail)
    kind = known["type"] if word == b"failed" and known["type"] else word.decode(errors="replace")
    return _failed(kind, known["message"], known["traceback"])
