"""A task called here runs in a worker there, and its result comes back."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from taskq import AsyncResult, BrokerUnavailable, ResultTimeout, TaskError, TaskRevoked, UnknownResult
from taskq.broker.call import Command
from tests.support import Server, Start, Write, each_kind, new_app, survey, wait_until

JOBS = """
@app.task
def add(a, b=2):
    return a + b

@app.task
async def wait(seconds, value=None):
    await asyncio.sleep(seconds)
    return value

@app.task
def fail(text):
    raise KeyError(text)

@app.task(bind=True)
def look(self, *args, **kwargs):
    return self.request

@app.task(bind=True)
def describe(self, x):
    r = self.request
    return [r.id, r.task, r.args, r.kwargs, r.retries, r.crashes, r.queue, r.headers, r.eta]

@app.task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05)
def flaky():
    raise ValueError("again")

@app.task(bind=True, default_retry_delay=0.05)
def asks(self):
    if self.request.retries < 2:
        self.retry(exc=ValueError("not yet"))
    return self.request.retries

@app.task(ignore_result=True)
def quiet():
    pass

@app.task
def unwritable():
    return object()

@app.task
def leave(kind):
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "memory": MemoryError()}[kind]

class Strange(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")
    def __reduce__(self):
        raise RuntimeError("no pickle either")

@app.task
def strange():
    raise Strange()

@app.task
def inner_get():
    add.delay(1).get()
"""


@each_kind
def test_values_errors_and_states_come_back(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    waiting = module.add.delay(1)
    assert waiting.state == "PENDING"
    start_worker("-c", "2")

    assert module.add.delay(1, b=2).get(timeout=30) == 3
    assert waiting.get(timeout=30) == 3
    assert waiting.state == "SUCCESS"
    failed = module.fail.delay("gone")
    with pytest.raises(KeyError, match="gone") as caught:
        failed.get(timeout=30)
    assert isinstance(caught.value, TaskError)
    assert "raise KeyError(text)" in caught.value.traceback
    assert "taskq" not in caught.value.traceback.split("KeyError")[0]
    assert failed.state == "FAILURE"
    assert failed.failed()
    assert failed.traceback == caught.value.traceback
    assert isinstance(failed.get(propagate=False), TaskError)


def test_a_running_task_is_started_and_an_unknown_id_is_unknown(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1", "-n", "w1")
    running = module.wait.delay(30)

    wait_until(lambda: running.state == "STARTED", "it runs")
    status = running.status()
    assert status.worker == "w1"
    assert status.since is not None
    with pytest.raises(ResultTimeout):
        running.get(timeout=0.1)
    unknown = module.app.AsyncResult("never-sent")
    assert unknown.state == "UNKNOWN"
    with pytest.raises(UnknownResult, match="never-sent"):
        unknown.get(timeout=5)


def test_a_bound_task_sees_its_request(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    eta = datetime.now(timezone.utc) - timedelta(seconds=5)

    result = module.describe.apply_async((7,), task_id="mine", headers={"who": ("a", 1)}, eta=eta)

    got = result.get(timeout=30)
    assert got[:7] == ["mine", "jobs.describe", (7,), {}, 0, 0, "jobs.describe"]
    assert got[7] == {"who": ("a", 1)}
    assert abs(got[8] - eta) < timedelta(milliseconds=2)


def test_retries_by_policy_and_by_hand(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    by_hand = module.asks.delay()
    by_policy = module.flaky.delay()

    assert by_hand.get(timeout=30) == 2
    with pytest.raises(ValueError, match="again"):
        by_policy.get(timeout=30)
    ledger = survey(module.app)["jobs.flaky"]
    assert ledger.counters["retried"] == 2
    assert ledger.dead == 1
    assert ledger.balance == 0


@pytest.mark.parametrize("name", ["exit", "interrupt", "memory"])
def test_a_task_cannot_end_its_worker(name: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    worker = start_worker("-c", "1")
    wait_until(worker.children, "a child runs")
    child = worker.children()

    failed = module.leave.delay(name).get(timeout=10, propagate=False)

    assert isinstance(failed, TaskError)
    assert failed.type in ("SystemExit", "KeyboardInterrupt", "MemoryError")
    assert worker.children() == child


def test_strange_exceptions_and_results_fail_the_task_only(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    with pytest.raises(TaskError, match=r"__str__ raised"):
        module.strange.delay().get(timeout=30)
    with pytest.raises(TaskError, match="cannot serialise"):
        module.unwritable.delay().get(timeout=30)
    with pytest.raises(TaskError, match=r"WouldDeadlock.*slot"):
        module.inner_get.delay().get(timeout=30)
    assert module.add.delay(1).get(timeout=30) == 3


def test_coroutines_run_side_by_side(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    barrier = [module.wait.delay(0.5, i) for i in range(60)]

    assert [result.get(timeout=30) for result in barrier] == list(range(60))
    started = {module.app.AsyncResult(result.id).state for result in barrier}
    assert started == {"SUCCESS"}


def test_the_async_twins(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")

    async def use() -> list[int]:
        first: AsyncResult[int] = await module.add.adelay(1)
        second = await module.add.aapply_async((2,), task_id="two")
        many = await module.add.adelay_many([(i,) for i in range(20)])
        values = await asyncio.gather(*(r.aget(timeout=30) for r in [first, second, *many]))
        assert (await second.astatus()).state == "SUCCESS"
        with pytest.raises(ResultTimeout):
            await (await module.wait.adelay(30)).aget(timeout=0.05)
        await module.app.aclose()
        return values

    assert asyncio.run(use()) == [3, 4, *range(2, 22)]


def test_many_calls_of_many_tasks_in_few_round_trips(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "2")

    results = module.app.enqueue_many(
        call for i in range(700) for call in (module.add.call(i), module.wait.prepare_call((0, i), countdown=0.01))
    )

    assert [r.get(timeout=30) for r in results] == [value for i in range(700) for value in (i + 2, i)]


def test_an_async_generator_is_read_as_its_calls_are_sent(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    accepted: list[int] = []

    async def arguments() -> AsyncIterator[tuple[int]]:
        for i in range(1300):
            if i % 100 == 0:
                found = survey(module.app).get("jobs.add")
                accepted.append(found.counters["accepted"] if found else 0)
            yield (i,)

    async def use() -> list[AsyncResult[int]]:
        results = await module.add.adelay_many(arguments())
        results += await module.app.aenqueue_many(module.add.call(i) async for (i,) in arguments())
        assert await module.add.adelay_many([]) == []
        await module.app.aclose()
        return results

    results = asyncio.run(use())

    assert accepted[4:7] == [0, 500, 500], "a chunk is sent before the next is asked for"
    start_worker("-c", "1")
    assert [result.get(timeout=30) for result in results] == [i + 2 for i in range(1300)] * 2


def test_ignored_results_say_so(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    result = module.quiet.delay()

    with pytest.raises(UnknownResult, match="ignore_result"):
        result.get(timeout=5)
    wait_until(lambda: survey(module.app)["jobs.quiet"].counters.get("done") == 1, "it ran")
    assert result.state == "UNKNOWN"
    kept = module.quiet.apply_async(ignore_result=False)
    assert kept.get(timeout=30) is None


def test_an_expired_message_is_discarded_with_its_reason(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    expired = module.add.apply_async((1,), expires=0.001)
    start_worker("-c", "1")

    with pytest.raises(TaskRevoked, match="expired"):
        expired.get(timeout=30)
    assert expired.state == "REVOKED"
    assert survey(module.app)["jobs.add"].counters["discarded"] == 1


def test_one_inbox_serves_threads(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "2")
    values: dict[int, int] = {}

    def call(i: int) -> None:
        values[i] = module.wait.delay(0.05, i).get(timeout=30)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == {i: i for i in range(40)}


def test_a_forked_process_has_connections_of_its_own(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    assert module.add.delay(1).get(timeout=30) == 3

    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(write_end, str(sum(module.add.delay(i).get(timeout=30) for i in range(5))).encode())
            status = 0
        finally:
            os._exit(status)
    assert [module.add.delay(i).get(timeout=30) for i in range(5)] == [2, 3, 4, 5, 6]
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read_end, 100) == b"20"


def test_a_queue_nobody_serves_is_warned_of(jobs: Write, caplog: pytest.LogCaptureFixture) -> None:
    module = jobs(JOBS)

    module.add.apply_async((1,), queue="nowhere")
    module.add.apply_async((1,), queue="nowhere")

    assert [r.message for r in caplog.records if "nowhere" in r.message] == [
        "no live worker serves the queue 'nowhere'; start one with: taskq worker -A ... -Q nowhere"
    ]


def test_a_server_that_is_not_there_is_unavailable() -> None:
    app = new_app("redis://127.0.0.1:1", send_timeout=0.3)

    @app.task
    def nothing() -> None: ...

    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        nothing.delay()


def test_drain_ends_when_the_queues_are_empty(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    results = module.add.delay_many(range(500))

    worker = start_worker("-c", "2", "--drain")

    assert worker.process.wait(20) == 0, worker.log
    assert sum(r.get(timeout=1) for r in results) == sum(range(500)) + 1000


def test_a_task_unknown_here_waits_for_a_worker_that_knows_it(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS + "\n@app.task(queue='jobs.add')\ndef newer(x):\n    return x * 2\n")
    from_newer_code = module.newer.delay(21)
    jobs_file = Path(module.__file__ or "")
    newer_source = jobs_file.read_text()
    jobs_file.write_text(newer_source[: newer_source.index("\n@app.task(queue=")])
    older = start_worker("-c", "1")
    wait_until(lambda: "does not know" in older.log, "the older worker has seen it")
    assert from_newer_code.status().state in ("PENDING", "STARTED")
    older.stop()

    jobs_file.write_text(newer_source)
    start_worker("-c", "1")

    assert from_newer_code.get(timeout=30) == 42


def test_a_thousand_coroutines_share_few_connections(jobs: Write, start_worker: Start, own_server: Server) -> None:
    module = jobs(JOBS, url=own_server.url)
    start_worker("-c", "1", url=own_server.url)
    seen: list[int] = []

    async def call(n: int) -> int:
        result = await module.add.adelay(n, 1)
        value: int = await result.aget(timeout=30)
        if n % 100 == 0:
            seen.append(len(await module.app.client.abroker.run(_clients())))
        return value

    async def main() -> list[int]:
        try:
            return await asyncio.gather(*(call(n) for n in range(1000)))
        finally:
            await module.app.aclose()

    assert asyncio.run(main()) == [n + 1 for n in range(1000)]
    assert max(seen) < 40, "16 to call on, one to read the results; those of the worker"


def _clients() -> Command[list[bytes]]:
    return Command(None, [b"CLIENT", b"LIST"], lambda reply: reply.splitlines())
