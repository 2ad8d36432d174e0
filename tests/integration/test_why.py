"""Why a call does not run, asked of its handle while real workers are at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.support import Worker, wait_until

JOBS = """
@app.task(autoretry_for=(ValueError,), max_retries=5, default_retry_delay=60)
def flaky():
    raise ValueError("the provider is down")

@app.task(bind=True)
def asks(self):
    self.retry(exc=KeyError("not yet"), countdown=60, max_retries=7)

@app.task
def lasting():
    time.sleep(60)

@app.task
def quick():
    pass
"""


@pytest.fixture
def module(jobs: Callable[..., ModuleType]) -> ModuleType:
    return jobs(JOBS)


def test_a_handle_says_why_its_call_does_not_run(module: ModuleType, start_worker: Callable[..., Worker]) -> None:
    flaky, asks, lasting = module.flaky.delay(), module.asks.delay(), module.lasting.delay()
    assert flaky.why().startswith("No live worker serves queue jobs.flaky")

    start_worker("-c", "3", "-n", "crew")

    wait_until(lambda: "retry" in flaky.why(), "it has failed once")
    assert flaky.why().startswith("It waits for retry 1 of 5, due ")
    assert flaky.why().endswith(", after ValueError: the provider is down.")
    wait_until(lambda: "retry 1 of 7" in asks.why(), "it has asked to be retried")
    wait_until(lambda: "It runs" in lasting.why(), "it runs")
    assert lasting.why().startswith("It runs in worker crew, child ")
    ended = module.quick.delay()
    ended.get(timeout=30)
    assert ended.why() == "It has ended: the task has returned."
    module.app.pause(module.quick, "for a while", author="ann")
    waiting = module.quick.delay()

    async def ask() -> str:
        text = await waiting.awhy()
        await module.app.aclose()
        return text  # type: ignore[no-any-return]

    assert asyncio.run(ask()).endswith("ago by ann, until it is resumed: for a while.")
