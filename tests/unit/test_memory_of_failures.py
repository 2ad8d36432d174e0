"""What a task held is freed as soon as it has failed, not when a collection comes by."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity

from taskq import RateLimited, TaskQ
from taskq.message.codec import pack_call
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.runs.context import Retry, Revoked
from taskq.runs.delivery import Delivery, Taken
from taskq.runs.execution import Executor

HELD: list[weakref.ref[Any]] = []


class Big:
    """Stands for a hundred megabytes."""


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    HELD.clear()
    gc.collect()
    gc.disable()
    logging.disable()  # pytest keeps what is logged, and with it the traceback
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


def hold_and_raise(make: Callable[[], BaseException]) -> None:
    big = Big()
    HELD.append(weakref.ref(big))
    raise make()


def chained() -> None:
    try:
        hold_and_raise(lambda: KeyError("first"))
    except KeyError as error:
        raise ValueError("second") from error


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


POLICIES: dict[str, dict[str, Any]] = {
    "none": {},
    "again": {"autoretry_for": (Exception,), "max_retries": 3},
    "given up": {"autoretry_for": (Exception,), "max_retries": 0},
    "not this": {"autoretry_for": (OSError,)},
    "tenacity": {"retry": tenacity.retry_if_exception_type(ValueError), "stop": tenacity.stop_after_attempt(1)},
    "values too": {"retry": tenacity.retry_if_result(bool) | tenacity.retry_if_exception_type(ValueError)},
    "broken": {"wait": lambda state: 1 / 0},
}
RAISED: dict[str, Any] = {
    "error": lambda: hold_and_raise(lambda: ValueError("x")),
    "chained": chained,
    "unprintable": lambda: hold_and_raise(lambda: Unprintable()),
    "rate limited": lambda: hold_and_raise(lambda: RateLimited(1)),
    "retry": lambda: hold_and_raise(lambda: Retry(None, None, None)),
    "retry with an error": lambda: hold_and_raise(lambda: Retry(ValueError("x"), 1.0, 0)),
    "revoked": lambda: hold_and_raise(lambda: Revoked()),
    "exit": lambda: hold_and_raise(lambda: SystemExit(1)),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("raised", RAISED)
def test_what_a_failed_task_held_is_freed_at_once(policy: str, raised: str) -> None:
    app = TaskQ("a", "redis://nowhere")

    @app.task(name="t", **POLICIES[policy])
    def task() -> None:
        RAISED[raised]()

    executor = Executor(app.tasks, app.settings, "w")
    value = encode_head("t", "q")
    value = value[:2] + bytes(8) + value[2:] + encode_envelope(b"an-id", {"sig": task.fingerprint}, pack_call((), {}))

    def deliver() -> None:
        delivery = Delivery(b"an-id", value, Taken(0.0, 0.0))
        assert executor.prepare(delivery) is None
        try:
            delivery.task.function()
        except BaseException as error:
            executor.failed(delivery, error)

    deliver()

    assert HELD
    assert [ref() for ref in HELD] == [None] * len(HELD)


def test_a_failed_handle_that_is_asked_again_and_again_does_not_grow() -> None:
    app = TaskQ("a", "redis://nowhere")

    @app.task
    def fails() -> None:
        raise ValueError

    handle = fails.apply()

    for _ in range(3):
        with pytest.raises(ValueError) as raised:
            handle.get()

    assert len(raised.traceback) <= 4
