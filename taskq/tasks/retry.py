"""When a failed task runs again: tenacity's strategies, evaluated to a due time instead of slept through.

The policy of a task is a tenacity ``Retrying`` object, built from tenacity's own objects (``retry=``, ``wait=``,
``stop=``) or from Celery's names (``max_retries``, ``retry_backoff`` …). It is asked after each attempt, with a
``RetryCallState`` made for that; the answer is a delay, or to give up. Nothing here sleeps, reads a clock or talks to
the server.

Source: tenacity 9, ``BaseRetrying.iter``, which decides in the order retry, wait, stop, before_sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from taskq.config import LONGEST
from taskq.errors import ConfigError
from taskq.tasks.retry_options import RetryOptions

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying


class Attempt(NamedTuple):
    """What a policy is asked about.

    Attributes:
        number: 1 for the first run.
        elapsed: Seconds since the first run began, by the server's clock.
        idle_for: Seconds spent waiting between runs so far.
        slept: Seconds of that right before this run.
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
    slept: float = 0.0


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
        from taskq.tasks.strategies import retrying_of

        return retrying_of(self.options)

    @cached_property
    def looks_at_values(self) -> bool:
        """Whether a returned value may lead to a retry, so that successes must be judged as well."""
        if not self.options.automatic:
            return False
        from taskq.tasks.strategies import looks_at_values

        return looks_at_values(self.retrying.retry)

    def with_call_options(self, overrides: dict[str, Any]) -> Policy:
        """Return the policy with Celery's names replaced for one call; a given ``wait`` or ``stop`` then gives way."""
        return Policy(self.options.with_call_options(overrides))

    def decide(self, attempt: Attempt) -> RunAgain | GiveUp | None:
        """Say what follows an attempt: run again, give up, or nothing (the value is accepted)."""
        if attempt.error is not None and not self.options.automatic:
            return GiveUp(attempt.error)
        return self._ask(self.retrying.copy(), attempt)

    def asked(
        self, attempt: Attempt, countdown: float | None = None, max_retries: int | None = None
    ) -> RunAgain | GiveUp:
        """Say what follows a ``self.retry()``, whose own ``countdown`` and ``max_retries`` come before the policy's."""
        import tenacity

        changed: dict[str, Any] = {"retry": tenacity.retry_always}
        if countdown is not None:
            changed["wait"] = lambda _: countdown
        if max_retries is not None:
            changed["stop"] = tenacity.stop_after_attempt(max_retries + 1)
        return self._ask(self.retrying.copy(**changed), attempt) or GiveUp(attempt.error)

    def _ask(self, retrying: Retrying, attempt: Attempt) -> RunAgain | GiveUp | None:
        """Let a copy of the ``Retrying`` object, which nothing else uses, take the step that follows an attempt."""
        import tenacity

        state = _state(retrying, attempt)
        retrying.begin()
        retrying.statistics.update(attempt_number=attempt.number, idle_for=attempt.idle_for)
        try:
            step = retrying.iter(state)
            if not isinstance(step, tenacity.DoSleep):
                return None
            if not step < LONGEST:
                raise ConfigError(
                    f"wait= answered {float(step):g} s, not a time below {LONGEST:g} s: bound it, as by max="
                )
            return RunAgain(max(0.0, float(step)))
        except BaseException as error:
            if error is attempt.error:
                return GiveUp(error)
            if isinstance(error, tenacity.RetryError) and error.last_attempt is state.outcome:  # it was the last one
                error.with_traceback(None)  # its frames lead to itself, and it to the task's
                again = attempt.error if isinstance(attempt.error, tenacity.TryAgain) else None
                return GiveUp((again and (again.__cause__ or again.__context__)) or attempt.error)
            note = "(Raised by the retry policy of the task, which has therefore failed for good.)"
            # Its class may be a frozen dataclass, which has no attribute set.
            BaseException.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), note])
            BaseException.__setattr__(error, "__context__", error.__context__ or attempt.error)
            return GiveUp(error)


def _state(retrying: Retrying, attempt: Attempt) -> RetryCallState:
    import tenacity

    state = tenacity.RetryCallState(retrying, attempt.function, attempt.args, attempt.kwargs or {})
    state.attempt_number = attempt.number
    state.idle_for = attempt.idle_for
    state.upcoming_sleep = attempt.slept  # tenacity leaves it there, and a wait may look at it
    if attempt.error is not None:
        state.set_exception((type(attempt.error), attempt.error, attempt.error.__traceback__))
    else:
        state.set_result(attempt.value)
    # tenacity's clock is this process's; rebase it so that the elapsed time spans all attempts.
    state.start_time = (state.outcome_timestamp or 0.0) - attempt.elapsed
    return state
