"""The retry policy: tenacity's objects and Celery's names, asked for a due time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tenacity
from tenacity import (
    RetryCallState,
    TryAgain,
    retry_always,
    retry_if_exception,
    retry_if_exception_cause_type,
    retry_if_exception_message,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_if_not_result,
    retry_if_result,
    retry_never,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    stop_when_event_set,
    wait_chain,
    wait_combine,
    wait_exception,
    wait_exponential,
    wait_exponential_jitter,
    wait_fixed,
    wait_incrementing,
    wait_none,
    wait_random,
    wait_random_exponential,
)

from taskq import TaskQ
from taskq.errors import ConfigError
from taskq.tasks.retry import Attempt, GiveUp, Policy, RunAgain
from taskq.tasks.retry_options import RetryOptions, split_options

ERROR = ValueError("no")
Decision = RunAgain | GiveUp | None


def decide(
    policy: Policy, number: int = 1, error: BaseException | None = ERROR, value: Any = None, elapsed: float = 0.0
) -> Decision:
    return policy.decide(Attempt(number, elapsed, 0.0, error, value))


def policy(**options: Any) -> Policy:
    return Policy(split_options(options))


def delays(made: Policy, attempts: int) -> list[float]:
    """The delay after each attempt; the attempts must all be followed by another."""
    decisions = [decide(made, number) for number in range(1, attempts + 1)]
    assert all(isinstance(d, RunAgain) for d in decisions)
    return [d.delay for d in decisions if isinstance(d, RunAgain)]


# -- tenacity's wait_* ------------------------------------------------------------------------------------------------

WAITS: list[tuple[Any, list[float]]] = [
    (wait_none(), [0, 0, 0]),
    (wait_fixed(7), [7, 7, 7]),
    (wait_incrementing(start=1, increment=10), [1, 11, 21]),
    (wait_exponential(multiplier=2), [2, 4, 8]),
    (wait_exponential(multiplier=1, min=3, max=4), [3, 3, 4]),
    (wait_exponential_jitter(initial=1, jitter=0), [1, 2, 4]),
    (wait_chain(wait_fixed(1), wait_fixed(5)), [1, 5, 5]),
    (wait_combine(wait_fixed(1), wait_fixed(2)), [3, 3, 3]),
    (wait_fixed(1) + wait_incrementing(0, 1), [1, 2, 3]),
    (sum([wait_fixed(1), wait_fixed(2), wait_fixed(4)]), [7, 7, 7]),
    (wait_exception(lambda error: len(str(error)) * 2.0), [4, 4, 4]),
    (lambda state: state.attempt_number * 1.5, [1.5, 3, 4.5]),
]


@pytest.mark.parametrize(("wait", "expected"), WAITS)
def test_every_wait_becomes_a_delay(wait: Any, expected: list[float]) -> None:
    assert delays(policy(wait=wait, max_retries=None), 3) == expected


@pytest.mark.parametrize(
    ("wait", "low", "high"),
    [
        (wait_random(2, 3), 2, 3),
        (wait_random_exponential(multiplier=4, max=4), 0, 4),
        (wait_exponential_jitter(1, 60), 1, 2),
    ],
)
def test_a_wait_by_chance_stays_within_its_bounds(wait: Any, low: float, high: float) -> None:
    seen = [delays(policy(wait=wait), 1)[0] for _ in range(50)]

    assert min(seen) >= low
    assert max(seen) <= high
    assert len(set(seen)) > 1


@pytest.mark.parametrize(("answer", "delay"), [(0, 0.0), (-5, 0.0), (-math.inf, 0.0), (1e9, 1e9)])
def test_an_odd_wait_becomes_a_delay_that_works(answer: float, delay: float) -> None:
    assert decide(policy(wait=lambda _: answer)) == RunAgain(delay)


@pytest.mark.parametrize("answer", [math.inf, math.nan, 1e300, 10**400])
def test_to_wait_for_ever_is_to_give_up(answer: float) -> None:
    decision = decide(policy(wait=lambda _: answer))

    assert isinstance(decision, GiveUp)
    assert isinstance(decision.error, (ConfigError, OverflowError))
    assert decision.error.__context__ is ERROR


@pytest.mark.parametrize("part", ["wait", "stop", "retry", "before_sleep"])
def test_a_strategy_that_raises_gives_up_with_its_error(part: str) -> None:
    def broken(_state: RetryCallState) -> float:
        raise ZeroDivisionError(part)

    decision = decide(policy(**{"wait": wait_fixed(1), part: broken}))

    assert isinstance(decision, GiveUp)
    assert repr(decision.error) == repr(ZeroDivisionError(part))
    assert isinstance(decision.error, ZeroDivisionError)
    assert decision.error.__context__ is ERROR
    assert "retry policy" in decision.error.__notes__[0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), tenacity.TryAgain()])
def test_whatever_a_strategy_raises_only_the_task_fails(error: BaseException) -> None:
    def broken(_state: RetryCallState) -> float:
        raise error

    made = policy(wait=broken)

    assert decide(made) == GiveUp(error)
    assert made.asked(Attempt(1, 0.0, 0.0, ERROR)) == GiveUp(error)


def test_a_strategy_that_raises_the_tasks_own_error_lets_it_fail_with_it() -> None:
    def picky(state: RetryCallState) -> bool:
        assert state.outcome is not None
        return bool(state.outcome.result())

    assert decide(policy(retry=picky)) == GiveUp(ERROR)
    assert not hasattr(ERROR, "__notes__")


def test_a_strategy_may_call_the_same_task_here_and_now() -> None:
    depth: list[int] = []

    def nested(_state: RetryCallState) -> bool:
        depth.append(1)
        return len(depth) == 3 or decide(made) == RunAgain(1)

    made = policy(retry=nested, wait=wait_fixed(1))

    assert decide(made) == RunAgain(1)


# -- tenacity's stop_* ------------------------------------------------------------------------------------------------

EVENT, QUIET = threading.Event(), threading.Event()
EVENT.set()


@pytest.mark.parametrize(
    ("stop", "number", "elapsed", "again"),
    [
        (stop_never, 1000, 1e9, True),
        (stop_after_attempt(3), 2, 0, True),
        (stop_after_attempt(3), 3, 0, False),
        (stop_after_delay(60), 9, 59, True),
        (stop_after_delay(60), 1, 61, False),
        (stop_before_delay(60), 1, 40, True),
        (stop_before_delay(60), 1, 55, False),
        (stop_after_attempt(3) | stop_after_delay(60), 1, 61, False),
        (stop_after_attempt(3) | stop_after_delay(60), 3, 0, False),
        (stop_after_attempt(3) | stop_after_delay(60), 2, 59, True),
        (stop_after_attempt(3) & stop_after_delay(60), 3, 59, True),
        (stop_after_attempt(3) & stop_after_delay(60), 3, 61, False),
        (stop_when_event_set(QUIET), 1, 0, True),
        (stop_when_event_set(EVENT), 1, 0, False),
    ],
)
def test_every_stop_ends_the_retries_at_its_time(stop: Any, number: int, elapsed: float, again: bool) -> None:
    decision = decide(policy(wait=wait_fixed(10), stop=stop), number, elapsed=elapsed)

    assert decision == (RunAgain(10) if again else GiveUp(ERROR))


# -- tenacity's retry_* -----------------------------------------------------------------------------------------------


def caused() -> Exception:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    return error


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (retry_if_exception_type(ValueError), ERROR, True),
        (retry_if_exception_type((OSError, ValueError)), ERROR, True),
        (retry_if_exception_type(ValueError), KeyError(), False),
        (retry_if_not_exception_type(ValueError), ERROR, False),
        (retry_if_not_exception_type(ValueError), KeyError(), True),
        (retry_unless_exception_type(ValueError), ERROR, False),
        (retry_unless_exception_type(ValueError), KeyError(), True),
        (retry_if_exception(lambda error: str(error) == "no"), ERROR, True),
        (retry_if_exception_message("no"), ERROR, True),
        (retry_if_exception_message(match="n.x"), ERROR, False),
        (retry_if_not_exception_message("no"), ERROR, False),
        (retry_if_exception_cause_type(KeyError), caused(), True),
        (retry_if_exception_cause_type(KeyError), ERROR, False),
        (retry_always, ERROR, True),
        (retry_never, ERROR, False),
        (retry_if_exception_type(KeyError) | retry_if_exception_message("no"), ERROR, True),
        (retry_if_exception_type(KeyError) & retry_if_exception_message("no"), ERROR, False),
        (retry_if_exception_type(ValueError) & retry_if_exception_message("no"), ERROR, True),
        (retry_if_exception_type(KeyError) | retry_if_result(bool), ERROR, False),
        (lambda state: isinstance(state.outcome.exception(), ValueError), ERROR, True),
        (retry_if_exception_type(Exception), SystemExit(1), False),
        (retry_if_exception_type(BaseException), SystemExit(1), True),
    ],
)
def test_every_retry_says_which_errors_are_retried(retry: Any, error: BaseException, again: bool) -> None:
    decision = decide(policy(retry=retry, wait=wait_fixed(1)), error=error)

    assert decision == (RunAgain(1) if again else GiveUp(error))


@pytest.mark.parametrize(
    ("retry", "value", "again"),
    [
        (retry_if_result(lambda v: v is None), None, True),
        (retry_if_result(lambda v: v is None), 5, False),
        (retry_if_not_result(lambda v: v == 5), 5, False),
        (retry_if_not_result(lambda v: v == 5), 6, True),
        (retry_if_exception_type(ValueError) | retry_if_result(lambda v: v is None), None, True),
        (retry_if_exception_type(ValueError) | retry_if_result(lambda v: v is None), 5, False),
        (retry_if_result(bool) & retry_if_result(lambda v: v > 5), 7, True),
        (retry_if_result(bool) & retry_if_result(lambda v: v > 5), 3, False),
        (retry_always, 5, True),
        (retry_unless_exception_type(ValueError), 5, True),
        (retry_if_not_exception_message("no"), 5, True),
        (retry_if_exception_type(ValueError) | retry_unless_exception_type(OSError), 5, True),
        (lambda state: not state.outcome.failed, 5, True),
    ],
)
def test_a_policy_may_refuse_a_value(retry: Any, value: object, again: bool) -> None:
    made = policy(retry=retry, wait=wait_fixed(1), stop=stop_after_attempt(3))

    assert made.looks_at_values
    assert decide(made, error=None, value=value) == (RunAgain(1) if again else None)
    assert decide(made, 3, error=None, value=value) == (GiveUp(None) if again else None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_retries": 5},
        {"autoretry_for": ValueError},
        {"wait": wait_fixed(1)},
        {"retry": retry_if_exception_type(ValueError)},
        {"retry": retry_if_exception_type(ValueError) | retry_if_exception_message("x")},
        {"retry": retry_if_not_exception_type(ValueError) & retry_if_not_exception_message("x")},
        {"retry": retry_if_result(bool) & retry_if_exception_type()},
        {"retry": retry_if_exception_cause_type(ValueError)},
    ],
)
def test_where_values_cannot_matter_they_are_not_judged(options: dict[str, Any]) -> None:
    """Else every success would pay for it."""
    assert not policy(**options).looks_at_values


def test_to_raise_try_again_is_to_be_retried_whatever_the_policy_says_of_errors() -> None:
    made = policy(retry=retry_if_exception_type(OSError), wait=wait_fixed(3), stop=stop_after_attempt(2))
    again = TryAgain()

    assert decide(made, 1, again) == RunAgain(3)
    assert decide(made, 2, again) == GiveUp(again)


def test_a_retry_error_of_the_tasks_own_tenacity_is_an_error_like_any_other() -> None:
    error = tenacity.RetryError(tenacity.Future(1))

    decision = decide(policy(retry=retry_never), error=error)

    assert isinstance(decision, GiveUp)
    assert decision.error in (error, None)


def test_before_sleep_sees_the_attempt_and_is_called_only_before_another() -> None:
    seen: list[tuple[Any, ...]] = []

    def note(state: RetryCallState) -> None:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception(), state.upcoming_sleep, state.args, state.kwargs))

    made = policy(wait=wait_fixed(4), stop=stop_after_attempt(2), before_sleep=note)
    made.decide(Attempt(1, 5.0, 2.0, ERROR, None, len, (1,), {"a": 2}))
    made.decide(Attempt(2, 9.0, 6.0, ERROR, None, len, (1,), {"a": 2}))

    assert seen == [(1, ERROR, 4, (1,), {"a": 2})]


def test_a_strategy_sees_time_over_all_attempts() -> None:
    seen: list[tuple[float | None, float, int]] = []

    def look(state: RetryCallState) -> float:
        seen.append((state.seconds_since_start, state.idle_for, state.attempt_number))
        return 1.0

    policy(wait=look).decide(Attempt(4, 123.0, 100.0, ERROR))

    assert seen == [(pytest.approx(123, abs=0.1), 100.0, 4)]


def test_a_policy_keeps_nothing_between_attempts() -> None:
    made = policy(wait=wait_exponential(), stop=stop_after_attempt(3))

    first = [decide(made, number) for number in (1, 2, 3)]
    again = [decide(made, number) for number in (3, 1, 2)]

    assert again == [first[2], first[0], first[1]]


# -- Celery's names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ERROR, KeyError(), SystemExit()])
def test_without_any_policy_a_failure_is_final(error: BaseException) -> None:
    assert decide(policy(), error=error) == GiveUp(error)
    assert decide(policy(max_retries=9, default_retry_delay=1), error=error) == GiveUp(error)


def test_autoretry_for_names_what_is_retried_three_times_after_three_minutes() -> None:
    made = policy(autoretry_for=(OSError, ValueError))

    assert [decide(made, number) for number in (1, 3, 4)] == [RunAgain(180), RunAgain(180), GiveUp(ERROR)]
    other = KeyError()
    assert decide(made, error=other) == GiveUp(other)


def test_dont_autoretry_for_takes_some_of_them_out() -> None:
    made = policy(autoretry_for=LookupError, dont_autoretry_for=[KeyError])
    key_error, index_error = KeyError(), IndexError()

    assert decide(made, error=index_error) == RunAgain(180)
    assert decide(made, error=key_error) == GiveUp(key_error)


@pytest.mark.parametrize(("limit", "last"), [(0, 1), (1, 2), (5, 6)])
def test_max_retries_counts_what_follows_the_first_run(limit: int, last: int) -> None:
    made = policy(autoretry_for=ValueError, max_retries=limit)

    assert decide(made, last) == GiveUp(ERROR)
    assert last == 1 or decide(made, last - 1) == RunAgain(180)


def test_max_retries_none_is_no_limit() -> None:
    assert decide(policy(autoretry_for=ValueError, max_retries=None), 10_000) == RunAgain(180)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"retry_backoff": True}, [1, 2, 4, 8]),
        ({"retry_backoff": 5}, [5, 10, 20, 40]),
        ({"retry_backoff": 0.5}, [0.5, 1, 2, 4]),
        ({"retry_backoff": 5, "retry_backoff_max": 15}, [5, 10, 15, 15]),
        ({"default_retry_delay": 7}, [7, 7, 7, 7]),
    ],
)
def test_backoff_doubles_up_to_its_maximum(options: dict[str, Any], expected: list[float]) -> None:
    made = policy(autoretry_for=ValueError, max_retries=9, retry_jitter=False, **options)

    assert delays(made, 4) == expected


def test_jitter_spreads_a_backoff_below_its_bound() -> None:
    made = policy(autoretry_for=ValueError, max_retries=9, retry_backoff=10)

    seen = [delays(made, 3) for _ in range(100)]

    for number, bound in enumerate((10, 20, 40)):
        assert all(0 <= delay[number] <= bound for delay in seen)
    assert max(delay[2] for delay in seen) > 20


def test_celerys_names_go_together_with_tenacitys_objects() -> None:
    made = policy(autoretry_for=ValueError, wait=wait_fixed(2), max_retries=1)

    assert [decide(made, number) for number in (1, 2)] == [RunAgain(2), GiveUp(ERROR)]


# -- one call's own options -------------------------------------------------------------------------------------------


def test_a_call_may_replace_the_limit() -> None:
    made = policy(autoretry_for=ValueError, stop=stop_never, wait=wait_fixed(2)).with_call_options({"max_retries": 1})

    assert [decide(made, number) for number in (1, 2)] == [RunAgain(2), GiveUp(ERROR)]


def test_a_call_may_replace_the_wait() -> None:
    overrides = {"retry_backoff": 3, "retry_jitter": False}
    made = policy(autoretry_for=ValueError, wait=wait_fixed(2)).with_call_options(overrides)

    assert delays(made, 3) == [3, 6, 12]


def test_other_words_of_a_call_change_nothing_and_the_task_keeps_its_own() -> None:
    own = policy(autoretry_for=ValueError, max_retries=1)

    assert own.with_call_options({"new_in_a_later_version": 1}).options == own.options
    own.with_call_options({"max_retries": 9})
    assert own.options.max_retries == 1


@pytest.mark.parametrize("overrides", [{"max_retries": -1}, {"retry_backoff": "x"}, {"default_retry_delay": math.inf}])
def test_a_call_cannot_ask_for_what_cannot_work(overrides: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        policy().with_call_options(overrides)


@pytest.mark.parametrize("options", [{"stop": stop_after_attempt(3)}, {"wait": wait_fixed(1)}])
@pytest.mark.parametrize("overrides", [{"max_retries": 5}, {"default_retry_delay": 1}])
def test_a_call_that_replaces_the_only_object_of_a_policy_is_retried_as_before(
    options: dict[str, Any], overrides: dict[str, Any]
) -> None:
    made = policy(**options).with_call_options(overrides)

    assert isinstance(decide(made), RunAgain)
    assert isinstance(decide(made, error=SystemExit()), GiveUp)


# -- self.retry() -----------------------------------------------------------------------------------------------------


def asked(made: Policy, number: int, elapsed: float = 0.0, **request: Any) -> RunAgain | GiveUp:
    return made.asked(Attempt(number, elapsed, 0.0, ERROR), **request)


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        ({}, 180),
        ({"default_retry_delay": 4}, 4),
        ({"retry_backoff": 2, "retry_jitter": False}, 8),
        ({"wait": wait_incrementing(1, 10)}, 21),
        ({"wait": lambda _: -1}, 0),
        ({"retry": retry_never}, 180),
    ],
)
def test_a_task_that_asks_for_a_retry_waits_as_its_policy_says(options: dict[str, Any], delay: float) -> None:
    assert asked(policy(**options), 3) == RunAgain(delay)
    assert asked(policy(**options), 3, countdown=7) == RunAgain(7)


@pytest.mark.parametrize(("options", "runs"), [({}, 4), ({"max_retries": 1}, 2), ({"stop": stop_after_attempt(6)}, 6)])
def test_what_bounds_retries_bounds_those_a_task_asks_for(options: dict[str, Any], runs: int) -> None:
    made = policy(**options)

    assert isinstance(asked(made, runs - 1), RunAgain)
    assert asked(made, runs) == GiveUp(ERROR)
    assert isinstance(asked(made, runs, max_retries=runs), RunAgain)
    assert asked(made, 1, max_retries=0) == GiveUp(ERROR)


def test_max_retries_none_lets_a_task_ask_for_ever() -> None:
    assert asked(policy(max_retries=None), 10_000) == RunAgain(180)


def test_a_stop_sees_the_wait_a_task_asks_for() -> None:
    made = policy(stop=stop_before_delay(60), wait=wait_fixed(1))

    assert asked(made, 1, 30.0) == RunAgain(1)
    assert asked(made, 1, 30.0, countdown=40) == GiveUp(ERROR)


def test_before_sleep_is_called_when_a_task_asks_too() -> None:
    seen: list[tuple[Any, ...]] = []
    note = lambda state: seen.append((state.attempt_number, state.upcoming_sleep, state.outcome.exception()))  # noqa: E731

    asked(policy(before_sleep=note), 2, countdown=5)

    assert seen == [(2, 5, ERROR)]


# -- refusals at the declaration --------------------------------------------------------------------------------------


async def asynchronous(_state: RetryCallState) -> bool:
    return True


class AsyncStrategy:
    async def __call__(self, _state: RetryCallState) -> bool:
        return True


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_retries": -1}, "max_retries must be None"),
        ({"max_retries": 2.5}, "max_retries must be None"),
        ({"max_retries": True}, "max_retries must be None"),
        ({"retry_backoff": -1}, "retry_backoff must be"),
        ({"retry_backoff": math.nan}, "retry_backoff must be"),
        ({"retry_backoff_max": math.inf}, "retry_backoff_max must be"),
        ({"retry_backoff_max": 1e300}, "from 0, below 1e\\+10"),
        ({"default_retry_delay": "5"}, "default_retry_delay must be"),
        ({"autoretry_for": ("ValueError",)}, "takes exception classes"),
        ({"autoretry_for": int}, "takes exception classes"),
        ({"autoretry_for": "ValueError"}, "takes exception classes, not 'ValueError'"),
        ({"dont_autoretry_for": [ValueError()]}, "takes exception classes"),
        ({"retry": 5}, "retry= takes one of tenacity's retry_"),
        ({"wait": 5}, "such as wait_fixed"),
        ({"stop": "never"}, "such as stop_after_attempt"),
        ({"retry": OSError}, "such as retry_if_exception_type"),
        ({"retry": retry_if_exception_type}, "such as retry_if_exception_type"),
        ({"retry": tenacity.Retrying(wait=wait_none())}, "such as retry_if_exception_type"),
        ({"retry": stop_never}, "such as retry_if_exception_type"),
        ({"wait": retry_always}, "such as wait_fixed"),
        ({"stop": wait_none()}, "such as stop_after_attempt"),
        ({"before_sleep": 5}, "such as before_sleep_log"),
        ({"retry": asynchronous}, "is asynchronous"),
        ({"wait": AsyncStrategy()}, "is asynchronous"),
        ({"retry": retry_always, "autoretry_for": ValueError}, "give either retry= or autoretry_for="),
        ({"retry": retry_always, "dont_autoretry_for": ValueError}, "give either retry= or dont_autoretry_for="),
        ({"wait": wait_none(), "retry_backoff": True}, "give either wait= or retry_backoff="),
        ({"wait": wait_none(), "retry_backoff_max": 5}, "give either wait= or retry_backoff_max="),
        ({"wait": wait_none(), "retry_jitter": True}, "give either wait= or retry_jitter="),
        ({"wait": wait_none(), "default_retry_delay": 0}, "give either wait= or default_retry_delay="),
        ({"stop": stop_never, "max_retries": 5}, r"both together is stop=stop_after_attempt\(1 \+ max_retries\)"),
        ({"retry_jitter": "no"}, "retry_jitter must be True or False"),
        ({"before": print}, "no option before: put what must happen"),
        ({"after": print}, "no option after: "),
        ({"retry_error_callback": print}, "no option retry_error_callback: a task whose last try fails"),
        ({"reraise": True}, "no option reraise: a task always fails with its own error"),
        ({"retry_kwargs": {"max_retries": 5}}, "no option retry_kwargs: write max_retries="),
    ],
)
def test_what_could_only_fail_in_a_worker_is_refused_at_the_declaration(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        split_options(options)


def test_a_refusal_names_the_task() -> None:
    def charge() -> None: ...

    with pytest.raises(ConfigError, match=r"test_retry\.test_a_refusal.*charge: max_retries must be"):
        TaskQ("unit").task(charge, max_retries=-1)


def test_to_say_nothing_by_the_one_name_goes_with_the_other() -> None:
    split_options({"retry": retry_always, "autoretry_for": ()})
    split_options({"wait": wait_none(), "retry_backoff": False, "retry_jitter": False})
    split_options({"stop": stop_after_delay(60), "max_retries": None})
    split_options({"stop": None, "wait": None, "retry": None, "max_retries": 1, "retry_backoff": 1})


def test_the_retry_options_are_taken_out_of_a_tasks_options() -> None:
    options: dict[str, Any] = {"name": "n", "max_retries": 1, "autoretry_for": ValueError}

    assert split_options(options) == RetryOptions(max_retries=1, autoretry_for=(ValueError,))
    assert options == {"name": "n"}


def test_a_task_never_sleeps_out_a_backoff() -> None:
    sleep: Callable[[float], None] = policy(wait=wait_fixed(3600)).retrying.sleep

    with pytest.raises(AssertionError):
        sleep(1)
