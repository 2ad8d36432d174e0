"""The tenacity object of a task, of its retry options: tenacity's own objects, or what stands for Celery's names."""

from __future__ import annotations

from typing import Any

import tenacity

from taskq.tasks.retry_options import RetryOptions


def retrying_of(options: RetryOptions) -> tenacity.Retrying:
    """Make the object of these options."""
    return tenacity.Retrying(
        retry=_retry_for(options) if options.retry is None else options.retry,
        wait=_wait(options) if options.wait is None else options.wait,
        stop=_stop(options) if options.stop is None else options.stop,
        before_sleep=options.before_sleep,
        sleep=_never,
    )


def _retry_for(o: RetryOptions) -> tenacity.retry_base:
    if not o.autoretry_for and not o.dont_autoretry_for:
        return tenacity.retry_if_exception_type(Exception)
    wanted = o.autoretry_for or (Exception,)
    return tenacity.retry_if_exception(
        lambda error: isinstance(error, wanted) and not isinstance(error, o.dont_autoretry_for)
    )


def _wait(o: RetryOptions) -> tenacity.wait.wait_base:
    if not o.retry_backoff:
        return tenacity.wait_fixed(o.default_retry_delay)
    factor = 1.0 if o.retry_backoff is True else float(o.retry_backoff)
    kind = tenacity.wait_random_exponential if o.retry_jitter else tenacity.wait_exponential
    return kind(multiplier=factor, max=o.retry_backoff_max)


def _stop(o: RetryOptions) -> tenacity.stop.stop_base:
    most = o.max_retries
    return tenacity.stop_never if most is None else tenacity.stop_after_attempt(most + 1)


def _never(_seconds: float) -> None:
    raise AssertionError("a task's policy never sleeps")


def looks_at_values(strategy: Any) -> bool:
    """Say whether a ``retry=`` may ask for a retry of a run that returned a value."""
    asked = type(strategy).__call__
    if asked is tenacity.retry_any.__call__:
        return any(looks_at_values(part) for part in strategy.retries)
    if asked is tenacity.retry_all.__call__:
        return all(looks_at_values(part) for part in strategy.retries)
    return asked not in (tenacity.retry_if_exception.__call__, tenacity.retry_if_exception_cause_type.__call__)
