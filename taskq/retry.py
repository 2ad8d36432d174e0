"""When a failed task runs again: tenacity's strategies, evaluated to a due time instead of slept through.

The policy of a task is a tenacity ``Retrying`` object, built from tenacity's own objects (``retry=``, ``wait=``,
``stop=``) or from Celery's names (``max_retries``, ``retry_backoff`` …). It is asked after an attempt, on a
``RetryCallState`` made for the purpose; the answer is a delay, or that it is over. Nothing here sleeps, reads a clock
or talks to the server.

Source: tenacity 9, ``BaseRetrying.iter``, which decides in the order retry, wait, stop, before_sleep.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from taskq.errors import ConfigError

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

#: Celery's names that can also be given for one call, since plain values cross the wire.
CALL_OPTIONS = ("max_retries", "retry_backoff", "retry_backoff_max", "retry_jitter", "default_retry_delay")


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """The retry options of a task, as declared; see ``TaskQ.task`` for their meaning."""

    retry: Any = None
    wait: Any = None
    stop: Any = None
    before_sleep: Callable[[RetryCallState], Any] | None = None
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
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be a number of seconds from 0, not {value!r}")
        for name in ("autoretry_for", "dont_autoretry_for"):
            for cls in getattr(self, name):
                if not (isinstance(cls, type) and issubclass(cls, BaseException)):
                    raise ConfigError(f"{name} takes exception classes, not {cls!r}")
        for name in ("retry", "wait", "stop"):
            _check_strategy(name, getattr(self, name))
        if self.retry is not None and self.autoretry_for:
            raise ConfigError("give either retry= or autoretry_for=, they say the same thing")
        if self.wait is not None and self.retry_backoff:
            raise ConfigError("give either wait= or retry_backoff=, they say the same thing")

    @property
    def most_retries(self) -> int | None:
        """How often at most, as far as a number says so."""
        return self.max_retries if self.stop is None else None

    @property
    def automatic(self) -> bool:
        """Whether a failure may be retried without the task asking for it."""
        return bool(self.retry or self.wait or self.stop or self.autoretry_for)


def _check_strategy(name: str, strategy: Any) -> None:
    if strategy is None:
        return
    if not callable(strategy):
        raise ConfigError(f"{name} must be one of tenacity's {name}_... objects, not {strategy!r}")
    if inspect.iscoroutinefunction(strategy) or inspect.iscoroutinefunction(type(strategy).__call__):
        raise ConfigError(f"{name}={strategy!r} is asynchronous; use the strategies of tenacity itself")


class Attempt(NamedTuple):
    """What a policy is asked about.

    Attributes:
        number: 1 for the first run.
        elapsed: Seconds since the first run began, by the server's clock.
        idle_for: Seconds spent waiting between runs so far.
        error: What the task raised, or None if it returned ``value``.
    """

    number: int
    elapsed: float
    idle_for: float
    error: BaseException | None = None
    value: Any = None
    function: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None


class RunAgain(NamedTuple):
    """Run it again this many seconds from now."""

    delay: float


class GiveUp(NamedTuple):
    """It failed for good, with this error (None: the policy refused its value)."""

    error: BaseException | None


class Policy:
    """Decides whether and when a task runs again."""

    def __init__(self, options: RetryOptions) -> None:
        """Make the policy of ``options``; tenacity is imported when it is first needed."""
        self.options = options

    def __repr__(self) -> str:
        """Show the strategies."""
        return f"<Policy {self.options}>"

    @cached_property
    def retrying(self) -> Retrying:
        """The tenacity object."""
        import tenacity

        o = self.options
        return tenacity.Retrying(
            retry=o.retry or self._retry_for(tenacity),
            wait=o.wait or self._wait(tenacity),
            stop=o.stop
            or (tenacity.stop_never if o.max_retries is None else tenacity.stop_after_attempt(o.max_retries + 1)),
            before_sleep=o.before_sleep,
            sleep=_never,
            reraise=True,
        )

    def _retry_for(self, tenacity: Any) -> Any:
        o = self.options
        if not o.autoretry_for and not o.dont_autoretry_for:
            return tenacity.retry_if_exception_type(Exception)
        wanted = o.autoretry_for or (Exception,)
        return tenacity.retry_if_exception(
            lambda error: isinstance(error, wanted) and not isinstance(error, o.dont_autoretry_for)
        )

    def _wait(self, tenacity: Any) -> Any:
        o = self.options
        if not o.retry_backoff:
            return tenacity.wait_fixed(o.default_retry_delay)
        factor = 1.0 if o.retry_backoff is True else float(o.retry_backoff)
        kind = tenacity.wait_random_exponential if o.retry_jitter else tenacity.wait_exponential
        return kind(multiplier=factor, max=o.retry_backoff_max)

    @cached_property
    def looks_at_values(self) -> bool:
        """Whether a returned value may lead to a retry, so that successes must be judged as well."""
        return self.options.automatic and _looks_at_values(self.retrying.retry)

    def with_call_options(self, overrides: dict[str, Any]) -> Policy:
        """Return the policy with Celery's names replaced for one call; a given ``wait`` or ``stop`` then gives way."""
        replaced: dict[str, Any] = {k: v for k, v in overrides.items() if k in CALL_OPTIONS}
        waits_differently = bool(replaced.keys() - {"max_retries"})
        if "max_retries" in replaced:
            replaced["stop"] = None
        if waits_differently:
            replaced["wait"] = None
        return Policy(replace(self.options, **replaced))

    def decide(self, attempt: Attempt) -> RunAgain | GiveUp | None:
        """Say what follows an attempt: run again, give up, or nothing (the value is accepted)."""
        import tenacity

        if attempt.error is not None and not self.options.automatic:
            return GiveUp(attempt.error)
        state = self._state(attempt)
        retrying = self.retrying
        retrying.begin()  # tenacity keeps statistics a thread, which iter() counts in
        try:
            step = retrying.iter(state)
        except tenacity.RetryError:  # a value was refused once too often
            return GiveUp(None)
        except BaseException as error:
            return GiveUp(attempt.error if attempt.error is not None and error is attempt.error else error)
        if isinstance(step, tenacity.DoSleep):
            return _run_again(float(step))
        return None

    def exhausted(self, attempt: Attempt, max_retries: int | None = None) -> bool:
        """Say whether a task that asks to be retried has none left: by ``max_retries`` if given, else as declared."""
        if max_retries is None and self.options.stop is not None:
            return bool(self.retrying.stop(self._state(attempt)))
        limit = self.options.max_retries if max_retries is None else max_retries
        return limit is not None and attempt.number > limit

    def delay_for(self, attempt: Attempt) -> float:
        """Seconds to wait when the task itself asks to be retried (``self.retry()`` without a countdown)."""
        if self.options.wait is None and not self.options.retry_backoff:
            return self.options.default_retry_delay
        decision = _run_again(float(self.retrying.wait(self._state(attempt))))
        return decision.delay if isinstance(decision, RunAgain) else self.options.default_retry_delay

    def _state(self, attempt: Attempt) -> RetryCallState:
        import tenacity

        state = tenacity.RetryCallState(self.retrying, attempt.function, attempt.args, attempt.kwargs or {})
        state.attempt_number = attempt.number
        state.idle_for = attempt.idle_for
        if attempt.error is not None:
            state.set_exception((type(attempt.error), attempt.error, attempt.error.__traceback__))
        else:
            state.set_result(attempt.value)
        # tenacity's clock is this process's; rebase it so that the elapsed time spans all attempts.
        state.start_time = (state.outcome_timestamp or 0.0) - attempt.elapsed
        return state


def _run_again(delay: float) -> RunAgain | GiveUp:
    if math.isnan(delay) or delay < 0:
        return RunAgain(0.0)
    if math.isinf(delay):
        return GiveUp(ConfigError("the retry policy asked to wait for ever"))
    return RunAgain(delay)


def _looks_at_values(strategy: Any) -> bool:
    import tenacity

    if isinstance(strategy, (tenacity.retry_any, tenacity.retry_all)):
        return any(_looks_at_values(part) for part in strategy.retries)
    if isinstance(strategy, tenacity.retry_unless_exception_type):
        return True  # it retries until something is raised
    return not isinstance(strategy, tenacity.retry_if_exception)


def _never(_seconds: float) -> None:
    raise AssertionError("a task's policy never sleeps")


def split_options(options: dict[str, Any]) -> RetryOptions:
    """Take the retry options out of a task's options."""
    names = [f.name for f in fields(RetryOptions)]
    taken = {name: options.pop(name) for name in names if name in options}
    for name in ("autoretry_for", "dont_autoretry_for"):
        if name in taken:
            taken[name] = (taken[name],) if isinstance(taken[name], type) else tuple(taken[name])
    return RetryOptions(**taken)
