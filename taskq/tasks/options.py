"""The options of a task and of a call, with their types and meanings: one table for people and for type checkers.

At run time each option is checked by the class or method that takes it: `Definition`, `Flow`, `RetryOptions`, and
`Task.prepare_call`. A test compares their names with this table. The page of reference is made from it, with their
defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from taskq.tasks.hooks import Function
    from taskq.tasks.keys import Key
    from taskq.tasks.limits import Breaker, Limit
    from taskq.tasks.retry_options import BeforeSleep, Retry, Stop, Wait


class CeleryRetries(TypedDict, total=False):
    """Retries in Celery's words, for a task or for one call."""

    max_retries: int | None
    """How many times a failed call runs again; None: without limit."""
    retry_backoff: bool | float
    """Wait 1, 2, 4 … times this many seconds between two runs. True stands for 1."""
    retry_backoff_max: float
    """Wait at most this many seconds."""
    retry_jitter: bool
    """Wait a random part of that time."""
    default_retry_delay: float
    """Seconds to wait without ``retry_backoff``."""


class Retries(CeleryRetries, total=False):
    """Which failures are retried, and when.

    With tenacity's objects or Celery's words.
    """

    autoretry_for: type[BaseException] | Collection[type[BaseException]]
    """Classes of the failures that are retried. Without it, and without tenacity's objects, none is."""
    dont_autoretry_for: type[BaseException] | Collection[type[BaseException]]
    """Classes of failures that are not retried, although ``autoretry_for`` includes them."""
    retry: Retry | None
    """tenacity's object that says which failures, or values, are retried: ``retry_if_exception_type(OSError)``."""
    wait: Wait | None
    """tenacity's object that says how many seconds to wait: ``wait_exponential(max=60)``."""
    stop: Stop | None
    """tenacity's object that says when to give up: ``stop_after_attempt(5)``."""
    before_sleep: BeforeSleep | None
    """A function of tenacity's ``RetryCallState``, called before each wait."""


class Turns(TypedDict, total=False):
    """When a waiting message may run, and in which order.

    The server decides it, for all workers together.
    """

    priority: int
    """From -100 to 100; higher ones are taken first."""
    fair_by: Key | None
    """Each key gets its turn, however many messages another has: the name of an argument, or a function of the
    arguments by name."""
    fair_weight: Callable[..., float] | None
    """The share of a key of ``fair_by``, 0.001 to 1000: a function of the arguments by name. Without it, 1 for each."""
    rate: str | None
    """How many may start in a time, such as ``"40/m"``."""
    burst: int | None
    """How many of ``rate`` may start at once."""
    max_concurrency: int | None
    """How many may run at once."""
    key: Key | None
    """What ``rate`` and ``max_concurrency`` count separately, given as for ``fair_by``."""
    limits: Sequence[Limit]
    """More limits, up to 8 `Limit` objects."""
    unique: Literal["until_start", "until_done"] | None
    """While a call waits (and, with ``until_done``, runs), another one with the same arguments is that call."""
    unique_by: Key | None
    """Which calls are the same: for ``unique`` instead of those with the same arguments, for ``debounce`` and
    ``throttle`` instead of all of the task."""
    unique_for: float | None
    """A call is ``unique`` for at most this many seconds."""
    on_duplicate: Literal["return", "raise"]
    """``raise`` `DuplicateCall` instead of returning the handle of the first call."""
    debounce: float | None
    """Run once, this many seconds after the last of a series of calls, with its arguments."""
    max_wait: float | None
    """With ``debounce``: at most this many seconds after the first call."""
    throttle: float | None
    """Run once in this many seconds; further calls return the handle of the first one."""
    max_length: int | None
    """Calls raise `QueueFull` while this many messages wait."""
    full_timeout: float
    """With ``max_length``: how many seconds a call waits for room before it raises."""
    breaker: Breaker | None
    """Pauses the task while it keeps failing: a `Breaker`."""


class Running(TypedDict, total=False):
    """The name of a task, and how it runs."""

    name: str | None
    """``module.function`` unless given."""
    queue: str | None
    """The queue of its calls; the task's own, named after it, unless given."""
    ignore_result: bool
    """Do not keep results."""
    dead_letter: bool
    """Keep a message that failed for good."""
    expires: float | None
    """Seconds after which a call no longer runs, unless it says otherwise."""
    discard_after: float | None
    """The app's setting of that name, but for this task; seconds."""
    pool: Literal["thread"] | None
    """``thread`` runs a sync task in a thread of a child, beside others, instead of its main thread."""
    soft_time_limit: float | None
    """Seconds after which `SoftTimeLimitExceeded` is raised inside the task."""
    time_limit: float | None
    """Seconds after which its process is killed and replaced. The task has then failed with `TimeLimitExceeded`, and
    its retries decide."""
    at_most_once: bool
    """A message whose worker died under it becomes a dead letter, ``abandoned``, instead of running again."""
    show_args: bool | Sequence[str]
    """Which arguments ``taskq ps`` may show: all of them, or those with these names."""


class Installed(TypedDict, total=False):
    """Middleware and hooks of this task alone.

    Each is a function or a list of them; see [Middleware and hooks](../how-to/middleware.md).
    """

    around_run: Function | Sequence[Function]
    """Middleware around each run, inside that of the app."""
    around_enqueue: Function | Sequence[Function]
    """Middleware around the sending of each call, inside that of the app."""
    on_success: Function | Sequence[Function]
    """Hooks for runs that returned, before those of the app."""
    on_failure: Function | Sequence[Function]
    """Hooks for runs that failed for good, before those of the app."""
    on_retry: Function | Sequence[Function]
    """Hooks for runs after which the call runs again, before those of the app."""
    on_dead: Function | Sequence[Function]
    """Hooks for calls that became dead letters, before those of the app."""


class TaskOptions(Running, Turns, Retries, Installed, total=False):
    """What ``@app.task(...)`` takes."""


class BoundTaskOptions(TaskOptions, total=False):
    """What it takes for a function whose first parameter is the `Context`."""

    bind: Required[Literal[True]]
    """The function's first parameter, ``self``, is a `Context`."""


class Tick(CeleryRetries, total=False):
    """What a call may have, whether it is sent now or at set times."""

    queue: str | None
    """Another queue than the task's own; some worker must serve it (``taskq worker -Q``)."""
    priority: int | None
    """From -100 to 100; the task's own unless given. Higher ones are taken first."""
    headers: Mapping[str, Any] | None
    """A map that the task finds in ``self.request.headers``."""
    ignore_result: bool | None
    """Whether to drop the result; as the task says unless given."""


class TickOptions(Tick, total=False):
    """What ``app.periodic(...)`` takes for the call that it sends."""

    expires: float | None
    """Seconds after the tick's time after which its call no longer runs."""


class CallOptions(Tick, total=False):
    """What ``apply_async(...)``, ``prepare_call(...)`` and ``apply(...)`` take."""

    countdown: float | None
    """Seconds from now, by the server's clock, before it may run."""
    eta: datetime | None
    """The moment before which it may not run; must have a time zone."""
    expires: float | datetime | None
    """Seconds from now, or a moment with a time zone, after which it no longer runs."""
    task_id: str | None
    """Your own id for the call, 1 to 200 of ``A-Z a-z 0-9 _ . : -``; refused while it is in use."""


#: The names in the table.
TASK_OPTIONS = tuple(BoundTaskOptions.__annotations__)
CALL_OPTIONS = tuple(CallOptions.__annotations__)
#: Those of Celery's retry options that a call may have: plain values, which cross the wire.
CALL_RETRIES = tuple(CeleryRetries.__annotations__)
