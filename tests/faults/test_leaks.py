"""When everything has ended and every time to live is over, only what is documented to stay has stayed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq import TaskError
from taskq.broker.call import Command
from taskq.broker.commands import keeping
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.errors import ResultTimeout, TaskRevoked
from taskq.upkeep.reaper import Reaper
from taskq.worker.parent.watch import resident_bytes
from tests.support import SOAK, Server, Start, Write, survey, wait_until

JOBS = """
@app.task
def add(a, b=1):
    return a + b

@app.task
async def aadd(a, b=1):
    return a + b

@app.task(ignore_result=True)
def quiet(a):
    return a

@app.task(autoretry_for=(KeyError,), max_retries=2, default_retry_delay=0.01, bind=True)
def retried(self, a):
    if self.request.retries < 1 + a % 2:
        raise KeyError(a)
    return a

@app.task
def fails(a):
    raise ValueError(a)

@app.task(dead_letter=False)
def fails_quietly(a):
    raise ValueError(a)

@app.task(pool="thread")
def slow(a):
    time.sleep(0.05)

@app.task
def die(a):
    os._exit(1)
"""

#: Names of keys that stay for as long as the app exists.
REGISTRY = {
    b"counters",
    b"settings",
    b"pulse",
    b"tasks",
    b"homes",
    b"published",
    b"declared",
    b"revisions",
    b"audit",
    b"minute",
}
#: Names of keys that end by themselves.
PASSING = {b"name", b"audited", b"producer", b"inbox", b"keeper"}


def raw(module: ModuleType, *words: Any) -> Any:
    return module.app.client.broker.run(Command(None, list(words), lambda reply: reply))


def names_left(module: ModuleType) -> set[bytes]:
    """Names of the app's keys (without what is particular to one) but for those that end by themselves."""
    prefix = module.app.client.keys.prefix
    left = set()
    for key in raw(module, b"KEYS", b"*"):
        name = key.removeprefix(prefix).split(b":")[0]
        if key.startswith(prefix) and not (name in PASSING and raw(module, b"PTTL", key) != -1):
            left.add(name)
    return left


def clients(module: ModuleType) -> int:
    return len(raw(module, b"CLIENT", b"LIST").splitlines())


def test_only_the_registry_is_left_when_all_has_ended(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1, result_ttl=1, dead_ttl=1, max_crashes=1")
    n = 8300 if SOAK else 300
    app, keys = module.app, module.app.client.keys
    worker = start_worker("-c", "2", url=own_server.url)
    wait_until(lambda: len(worker.children()) == 2, "two children run")
    handles = app.enqueue_many(
        task.call(i)
        for i in range(n)
        for task in (
            *(module.add, module.aadd, module.quiet, module.retried, module.fails, module.fails_quietly),
            *([module.slow] if i % 20 == 0 else []),
        )
    )
    late = [module.add.apply_async((i,), countdown=0.2) for i in range(50)]
    expired = [module.add.apply_async((i,), countdown=0.3, expires=0.1) for i in range(50)]
    given = [module.aadd.apply_async((i,), task_id=f"given-{i}", ignore_result=True) for i in range(50)]
    poison = module.die.delay(1)

    with pytest.raises(ResultTimeout):
        late[0].get(timeout=0.01)  # leaves word, and goes
    for handle in expired:
        with pytest.raises(TaskRevoked):
            handle.get(timeout=30)
    with pytest.raises(TaskError):
        poison.get(timeout=30)
    wait_until(
        lambda: all(
            q.counters.get("accepted") == sum(q.counters.get(c, 0) for c in ("done", "failed", "discarded")) + q.dead
            for q in survey(app).values()
        ),
        "all has ended",
        60,
    )
    assert len(handles) + len(late) + len(expired) + len(given) + 1 == sum(
        q.counters["accepted"] for q in survey(app).values()
    )
    assert raw(module, b"HLEN", keys["waiters"]) == 0
    assert worker.stop() == 0, worker.log

    # The times to live pass; a reaper looks after the rest.
    reaper, connection = Reaper(keys, "test", 1.0), Connection(own_server.url)
    queues = list(survey(app))

    def only_the_registry() -> bool:
        drive(reaper.step(), connection)
        app.client.broker.run(keeping.retire(keys, 10_000, queues))
        return names_left(module) <= REGISTRY

    with suppress(AssertionError):
        wait_until(only_the_registry, "only the registry is left", 10)
    assert names_left(module) <= REGISTRY
    connection.close()
    for queue, ledger in survey(app).items():
        assert ledger.balance == 0, queue
        assert ledger.dead == 0, queue
    # The one that asks is the pool's; a process that has waited for a result keeps one more for that.
    wait_until(lambda: clients(module) == len(app.client.broker._idle) + 1, "no other connection is left")


@pytest.mark.timeout(300)
def test_a_worker_does_not_grow(jobs: Write, start_worker: Start) -> None:
    n = 1400 if SOAK else 100
    module = jobs(JOBS, settings="result_ttl=1, dead_ttl=1")
    worker = start_worker("-c", "1")
    wait_until(worker.children, "it has started")
    pids = [worker.process.pid, *worker.children()]

    def burst() -> int:
        tasks = (module.add, module.aadd, module.quiet, module.retried, module.fails, module.fails_quietly)
        module.app.enqueue_many([task.call(i) for i in range(n) for task in tasks])
        module.slow.delay_many(range(20))
        wait_until(lambda: all(not (q.pending or q.processing or q.scheduled) for q in survey(module.app).values()),
                   "all has ended", 60)  # fmt: skip
        return sum(map(resident_bytes, pids))

    first = max(burst() for _ in range(2))
    open_before = sum(map(sockets, pids))
    last = max(burst() for _ in range(4))

    assert worker.children() == pids[1:], worker.log
    assert last - first < 10 << 20
    assert sum(map(sockets, pids)) <= open_before + len(pids)  # a lane opens one when it first needs it
    print(f"{36 * n} messages: {(last - first) >> 10} KiB more, {open_before} sockets before")


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += os.readlink(path).startswith("socket:")
    return found
