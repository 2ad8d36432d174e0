"""Workers stopped beyond their lease (SIGSTOP, a paused machine): when they wake, nothing they say has an effect."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.faults.fleet import JOBS, Fleet, Journal, check_idle, nap, raw, wait_until_idle
from tests.support import SEED, SOAK, Server, Start, Write, survey, wait_until

# A first run of a message waits for the file `go`; a later one does not.
ENDS = (
    JOBS
    + """
HERE = os.path.dirname(os.path.abspath(__file__))

def first(i):
    note("start", i)
    try:
        os.close(os.open(os.path.join(HERE, f"first-{i}"), os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False

def wait(i):
    if first(i):
        while not os.path.exists(os.path.join(HERE, "go")):
            time.sleep(0.01)
        note("end", i)
        return "late"
    return "in time"

async def await_(i):
    if first(i):
        while not os.path.exists(os.path.join(HERE, "go")):
            await asyncio.sleep(0.01)
        note("end", i)
        return "late"
    return "in time"

def fail(said):
    if said == "late":
        raise KeyError("late")
    return said

@app.task
def returns(i):
    return wait(i)

@app.task
def fails(i):
    return fail(wait(i))

@app.task(autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=1)
def retries(i):
    return fail(wait(i))

@app.task(dead_letter=False)
def fails_quietly(i):
    return fail(wait(i))

@app.task(pool="thread")
def returns_in_a_thread(i):
    return wait(i)

@app.task(pool="thread", autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=1)
def retries_in_a_thread(i):
    return fail(wait(i))

@app.task
async def areturns(i):
    return await await_(i)

@app.task
async def afails(i):
    return fail(await await_(i))

@app.task(autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=1)
async def aretries(i):
    return fail(await await_(i))
"""
)
SYNC = ["returns", "fails", "retries", "fails_quietly"]
REST = ["returns_in_a_thread", "retries_in_a_thread", "areturns", "afails", "aretries"]

#: Keys about messages: all that an outcome can change.
ABOUT_MESSAGES = (
    *(b"messages", b"queue:", b"suspects:", b"schedule", b"dead:"),
    *(b"reasons", b"crashes", b"result:", b"waiters", b"inbox:", b"counters"),
)


def about_messages(module: ModuleType) -> dict[bytes, Any]:
    """The keys about messages, as the server itself would write them to disk."""
    prefix = module.app.client.keys.prefix
    found = raw(module, b"KEYS", prefix.replace(b"{", b"[{]") + b"*")
    names = [key for key in found if key.removeprefix(prefix).startswith(ABOUT_MESSAGES)]
    return {key: raw(module, b"DUMP", key) for key in sorted(names)}


@pytest.mark.parametrize("send", [os.killpg, os.kill], ids=["with its children", "the parent alone"])
def test_nothing_a_stopped_worker_says_after_its_lease_has_an_effect(
    send: Callable[[int, int], None], jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(ENDS, settings="lease=1")
    names = SYNC + REST
    # Every lane is busy, and so has something to say.
    stopped = [
        start_worker("-c", str(len(SYNC)), "-Q", ",".join(f"jobs.{name}" for name in SYNC)),
        start_worker("-c", "1", "-Q", ",".join(f"jobs.{name}" for name in REST)),
    ]
    handles = {name: getattr(module, name).delay(name) for name in names}
    journal = Journal(tmp_path)
    journal.wait_for(len(names))

    for worker in stopped:
        send(worker.process.pid, signal.SIGSTOP)
    start_worker("-c", "1")
    values = {name: handle.get(timeout=30) for name, handle in handles.items()}
    wait_until_idle(module)
    before = about_messages(module)

    (tmp_path / "go").touch()
    for worker in stopped:
        send(worker.process.pid, signal.SIGCONT)
    wait_until(lambda: set(journal.read().ends) == set(names), "the first runs end too")
    said = lambda: sum(worker.log.count("starting anew") for worker in stopped)  # noqa: E731
    wait_until(lambda: said() >= 3 * (len(SYNC) + 1), "each lane of each child speaks, and finds its lease gone")

    assert values == dict.fromkeys(names, "in time")
    assert about_messages(module) == before
    assert all(queue.counters["done"] == 1 for queue in survey(module.app).values())
    # It goes on as if new.
    assert module.work.delay(1).get(timeout=30) == 1


@pytest.mark.skipif(not SOAK, reason="takes half a minute; TASKQ_SOAK=1 runs it")
@pytest.mark.timeout(240)
def test_workers_stopped_at_random_for_longer_than_their_lease_lose_nothing(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    chance, (n, stops) = random.Random(SEED), (2000, 20)
    module = jobs(JOBS, url=own_server.url, settings="lease=1")
    journal, fleet = Journal(tmp_path), Fleet(start_worker, 2, "-c", "2", url=own_server.url)
    tasks = [chance.choice([module.work, module.awork]) for _ in range(n)]
    handles = module.app.enqueue_many([task.call(i, 0.02) for i, task in enumerate(tasks)])

    for k in range(1, stops + 1):
        journal.wait_for(n * k // (stops + 2))
        worker = chance.choice(fleet.workers)
        wait_until(worker.children, "it has started")
        fleet.victims.update(worker.children(surely=True))
        os.killpg(worker.process.pid, signal.SIGSTOP)
        nap(chance.uniform(1.0, 3.0))
        os.killpg(worker.process.pid, signal.SIGCONT)

    assert [handle.get(timeout=60) for handle in handles] == list(range(n))
    check_idle(module)
    assert journal.unexplained(fleet.victims) == {}, fleet.logs
    seen = sum("starting anew" in worker.log for worker in fleet.workers)
    print(f"seed {SEED}: {n} with {stops} stops of 1 to 3 leases: {journal.repeats} reruns, {seen} workers fenced")
