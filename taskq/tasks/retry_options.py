"""The retry options of a task, in tenacity's words or in Celery's, and which of them go together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from taskq.config import LONGEST
from taskq.errors import ConfigError
from taskq.tasks.options import CALL_RETRIES

if TYPE_CHECKING:
    from tenacity import RetryCallState

    # tenacity's objects are functions of a RetryCallState, and so may one's own be.
    Retry = Callable[[RetryCallState], bool]
    Wait = Callable[[RetryCallState], float]
    Stop = Callable[[RetryCallState], bool]
    BeforeSleep = Callable[[RetryCallState], Any]


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """The retry options of a task, as declared; `taskq.tasks.options` says what they mean."""

    retry: Retry | None = None
    wait: Wait | None = None
    stop: Stop | None = None
    before_sleep: BeforeSleep | None = None
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    max_retries: int | None = 3
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    default_retry_delay: float = 180.0

    def __post_init__(self) -> None:
        """Refuse what could only fail later, in a worker."""
        if self.max_retries is not None and (type(self.max_retries) is not int or self.max_retries < 0):
            raise ConfigError(f"max_retries must be None (no limit) or a whole number from 0, not {self.max_retries!r}")
        for name in ("retry_backoff", "retry_backoff_max", "default_retry_delay"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < LONGEST:
                raise ConfigError(f"{name} must be a number of seconds from 0, below {LONGEST:g}, not {value!r}")
        for name in ("autoretry_for", "dont_autoretry_for"):
            for cls in getattr(self, name):
                if not (isinstance(cls, type) and issubclass(cls, BaseException)):
                    raise ConfigError(f"{name} takes exception classes, not {cls!r}")
        if not isinstance(self.retry_jitter, bool):
            raise ConfigError(f"retry_jitter must be True or False, not {self.retry_jitter!r}")
        for name in ("retry", "wait", "stop", "before_sleep"):
            if getattr(self, name) is not None:
                _check_strategy(name, getattr(self, name))

    @property
    def most_retries(self) -> int | None:
        """How many retries at most; None if no number limits them."""
        return self.max_retries if self.stop is None else None

    def with_call_options(self, overrides: dict[str, Any]) -> RetryOptions:
        """Return them with Celery's names replaced for one call; a given ``wait`` or ``stop`` then gives way."""
        replaced: dict[str, Any] = {k: v for k, v in overrides.items() if k in CALL_RETRIES}
        waits_differently = bool(replaced.keys() - {"max_retries"})
        if "max_retries" in replaced:
            replaced["stop"] = None
        if waits_differently:
            replaced["wait"] = None
        if self.automatic and self.retry is None and not self.autoretry_for:
            replaced["autoretry_for"] = (Exception,)  # which the given wait or stop has said until now
        return replace(self, **replaced)

    @property
    def automatic(self) -> bool:
        """Whether a failure may be retried without the task asking for it."""
        return bool(self.autoretry_for) or any(s is not None for s in (self.retry, self.wait, self.stop))


#: What each of tenacity's options takes, for example.
_EXAMPLES = {
    "retry": "retry_if_exception_type(OSError)",
    "wait": "wait_fixed(30)",
    "stop": "stop_after_attempt(5)",
    "before_sleep": "before_sleep_log(logger, logging.INFO)",
}


def _check_strategy(name: str, strategy: Any) -> None:
    import tenacity

    kinds = {"retry": tenacity.retry_base, "wait": tenacity.wait.wait_base, "stop": tenacity.stop.stop_base}
    others = tuple(kind for option, kind in kinds.items() if option != name)
    if isinstance(strategy, type) or not callable(strategy) or isinstance(strategy, (*others, tenacity.BaseRetrying)):
        raise ConfigError(
            f"{name}= takes one of tenacity's {name}_... objects, such as {_EXAMPLES[name]}, "
            f"or a function of a RetryCallState, not {strategy!r}"
        )
    for part in _parts(strategy, tuple(kinds.values())):
        if inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(type(part).__call__):
            raise ConfigError(
                f"{name}={strategy!r} is asynchronous, by {part!r}, and nothing would await it: "
                "use functions that are not, and tenacity's own objects instead of those of tenacity.asyncio"
            )


def _parts(strategy: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """Walk through a strategy and the strategies and functions it is made of."""
    yield strategy
    if isinstance(strategy, kinds):
        for held in vars(strategy).values():
            for part in held if isinstance(held, (tuple, list)) else (held,):
                if callable(part) and not isinstance(part, type):
                    yield from _parts(part, kinds)


#: tenacity's name for something, Celery's names for the same, and what to write for both together.
_EITHER = (
    ("retry", ("autoretry_for", "dont_autoretry_for"), "retry=retry_if_exception_type(...) | ..."),
    (
        "wait",
        ("retry_backoff", "retry_backoff_max", "retry_jitter", "default_retry_delay"),
        "wait=wait_fixed(...) + ...",
    ),
    ("stop", ("max_retries",), "stop=stop_after_attempt(1 + max_retries) | ..."),
)


#: Options of tenacity and Celery that have no meaning here, and what to do instead.
_INSTEAD = {
    "before": "put what must happen before each run into the task",
    "after": "put what must happen after each run into the task, or into before_sleep=",
    "sleep": "no worker sleeps through a wait",
    "reraise": "a task always fails with its own error",
    "retry_error_cls": "a task always fails with its own error",
    "retry_error_callback": "a task whose last try fails becomes a dead letter; put all else into the task",
    "retry_kwargs": "write max_retries= and default_retry_delay= themselves",
}


#: The names of the retry options of a task.
OPTIONS = tuple(field.name for field in fields(RetryOptions))


def split_options(options: dict[str, Any]) -> RetryOptions:
    """Take the retry options out of a task's options; raises `ConfigError` for those that do not go together."""
    for name, instead in _INSTEAD.items():
        if name in options:
            raise ConfigError(f"@app.task has no option {name}: {instead}")
    taken = {name: options.pop(name) for name in OPTIONS if name in options}
    for name in ("autoretry_for", "dont_autoretry_for"):
        if name in taken:
            given = taken[name]
            taken[name] = tuple(given) if isinstance(given, (tuple, list, set, frozenset)) else (given,)
    for name, others, both in _EITHER:
        for other in others:
            # None, False and no classes at all are how to say nothing.
            if taken.get(name) is not None and not any(taken.get(other) is no for no in (None, False, ())):
                raise ConfigError(f"give either {name}= or {other}=, they say the same thing; both together is {both}")
    return RetryOptions(**taken)
