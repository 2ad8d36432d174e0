"""Every error taskq raises, in one tree.

::

    TaskqError
    ├── ConfigError                 a setting or a declaration that cannot work
    ├── SerializationError          an argument or result that cannot be written
    │   └── MessageTooLarge         ... or is larger than ``max_message_bytes``
    ├── DecodeError                 stored bytes that cannot be read back
    ├── BrokerError                 anything about the server
    │   ├── BrokerUnavailable       no answer, and nothing was sent (or repeating is harmless)
    │   ├── EnqueueUncertain        no answer, and the message may have been accepted
    │   ├── BrokerRefused           the server answered with an error
    │   │   └── BrokerFull          ... because it is out of memory
    │   └── ServerUnsuitable        a server that cannot keep taskq's promises
    ├── QueueFull                   the queue has its ``max_length``
    ├── DuplicateCall               the same unique work waits or runs, and ``on_duplicate="raise"``
    ├── RateLimited                 to be raised by a task: nothing more of this for a while
    ├── DuplicateTaskId             that ``task_id`` has a message or a result already
    ├── TaskError                   the task ended without a value; raised by ``AsyncResult.get``
    │   └── TaskRevoked             ... because it was revoked, expired or discarded
    ├── UnknownResult               nothing is known of that id
    ├── ResultTimeout               ``get(timeout=...)`` ran out of time
    ├── SoftTimeLimitExceeded       raised inside a task that runs longer than its ``soft_time_limit``
    ├── TimeLimitExceeded           why a task failed whose process was killed at its ``time_limit``
    ├── MaxRetriesExceeded          ``self.retry()`` with no retries left and no ``exc``
    └── WouldDeadlock               ``get()`` inside a task

Errors of the client library never escape: they are translated where they occur.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import Any


class TaskqError(Exception):
    """Base of every error raised by taskq."""

    def __reduce__(self) -> tuple[Callable[..., TaskqError], tuple[Any, ...]]:
        """Pickle, whatever arguments the class takes: a pool of processes hangs on an error that cannot be pickled."""
        return _again, (type(self), self.args, self.__dict__)


def _again(cls: type[TaskqError], args: tuple[Any, ...], state: dict[str, Any]) -> TaskqError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    if notes := state.get("__notes__"):
        error.__dict__["__notes__"] = list(notes)
    return error


class ConfigError(TaskqError, ValueError):
    """A setting, a task declaration or a call option that cannot work."""


class SerializationError(TaskqError, TypeError):
    """A value that taskq cannot write into a message; the text names its path."""


class MessageTooLarge(SerializationError):
    """A message or result above ``max_message_bytes``."""


class DecodeError(TaskqError, ValueError):
    """Bytes that are not what this version of taskq writes."""


class BrokerError(TaskqError):
    """Anything that went wrong between taskq and the server."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """The server gave no answer; nothing was sent, or repeating the call is harmless."""


class EnqueueUncertain(BrokerError):
    """The deadline passed while it was unknown whether the server had accepted the message.

    Attributes:
        task_ids: The ids concerned. Calling again with the same ``task_id`` is safe: a message that
            was accepted is then refused as a duplicate instead of being doubled.
    """

    def __init__(self, message: str, task_ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.task_ids = task_ids


class BrokerRefused(BrokerError):
    """The server answered with an error; nothing was changed."""


class BrokerFull(BrokerRefused):
    """The server is over its ``maxmemory``; nothing was enqueued."""


class ServerUnsuitable(BrokerError):
    """A server too old, read-only, or set up so that it would lose messages."""


class QueueFull(TaskqError):
    """The queue has as many messages waiting as its ``max_length`` allows; nothing was enqueued."""


class DuplicateCall(TaskqError):
    """The same unique work is waiting or running, and its task has ``on_duplicate="raise"``.

    Attributes:
        task_id: The id of that call.
    """

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class RateLimited(TaskqError):
    """Raise it in a task that was told to slow down, for example by an API that it calls.

    Nothing of the task (of the same key, if its first limit has one) is started for ``retry_after`` seconds, by any
    worker; then this message runs again. That counts as neither a failure nor a retry.
    """

    def __init__(self, retry_after: float) -> None:
        """Ask for ``retry_after`` seconds of quiet, from 0.

        Raises:
            ConfigError: Not such a number; the task then fails.
        """
        if isinstance(retry_after, bool) or not isinstance(retry_after, (int, float)) or not 0 <= retry_after <= 1e10:
            raise ConfigError(f"retry_after of RateLimited must be a number of seconds from 0, not {retry_after!r}")
        super().__init__(f"told to wait for {retry_after:g} s")
        self.retry_after = retry_after


class DuplicateTaskId(TaskqError, ValueError):
    """A message or a result with the given ``task_id`` still exists."""


class TaskError(TaskqError):
    """The task failed. Also an instance of the task's own exception type where that is a builtin.

    Attributes:
        type: Name of the exception's class, ``module.Class``, or a reason such as ``crashed``.
        traceback: The worker's traceback as text; empty if there is none.
    """

    type: str = ""
    traceback: str = ""

    def __reduce__(self) -> tuple[Callable[..., TaskqError], tuple[Any, ...]]:
        """Pickle, also an instance of a builtin exception, whose class is in no module."""
        if type(self).__module__ == TaskError.__module__ and type(self).__name__ in _REBUILT:
            return _task_error_again, (type(self).__name__, self.args, self.__dict__)
        return super().__reduce__()

    def __str__(self) -> str:
        # A builtin such as KeyError would show the repr of its argument.
        return str(self.args[0]) if self.args else ""


class TaskRevoked(TaskError):
    """The call was revoked, or it expired or was discarded before it could end.

    Also raised inside a task that is revoked while it runs; it may catch this, tidy up and end.
    """


class UnknownResult(TaskqError, LookupError):
    """No message and no result with that id exists (any more)."""


class ResultTimeout(TaskqError, TimeoutError):
    """The result did not come within the ``timeout`` of ``get``."""


class MaxRetriesExceeded(TaskqError):
    """``self.retry()`` was called with no retries left and no exception to fail with."""


class SoftTimeLimitExceeded(TaskqError):
    """The task has run longer than its ``soft_time_limit``; it may catch this, tidy up and end."""

    def __init__(self, message: str = "the task has run longer than its soft_time_limit") -> None:
        """Make the error; in a thread the interpreter does it, without a text."""
        super().__init__(message)


class TimeLimitExceeded(TaskqError):
    """The task ran longer than its ``time_limit``, and its process was killed."""


class WouldDeadlock(TaskqError, RuntimeError):
    """``get()`` was called inside a task, where waiting for another can block its own slot for ever."""


#: The only exception classes ever rebuilt from stored data (never by importing a name).
_REBUILT = {
    name: cls
    for name, cls in vars(builtins).items()
    if isinstance(cls, type)
    and issubclass(cls, Exception)
    and not issubclass(cls, (UnicodeError, SyntaxError, BaseExceptionGroup))
}


@functools.cache
def _task_error_of(name: str) -> type[TaskError]:
    """Return the class of the errors that are also instances of a builtin exception."""
    return type(name, (TaskError, _REBUILT[name]), {"__module__": __name__})


def _task_error_again(name: str, args: tuple[Any, ...], state: dict[str, Any]) -> TaskqError:
    return _again(_task_error_of(name), args, state)


def task_error(type_name: str, message: str, traceback: str) -> TaskError:
    """Make the exception ``AsyncResult.get`` raises from what a worker stored.

    Args:
        type_name: As stored; looked up among the builtin exceptions, never imported.
        message: The text of the task's exception.
        traceback: The worker's traceback, shown as a note.
    """
    error = _task_error_of(type_name)(message) if type_name in _REBUILT else TaskError(f"{type_name}: {message}")
    error.type = type_name
    error.traceback = traceback
    if traceback:
        error.add_note(f"Traceback in the worker:\n{traceback}")
    return error
