"""tenacity, object by object: a task of many messages decides as tenacity's own loop does over one call.

Each strategy is run twice over the same series of outcomes: by ``tenacity.Retrying`` with a clock and a sleep that take
no time, and by workers, each with an app of its own, that pass the call to one another as a stored message. What is
compared is every delay, and how it ended.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import logging
import operator
import random
import re
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
import tenacity

from taskq import ConfigError, TaskQ
from taskq.message.codec import unpack
from taskq.message.details import read_error_detail
from taskq.message.outcome import Again, Dead
from taskq.runs.delivery import Delivery, Taken
from taskq.runs.errors_as_text import type_name
from taskq.runs.execution import Executor

#: A strategy, made anew in each process.
Make = Callable[[], Any]
#: What the runs of a call do, one after the other: raise or return. The last goes on for ever.
Series = list[Any]

#: Runs after which a comparison ends, since some strategies never do.
MOST_RUNS = 7
#: Seconds that a run takes.
RUN = 1.5


class Clock:
    """The time, for tenacity and for the workers; server time is the same in ms, from another beginning."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    @property
    def server(self) -> float:
        return 1_700_000_000_000.0 + self.now * 1000

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that moves when it is told to, in place of `time.monotonic`."""
    clock = Clock()
    monkeypatch.setattr(logging.getLogger("taskq.task"), "disabled", True)  # thousands of runs
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    return clock


class EndOfTest(Exception):
    """Enough has been seen."""


def play(series: Series, number: int, clock: Clock) -> Any:
    """Be the run of this number; chance is the same each time that a run of this number is over."""
    clock.sleep(RUN)
    outcome = series[min(number, len(series)) - 1]
    random.seed(number)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def by_tenacity(options: dict[str, Make], series: Series, clock: Clock) -> list[Any]:
    """The delays, then how it ended: ("value", ...), ("error", its type) or ("refused", )."""
    story: list[Any] = []
    numbers = itertools.count(1)

    def sleep(seconds: float) -> None:
        story.append(seconds)
        clock.sleep(seconds)
        if len(story) == MOST_RUNS:
            raise EndOfTest

    made = {name: make() for name, make in options.items()}
    try:
        value = tenacity.Retrying(**made, sleep=sleep, reraise=True)(lambda: play(series, next(numbers), clock))
        return [*story, ("value", value)]
    except EndOfTest:
        return story
    except BaseException as error:
        refused = isinstance(error, tenacity.RetryError) and error not in series
        return [*story, ("refused",) if refused else ("error", type_name(error))]


def by_workers(options: dict[str, Make], series: Series, clock: Clock) -> list[Any]:
    """The same of a task; each run is in a process that knows nothing but the message."""
    story: list[Any] = []
    raw_id, value, _ = declare(options, series, clock).tasks["play"].call(0).message
    value = value[:2] + struct.pack(">d", clock.server) + value[2:]
    for _number in range(MOST_RUNS):
        app = declare(options, series, clock)
        executor = Executor(app.tasks, app.settings, "worker")
        delivery = Delivery(raw_id, value, Taken(clock.server, clock.now))
        assert executor.prepare(delivery) is None
        try:
            outcome = executor.succeeded(delivery, delivery.task.function(delivery.retries + 1))
        except BaseException as error:
            outcome = executor.failed(delivery, error)
        if isinstance(outcome, tuple):
            return [*story, ("value", unpack(outcome[1][1:]))]
        if isinstance(outcome, Dead):
            detail = read_error_detail(outcome.detail)
            refused = "still refuses the value" in detail["message"]
            return [*story, ("refused",) if refused else ("error", detail["type"])]
        assert isinstance(outcome, Again)
        story.append(outcome.delay)
        clock.sleep(outcome.delay)
        value = outcome.value
    return story


def declare(options: dict[str, Make], series: Series, clock: Clock) -> TaskQ:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    @app.task(name="play", **{name: make() for name, make in options.items()})
    def _(number: int) -> Any:
        return play(series, number, clock)

    return app


def compare(options: dict[str, Make], series: Series, clock: Clock) -> None:
    theirs, ours = by_tenacity(options, series, clock), by_workers(options, series, clock)
    rounded = [[round(step, 6) if isinstance(step, float) else step for step in story] for story in (theirs, ours)]
    assert rounded[1] == rounded[0], f"taskq (left), tenacity (right), for {series}"


# -- the objects ------------------------------------------------------------------------------------------------------

RETRY, STOP, WAIT, ASYNC = (
    importlib.import_module(f"tenacity.{name}") for name in ("retry", "stop", "wait", "asyncio.retry")
)

SET, QUIET = threading.Event(), threading.Event()
SET.set()


def caused() -> Exception:
    error = ValueError("outer")
    error.__cause__ = RuntimeError("between")
    error.__cause__.__cause__ = KeyError("inner")
    return error


def circle() -> Exception:
    error = ValueError("round")
    error.__cause__ = error
    return error


#: Outcomes that tell the ``retry_*`` apart.
SERIES: list[Series] = [
    [5],
    [None],
    [None, None, 5],
    [ValueError("no"), ValueError("other"), 5],
    [KeyError("k"), OSError("busy"), None, 5],
    [OSError("busy"), ValueError("no"), None, KeyError("k")],
    [ConnectionError("busy"), 0, 5],
    [caused(), 5],
    [circle(), 5],
    [tenacity.TryAgain(), None, 5],
    [SystemExit(3), 5],
    [tenacity.RetryError(tenacity.Future(1))],
]

#: Each strategy of tenacity by its name, in all the ways in which it can be made.
EXAMPLES: dict[str, list[Make]] = {
    "retry_always": [lambda: tenacity.retry_always],
    "retry_never": [lambda: tenacity.retry_never],
    "retry_if_exception": [lambda: tenacity.retry_if_exception(lambda error: "busy" in str(error))],
    "retry_if_exception_type": [
        lambda: tenacity.retry_if_exception_type(),
        lambda: tenacity.retry_if_exception_type(OSError),
        lambda: tenacity.retry_if_exception_type((KeyError, ValueError)),
        lambda: tenacity.retry_if_exception_type(BaseException),
    ],
    "retry_if_not_exception_type": [
        lambda: tenacity.retry_if_not_exception_type(),
        lambda: tenacity.retry_if_not_exception_type((OSError, SystemExit)),
    ],
    "retry_unless_exception_type": [
        lambda: tenacity.retry_unless_exception_type(),
        lambda: tenacity.retry_unless_exception_type(OSError),
    ],
    "retry_if_exception_cause_type": [
        lambda: tenacity.retry_if_exception_cause_type(),
        lambda: tenacity.retry_if_exception_cause_type(KeyError),
    ],
    "retry_if_exception_message": [
        lambda: tenacity.retry_if_exception_message("no"),
        lambda: tenacity.retry_if_exception_message(match="bu.y"),
        lambda: tenacity.retry_if_exception_message(match=re.compile("NO", re.IGNORECASE)),
    ],
    "retry_if_not_exception_message": [
        lambda: tenacity.retry_if_not_exception_message("no"),
        lambda: tenacity.retry_if_not_exception_message(match="bu.y"),
    ],
    "retry_if_result": [lambda: tenacity.retry_if_result(lambda value: value is None)],
    "retry_if_not_result": [lambda: tenacity.retry_if_not_result(lambda value: value == 5)],
    "retry_any": [
        lambda: tenacity.retry_any(),
        lambda: tenacity.retry_any(
            tenacity.retry_if_result(lambda v: not v), tenacity.retry_if_exception_type(OSError)
        ),
    ],
    "retry_all": [
        lambda: tenacity.retry_all(),
        lambda: tenacity.retry_all(tenacity.retry_if_exception_type(), lambda state: state.attempt_number < 3),
    ],
    "stop_never": [lambda: tenacity.stop_never],
    "stop_after_attempt": [lambda: tenacity.stop_after_attempt(1), lambda: tenacity.stop_after_attempt(4)],
    "stop_after_delay": [
        lambda: tenacity.stop_after_delay(1),
        lambda: tenacity.stop_after_delay(20),
        lambda: tenacity.stop_after_delay(timedelta(minutes=1)),
    ],
    "stop_before_delay": [lambda: tenacity.stop_before_delay(5), lambda: tenacity.stop_before_delay(20)],
    "stop_when_event_set": [lambda: tenacity.stop_when_event_set(SET), lambda: tenacity.stop_when_event_set(QUIET)],
    "stop_any": [
        lambda: tenacity.stop_any(),
        lambda: tenacity.stop_any(tenacity.stop_after_attempt(6), tenacity.stop_before_delay(40)),
    ],
    "stop_all": [
        lambda: tenacity.stop_all(),
        lambda: tenacity.stop_all(tenacity.stop_after_attempt(2), tenacity.stop_after_delay(40)),
    ],
    "wait_none": [lambda: tenacity.wait_none()],
    "wait_fixed": [lambda: tenacity.wait_fixed(7), lambda: tenacity.wait_fixed(timedelta(minutes=2))],
    "wait_random": [lambda: tenacity.wait_random(), lambda: tenacity.wait_random(2, 30)],
    "wait_incrementing": [
        lambda: tenacity.wait_incrementing(),
        lambda: tenacity.wait_incrementing(start=50, increment=-20),
        lambda: tenacity.wait_incrementing(start=1, increment=10, max=25),
    ],
    "wait_exponential": [
        lambda: tenacity.wait_exponential(),
        lambda: tenacity.wait_exponential(multiplier=0.5, exp_base=3, min=2, max=30),
        lambda: tenacity.wait_exponential(multiplier=0),
    ],
    "wait_random_exponential": [lambda: tenacity.wait_random_exponential(multiplier=2, max=20, min=1)],
    "wait_full_jitter": [lambda: tenacity.wait_full_jitter(max=4)],
    "wait_exponential_jitter": [
        lambda: tenacity.wait_exponential_jitter(),
        lambda: tenacity.wait_exponential_jitter(1, 60),
        lambda: tenacity.wait_exponential_jitter(max=20, jitter=5, min=2, multiplier=3),
    ],
    "wait_exception": [lambda: tenacity.wait_exception(lambda error: len(str(error)) * 2.0)],
    "wait_chain": [
        lambda: tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_random(5, 9), tenacity.wait_exponential()),
    ],
    "wait_combine": [
        lambda: tenacity.wait_combine(),
        lambda: tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_random(0, 5)),
        lambda: sum([tenacity.wait_fixed(1), tenacity.wait_exponential(), tenacity.wait_incrementing()]),
    ],
}

#: Functions in place of objects, which may look at all that tenacity's state has.
FUNCTIONS: dict[str, list[Make]] = {
    "retry": [
        lambda: lambda state: state.outcome.failed and state.idle_for < 10,
        lambda: lambda state: not state.outcome.failed and state.outcome.result() is None,
    ],
    "stop": [
        lambda: lambda state: state.seconds_since_start + state.upcoming_sleep + state.idle_for > 60,
        lambda: lambda state: state.retry_object.statistics["attempt_number"] > 2,
        lambda: lambda state: state.retry_object.statistics["idle_for"] > 20,
    ],
    "wait": [
        lambda: lambda state: state.attempt_number * 1.5,
        lambda: lambda state: max(1, state.upcoming_sleep * 3),  # the wait before this run
        lambda: lambda state: 1 + state.idle_for / 2 + state.seconds_since_start,
        lambda: lambda state: state.outcome_timestamp - state.start_time,
    ],
}


def names(module: ModuleType, kind: str) -> Iterator[str]:
    """The strategies of a module: its classes that can be made, and its objects."""
    base = getattr(module, f"{kind}_base")
    for name, found in vars(module).items():
        made = not isinstance(found, type) and isinstance(found, base)
        declared = isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)
        if (made or declared) and not name.startswith("_"):
            yield name


def test_each_strategy_of_tenacity_has_an_example() -> None:
    theirs = {
        name for module, kind in ((RETRY, "retry"), (STOP, "stop"), (WAIT, "wait")) for name in names(module, kind)
    }
    theirs |= {name for name in tenacity.__all__ if re.match("(retry|stop|wait)_(?!base)", name)}

    assert theirs <= EXAMPLES.keys(), "tenacity has more than it had: add an example to EXAMPLES"


def examples(kind: str) -> list[Any]:
    """The examples of a kind that the installed tenacity has."""
    found = [
        pytest.param(make, id=f"{name}-{number}")
        for name, makes in EXAMPLES.items()
        if name.startswith(f"{kind}_") and hasattr(tenacity, name)
        for number, make in enumerate(makes)
    ]
    return found + [pytest.param(make, id=f"function-{number}") for number, make in enumerate(FUNCTIONS[kind])]


FOUR_RUNS: dict[str, Make] = {"stop": lambda: tenacity.stop_after_attempt(4)}
A_WAIT: dict[str, Make] = {"wait": lambda: tenacity.wait_incrementing(1, 6)}


@pytest.mark.parametrize("retry", examples("retry"))
def test_the_same_outcomes_are_retried(retry: Make, clock: Clock) -> None:
    for series in SERIES:
        compare({"retry": retry, **A_WAIT, **FOUR_RUNS}, series, clock)


@pytest.mark.parametrize("stop", examples("stop"))
@pytest.mark.parametrize("series", [[OSError("busy")], [OSError("busy"), None]], ids=["fails", "is refused in the end"])
def test_retries_stop_at_the_same_run(stop: Make, series: Series, clock: Clock) -> None:
    retry: Make = lambda: tenacity.retry_if_exception_type() | tenacity.retry_if_result(lambda v: v is None)  # noqa: E731
    for wait in (lambda: tenacity.wait_fixed(8), *(example.values[0] for example in examples("wait")[:8])):
        compare({"retry": retry, "wait": wait, "stop": stop}, series, clock)


@pytest.mark.parametrize("wait", examples("wait"))
def test_each_delay_is_the_same(wait: Make, clock: Clock) -> None:
    compare({"wait": wait, "stop": lambda: tenacity.stop_never}, [OSError("busy"), ValueError("no")], clock)
    compare({"retry": lambda: tenacity.retry_always, "wait": wait, **FOUR_RUNS}, [KeyError(), None], clock)


@pytest.mark.parametrize("sign", [operator.and_, operator.or_])
@pytest.mark.parametrize("kind", ["retry", "stop"])
def test_operators_combine_any_two(kind: str, sign: Callable[[Any, Any], Any], clock: Clock) -> None:
    makes = [example.values[0] for example in examples(kind)]
    for one, other in itertools.product(makes[::3], makes[1::3]):
        if inspect.isfunction(one()) and (inspect.isfunction(other()) or kind == "stop"):
            continue  # a function has no operators, and stops have none for it
        both = {kind: lambda one=one, other=other: sign(one(), other())}
        compare({**A_WAIT, **FOUR_RUNS, **both}, SERIES[5] if kind == "retry" else [OSError("busy")], clock)


def test_waits_can_be_added_in_any_order(clock: Clock) -> None:
    makes = [example.values[0] for example in examples("wait")[: -len(FUNCTIONS["wait"])]]
    for one, other in itertools.product(makes[::2], makes[1::2]):
        compare({"wait": lambda one=one, other=other: one() + other(), **FOUR_RUNS}, [OSError("busy")], clock)


# -- the asynchronous ones --------------------------------------------------------------------------------------------


async def coroutine(*_args: object) -> bool:
    return True


@pytest.mark.parametrize("name", list(names(ASYNC, "retry")))
def test_those_that_are_awaited_are_refused(name: str) -> None:
    arguments = (coroutine,) if name.startswith("retry_if_") else (tenacity.retry_always,)

    with pytest.raises(ConfigError, match="is asynchronous"):
        TaskQ("unit").task(lambda: None, retry=getattr(ASYNC, name)(*arguments), name="t")


@pytest.mark.parametrize(
    "options",
    [
        {"retry": tenacity.retry_any(tenacity.retry_always, ASYNC.retry_if_exception(coroutine))},
        {"retry": tenacity.retry_if_result(coroutine) | tenacity.retry_never},
        {"retry": tenacity.retry_if_exception(coroutine)},
        {"wait": tenacity.wait_fixed(1) + coroutine},
        {"wait": tenacity.wait_chain(tenacity.wait_none(), tenacity.wait_exception(coroutine))},
        {"stop": tenacity.stop_never | tenacity.stop_any(coroutine)},
        {"before_sleep": coroutine},
    ],
)
def test_those_that_are_awaited_are_found_in_others_too(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is asynchronous, by <"):
        TaskQ("unit").task(lambda: None, **options, name="t")
