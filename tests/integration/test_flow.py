"""Flow control with real workers: what tasks themselves see of limits, turns, locks, breakers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from taskq import DuplicateCall, QueueFull
from taskq.broker import call
from tests.support import SOAK, Start, Write, each_kind, survey, wait_until

JOBS = """
import random, threading
from taskq import Breaker, Limit, RateLimited
HERE = os.path.dirname(os.path.abspath(__file__))

def note(name, text):
    with open(os.path.join(HERE, name), "a") as file:
        file.write(f"{text}\\n")

@app.task(ignore_result=True, rate="50/s")
def rated():
    note("rated", time.time())

def most_at_once(name, seconds):
    # How many run, by the file that each of them has; that of a killed one does not count.
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    mine = os.path.join(folder, f"{os.getpid()}-{threading.get_ident()}-{random.random()}")
    open(mine, "w").close()
    try:
        running = [f for f in os.listdir(folder) if alive(f.split("-")[0])]
        note(name + "-seen", len(running))
        time.sleep(seconds)
    finally:
        os.unlink(mine)

def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

@app.task(max_concurrency=3)
def three(seconds=0.05):
    most_at_once("three", seconds)

@app.task(max_concurrency=3, pool="thread")
def three_threads(seconds=0.05):
    most_at_once("three_threads", seconds)

at_once = most = 0
@app.task(max_concurrency=3)
async def three_async(seconds=0.05):
    global at_once, most
    at_once += 1
    most = max(most, at_once)
    await asyncio.sleep(seconds)
    at_once -= 1
    return most

@app.task(max_concurrency=1, key="user")
def one_a_user(user, i):
    note("one_a_user", f"{user} {i}")
    most_at_once(f"user-{user}", 0.01)

@app.task(unique="until_done", unique_by="key")
def alone(key):
    most_at_once("alone", 0.002)
    return key

@app.task(unique="until_start", on_duplicate="raise")
def once(i):
    return i

@app.task
def told_to_wait(i, pause=0.0):
    note("told", f"{i} {time.time()}")
    if pause and not os.path.exists(os.path.join(HERE, "told-once")):
        note("told-once", i)
        raise RateLimited(retry_after=pause)
    return i

@app.task(dead_letter=False, breaker=Breaker(failures=0.5, of=4, pause=1.0))
def fragile(well):
    note("fragile", f"{time.time()} {well}")
    if not well:
        raise ValueError("no")

@app.task(debounce=0.5, unique_by="key")
def bounced(key, text):
    note("bounced", f"{key} {text}")
    return text

@app.task(throttle=60, unique_by="key")
def throttled(key, i):
    return i

@app.task(max_length=2)
def short(i):
    return i

@app.task(max_length=2, full_timeout=20)
def patient(i):
    return i

@app.task
def ranked(name):
    note("ranked", name)

@app.task(fair_by="tenant")
def fair(tenant, i):
    note("fair", f"{tenant} {i}")
"""


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def most_in(times: list[float], span: float) -> int:
    """The most of these times that lie within one span."""
    return max(sum(1 for t in times[i:] if t < first + span) for i, first in enumerate(times))


def size(module: ModuleType, name: str) -> int:
    """How many fields a hash has."""
    keys = module.app.client.keys
    return int(module.app.client.broker.run(call.Command(None, [b"HLEN", keys[name]], int)))


def test_a_rate_holds_for_all_processes_together(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """50 a second and a burst of 5, over six processes: never more in any second, by the tasks' own clocks."""
    module = jobs(JOBS)
    seconds = 20 if SOAK else 2
    module.rated.delay_many([()] * (50 * seconds + 60))
    for _ in range(3):
        start_worker("-c", "2", "-Q", "jobs.rated")

    wait_until(lambda: len(lines(tmp_path, "rated")) >= 50 * seconds, "they have started", seconds + 60)
    times = sorted(float(line) for line in lines(tmp_path, "rated"))[: 50 * seconds]

    # A task notes its time a little after it was let through, on a busy machine some more: what the first of a second
    # was late is what the last of it seems early.
    assert most_in(times, 1.0) <= 55 + (2 if SOAK else 15)
    assert times[-1] - times[0] >= (len(times) - 6) / 50 - 0.3
    if SOAK:
        assert len(times) >= 0.97 * 50 * (times[-1] - times[0])


@pytest.mark.parametrize("name", ["three", "three_threads"])
def test_never_more_run_at_once_than_have_slots(name: str, jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    results = getattr(module, name).delay_many([()] * 24)
    start_worker("-c", "6", "-Q", f"jobs.{name}")

    for result in results:
        result.get(timeout=30)

    seen = [int(line) for line in lines(tmp_path, name + "-seen")]
    assert (len(seen), max(seen)) == (24, 3)
    assert all(queue.balance == 0 for queue in survey(module.app).values())


def test_async_tasks_keep_to_their_slots(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    results = module.three_async.delay_many([()] * 15)
    start_worker("-c", "1", "-Q", "jobs.three_async")

    assert max(result.get(timeout=30) for result in results) == 3


def test_slots_of_killed_workers_come_back(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """Never four at once, as the tasks see it, and three again when what the dead held was recovered."""
    module = jobs(JOBS, settings="lease=2.0, max_crashes=50")
    results = module.three.delay_many([(0.05,)] * (200 if SOAK else 40))
    workers = [start_worker("-c", "3", "-Q", "jobs.three") for _ in range(2)]
    wait_until(lambda: len(lines(tmp_path, "three-seen")) >= 6, "some run")
    for _ in range(10 if SOAK else 3):
        before = len(lines(tmp_path, "three-seen"))
        for pid in (workers[0].children() or workers[1].children())[:2]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda b=before: len(lines(tmp_path, "three-seen")) >= b + 4, "they go on")
    workers[1].kill_group()

    for result in results:
        result.get(timeout=60)

    assert max(int(line) for line in lines(tmp_path, "three-seen")) == 3
    before = len(lines(tmp_path, "three-seen"))
    for result in module.three.delay_many([(0.05,)] * 30):  # which nothing befalls
        result.get(timeout=60)
    assert max(int(line) for line in lines(tmp_path, "three-seen")[before:]) == 3
    wait_until(lambda: size(module, "slots") == 0, "every slot is given back")
    assert all(queue.balance == 0 for queue in survey(module.app).values())


@each_kind
def test_a_keyed_limit_keeps_the_order_of_each_key(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    calls = [(user, i) for i in range(12) for user in ("ann", "bob", "cat")]
    results = module.one_a_user.delay_many(calls)
    start_worker("-c", "4", "-Q", "jobs.one_a_user")

    for result in results:
        result.get(timeout=30)

    for user in ("ann", "bob", "cat"):
        ran = [line for line in lines(tmp_path, "one_a_user") if line.startswith(user)]
        assert ran == [f"{user} {i}" for i in range(12)]
        assert set(lines(tmp_path, f"user-{user}-seen")) == {"1"}


CALLER = """
import os, sys
from jobs import alone
calls = 0
while calls < int(sys.argv[1]) or not os.path.exists("enough"):
    alone.delay("k")
    calls += 1
print(calls)
"""


def test_unique_work_is_one_message_at_a_time(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """Many processes call with one key, around worker kills: never two at once, and no lock is left behind."""
    module = jobs(JOBS, settings="lease=2.0, max_crashes=1000")
    processes, calls = (50, 200) if SOAK else (4, 60)
    workers = [start_worker("-c", "2", "-Q", "jobs.alone") for _ in range(2)]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    callers = [
        subprocess.Popen([sys.executable, "-c", CALLER, str(calls)], cwd=tmp_path, env=environ, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    wait_until(lambda: len(lines(tmp_path, "alone-seen")) >= 3, "some run", 60)
    for pid in workers[0].children():
        os.kill(pid, signal.SIGKILL)
    killed = len(lines(tmp_path, "alone-seen"))
    wait_until(lambda: len(lines(tmp_path, "alone-seen")) > killed + 2, "some run after that", 30)
    (tmp_path / "enough").touch()
    called = sum(int(caller.communicate(timeout=120)[0]) for caller in callers)

    def idle() -> bool:
        queue = survey(module.app)["jobs.alone"]
        return queue.pending + queue.suspects + queue.processing + queue.scheduled + queue.gated == 0

    wait_until(idle, "all of it ends", 60)
    assert set(lines(tmp_path, "alone-seen")) == {"1"}
    ledger = survey(module.app)["jobs.alone"]
    assert ledger.balance == 0
    assert ledger.counters["accepted"] < called
    assert size(module, "unique") == 0
    assert module.alone.delay("k").get(timeout=30) == "k"


def test_a_duplicate_is_the_first_or_an_error(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    first, other = module.alone.delay("a"), module.alone.delay("b")
    again = module.alone.delay("a")
    module.once.delay(1)
    with pytest.raises(DuplicateCall) as caught:
        module.once.delay(1)
    handle = module.app.AsyncResult(caught.value.task_id)
    start_worker("-c", "1")

    assert (again.id == first.id, other.id == first.id) == (True, False)
    assert (again.get(timeout=30), other.get(timeout=30), handle.get(timeout=30)) == ("a", "b", 1)
    assert module.once.delay(1).get(timeout=30) == 1


def test_a_task_that_was_told_to_wait_waits_in_every_worker(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    for _ in range(2):
        start_worker("-c", "1", "-Q", "jobs.told_to_wait")
    assert module.told_to_wait.delay(0).get(timeout=30) == 0
    first = module.told_to_wait.delay(1, 1.5)
    wait_until(lambda: survey(module.app)["jobs.told_to_wait"].counters.get("returned"), "it was told")
    others = module.told_to_wait.delay_many([(i,) for i in range(2, 8)])

    assert [result.get(timeout=30) for result in (first, *others)] == list(range(1, 8))

    noted = [line.split() for line in lines(tmp_path, "told")]
    begun, again = (float(when) for i, when in noted if i == "1")
    assert again - begun > 1.4
    assert all(float(when) - begun > 1.4 for i, when in noted if int(i) > 1)
    assert survey(module.app)["jobs.told_to_wait"].counters.get("retried", 0) == 0


def test_a_breaker_pauses_what_keeps_failing(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    """Four fail; a second later one is let through and fails; a second later one is well, and all follow."""
    module = jobs(JOBS)
    module.app.pause(module.fragile)
    results = module.fragile.delay_many([(False,)] * 5 + [(True,)] * 10)
    start_worker("-c", "1", "-Q", "jobs.fragile")
    module.app.resume(module.fragile)

    for result in results[5:]:
        result.get(timeout=30)

    noted = [line.split() for line in lines(tmp_path, "fragile")]
    assert [well for _, well in noted].count("False") == 5
    assert survey(module.app)["jobs.fragile"].counters["tripped"] == 1
    assert float(noted[-1][0]) - float(noted[0][0]) > 0.9


def test_debounced_and_throttled_calls_run_once(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    handles = [module.bounced.delay("k", str(i)) for i in range(5)]
    other = module.bounced.delay("other", "x")
    throttled = [module.throttled.delay("k", i) for i in range(3)]

    assert {handle.id for handle in handles} == {handles[0].id}
    assert handles[-1].get(timeout=30) == "4"
    assert other.get(timeout=30) == "x"
    assert sorted(lines(tmp_path, "bounced")) == ["k 4", "other x"]
    assert [handle.get(timeout=30) for handle in throttled] == [0, 0, 0]
    assert module.throttled.delay("k", 9).get(timeout=30) == 0


@each_kind
def test_a_full_queue_refuses_or_lets_the_caller_wait(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)

    async def one_more() -> None:
        try:
            await module.short.adelay(3)
        finally:
            await module.app.aclose()

    module.short.delay_many([1, 2])
    with pytest.raises(QueueFull, match=r"'jobs.short' has its max_length=2"):
        module.short.delay(3)
    with pytest.raises(QueueFull):
        asyncio.run(one_more())
    with pytest.raises(QueueFull, match="2 of 2 calls were refused"):
        module.short.delay_many([4, 5])
    module.patient.delay_many([1, 2])

    start_worker("-c", "1")

    async def four() -> list[int]:
        handles = [await module.patient.adelay(i) for i in range(4, 8)]
        values = [await handle.aget(timeout=30) for handle in handles]
        await module.app.aclose()
        return values

    async def many() -> list[int]:
        handles = await module.patient.adelay_many(range(20, 26))
        values = [await handle.aget(timeout=30) for handle in handles]
        await module.app.aclose()
        return values

    assert module.patient.delay(3).get(timeout=30) == 3
    assert asyncio.run(four()) == [4, 5, 6, 7]
    assert [handle.get(timeout=30) for handle in module.patient.delay_many(range(10, 16))] == list(range(10, 16))
    assert asyncio.run(many()) == list(range(20, 26))
    wait_until(lambda: survey(module.app)["jobs.short"].counters.get("done") == 2, "the others ran")
    assert module.short.delay(3).get(timeout=30) == 3


def test_higher_priorities_run_first(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    for i in range(3):
        for level in (0, 7, -7, 100):
            module.ranked.apply_async((f"{level} {i}",), priority=level)
    start_worker("-c", "1", "-Q", "jobs.ranked")

    wait_until(lambda: len(lines(tmp_path, "ranked")) == 12, "all ran")
    assert lines(tmp_path, "ranked") == [f"{level} {i}" for level in (100, 7, 0, -7) for i in range(3)]


def test_a_tenant_with_many_does_not_keep_others_waiting(jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(JOBS)
    module.fair.delay_many([("many", i) for i in range(300)])
    module.fair.delay_many([(tenant, i) for tenant in ("ann", "bob") for i in range(10)])
    start_worker("-c", "1", "-Q", "jobs.fair")

    wait_until(lambda: len(lines(tmp_path, "fair")) == 320, "all ran")
    ran = [line.split() for line in lines(tmp_path, "fair")]
    assert max(at for at, (tenant, _) in enumerate(ran) if tenant != "many") < 35
    for tenant in ("many", "ann", "bob"):
        numbers = [int(i) for name, i in ran if name == tenant]
        assert numbers == sorted(numbers)


def test_a_paused_task_runs_when_it_is_resumed_and_a_revoked_call_never(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    start_worker("-c", "1")
    assert module.alone.delay("first").get(timeout=30) == "first"
    assert module.app.pause(module.alone, "because")
    waiting, revoked = module.alone.delay("a"), module.alone.delay("b")

    assert module.app.revoke(revoked.id) == "revoked"
    assert revoked.state == "REVOKED"
    paused = survey(module.app)["jobs.alone"].paused
    assert paused is not None
    assert paused.reason == "because"
    assert module.once.delay(5).get(timeout=30) == 5, "others go on"
    assert waiting.state == "PENDING"
    assert module.app.resume(module.alone)
    assert waiting.get(timeout=30) == "a"
    assert survey(module.app)["jobs.alone"].counters["discarded"] == 1
