"""taskq: a task queue on Redis and Valkey that loses no task.

`TaskQ` makes an app, ``@app.task`` a task, ``task.delay(...)`` a call, ``taskq worker -A module`` runs it.
"""

from typing import TYPE_CHECKING, NoReturn

from taskq.app import TaskQ
from taskq.calls.outgoing import Outgoing
from taskq.calls.result import AsyncResult
from taskq.calls.sending import Call
from taskq.calls.task import AsyncTask, Task
from taskq.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    DuplicateCall,
    DuplicateTaskId,
    EnqueueUncertain,
    MaxRetriesExceeded,
    MessageTooLarge,
    QueueFull,
    RateLimited,
    ResultTimeout,
    SerializationError,
    SoftTimeLimitExceeded,
    TaskError,
    TaskqError,
    TaskRevoked,
    TimeLimitExceeded,
    UnknownResult,
    WouldDeadlock,
)
from taskq.periodic.schedule import crontab, every
from taskq.runs.asking import Postponed, Retry
from taskq.runs.context import Context, Request, ShuttingDown, checkpoint, current_request
from taskq.runs.logs import TaskFilter
from taskq.tasks.limits import Breaker, Limit
from taskq.views.messages import Status

__all__ = [
    "AsyncResult",
    "AsyncTask",
    "Breaker",
    "BrokerError",
    "BrokerFull",
    "BrokerRefused",
    "BrokerUnavailable",
    "Call",
    "ConfigError",
    "Context",
    "DuplicateCall",
    "DuplicateTaskId",
    "EnqueueUncertain",
    "Limit",
    "MaxRetriesExceeded",
    "MessageTooLarge",
    "Outgoing",
    "Postponed",
    "QueueFull",
    "RateLimited",
    "Request",
    "ResultTimeout",
    "Retry",
    "SerializationError",
    "ShuttingDown",
    "SoftTimeLimitExceeded",
    "Status",
    "Task",
    "TaskError",
    "TaskFilter",
    "TaskQ",
    "TaskRevoked",
    "TaskqError",
    "TimeLimitExceeded",
    "UnknownResult",
    "WouldDeadlock",
    "checkpoint",
    "crontab",
    "current_request",
    "every",
]

if not TYPE_CHECKING:  # for which there is no such name

    def __getattr__(name: str) -> NoReturn:
        """Say what to use instead of Celery's names."""
        import sys

        from taskq.celery_names import MODULE, instead

        text = f"module 'taskq' has no attribute {name!r}{instead(name, MODULE, __all__)}"
        if name in MODULE and sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            raise ImportError(text, name="taskq")  # `from taskq import group` would say nothing of an AttributeError
        raise AttributeError(text, name=name)
