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
import sys
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
    """The task failed. Also an instance of the task's own exception class, if this process has loaded it.

    The class is never imported for this, and its ``__init__`` is not called: of its attributes only ``args`` is there,
    with the text.

    Attributes:
        type: Name of the exception's class, ``module.Class``, or a reason such as ``crashed``.
        traceback: The worker's traceback as text; empty if there is none.
    """

    type: str = ""
    traceback: str = ""

    def __reduce__(self) -> tuple[Callable[..., TaskqError], tuple[Any, ...]]:
        """Pickle, also an instance of the task's own class: what that makes of it is in no module."""
        if "_made_for" in vars(type(self)):
            return _task_error_again, (self.type, self.args, self.__dict__)
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


#: Of the errors that taskq itself raises, those that a task ends with; others would pass for errors of ``get()``.
_OF_TASKS = (MaxRetriesExceeded, SoftTimeLimitExceeded, TimeLimitExceeded)


def _loaded(name: str) -> type[Exception] | None:
    """Return the exception class of that name, ``ValueError`` or ``module.Class``, if it is loaded; imports nothing."""
    module, _, rest = name.rpartition(".")
    path = [rest]
    while module and module not in sys.modules:
        module, _, rest = module.rpartition(".")
        path.insert(0, rest)
    found: Any = sys.modules.get(module) if module else builtins
    for part in path:
        found = getattr(found, "__dict__", {}).get(part)  # a module's __getattr__ might import something
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    if found.__module__ == __name__ and found not in _OF_TASKS:
        return None
    return found


@functools.lru_cache(256)
def _task_error_of(cls: type[Exception]) -> type[TaskError]:
    """Return the class of the errors that are also instances of another class; plain ones if that cannot be."""
    try:
        return type(cls.__name__, (TaskError, cls), {"__module__": cls.__module__, "_made_for": cls})
    except Exception:  # another layout, a metaclass that refuses it
        return TaskError


def _made(type_name: str, args: tuple[Any, ...]) -> TaskError:
    cls = _loaded(type_name)
    if cls is None:
        return TaskError(*args)
    made = _task_error_of(cls)  # type: ignore[arg-type]  # mypy: classes cannot be hashed
    native = next(base for base in made.__mro__ if not base.__flags__ & _HEAP_TYPE)  # no __new__ of a user's is called
    try:
        error: TaskError = native.__new__(made, *args)
        error.args = args
    except Exception:  # one that cannot be without more, such as a group of exceptions
        return TaskError(*args)
    return error


#: The flag of classes that are made by a class statement, in ``object.h``.
_HEAP_TYPE = 1 << 9


def _task_error_again(type_name: str, args: tuple[Any, ...], state: dict[str, Any]) -> TaskError:
    error = _made(type_name, args)
    error.__dict__.update(state)
    if notes := state.get("__notes__"):
        error.__dict__["__notes__"] = list(notes)
    return error


def task_error(type_name: str, message: str, traceback: str) -> TaskError:
    """Make the exception ``AsyncResult.get`` raises from what a worker stored.

    Args:
        type_name: As stored; looked up among the classes that are loaded, never imported.
        message: The text of the task's exception.
        traceback: The worker's traceback, shown as a note.
    """
    error = _made(type_name, (message,))
    if type(error) is TaskError:
        error.args = (f"{type_name}: {message}",)
    error.type = type_name
    error.traceback = traceback
    if traceback:
        error.add_note(f"Traceback in the worker:\n{traceback}")
    return error
