"""Thousands of messages while processes are killed or replaced at random: nothing lost, every repeat explained."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.net.connection import Connection
from tests.faults.fleet import JOBS, Fleet, Journal, check_idle
from tests.support import SEED, SOAK, Server, Start, Write, survey, wait_until


@pytest.mark.timeout(240)
@pytest.mark.parametrize("server_kills", [0, 10] if SOAK else [2])
def test_children_parents_and_groups_are_killed_at_random(
    server_kills: int, jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    chance, n, kills = random.Random(SEED), *((10_000, 50) if SOAK else (900, 10))
    module = jobs(JOBS, url=own_server.url, settings="lease=3, send_timeout=20")
    handles = module.work.delay_many([(i, 0.005) for i in range(n)])
    began, back = time.monotonic(), 0.0
    journal, fleet = Journal(tmp_path), Fleet(start_worker, 3, "-c", "2", url=own_server.url)
    journal.wait_for(1)

    def feed() -> None:
        """See that nobody finds the queue empty because the others were quicker."""
        if survey(module.app)["jobs.work"].pending < 60:
            first = len(handles)
            handles.extend(module.work.delay_many([(i, 0.005) for i in range(first, first + 100)]))

    for k in range(1, kills + 1):
        journal.wait_for(n * k // (kills + 2))
        fleet.kill_one(chance)
        if server_kills and k % (kills // server_kills) == 0:
            own_server.kill()
            own_server.start()
            back = max(back, seconds_until_all_consume(journal, fleet, feed))
        fleet.tend()

    values = [handle.get(timeout=60) for handle in handles]
    seconds = time.monotonic() - began
    n = len(handles)
    assert values == list(range(n))
    check_idle(module)
    assert survey(module.app)["jobs.work"].counters["done"] == n, "none is committed twice"
    assert journal.unexplained(fleet.victims) == {}, fleet.logs
    # A child at five milliseconds a message takes one at a time: what is in flight is what runs.
    assert journal.repeats <= len(fleet.victims), fleet.logs
    print(
        f"seed {SEED}: {n} in {seconds:.1f} s, {kills} kills of {len(fleet.victims)} children, "
        f"{server_kills} of the server: {journal.repeats} reruns; all consumed again within {back:.1f} s"
    )
    assert not SOAK or seconds <= 90


def seconds_until_all_consume(journal: Journal, fleet: Fleet, feed: Callable[[], None]) -> float:
    """Wait until every child that lives has started something since now; ``feed`` sees that there is something.

    Answers how long those took that had been at work before. A worker that is still starting takes what that takes.
    """
    began = time.monotonic()
    journal.read()
    before = journal.pids.copy()

    def all_do(whom: Callable[[int], bool]) -> bool:
        feed()
        children = {pid for worker in fleet.workers if worker.process.poll() is None for pid in worker.children()}
        return set(filter(whom, children)) <= set(journal.read().pids - before)

    wait_until(lambda: all_do(before.__contains__), "whoever consumed before consumes again", 5.0)
    seconds = time.monotonic() - began
    wait_until(lambda: all_do(lambda _: True), "everyone consumes", 15.0)
    return seconds


@pytest.mark.timeout(240)
def test_workers_are_replaced_one_after_the_other(
    jobs: Write, start_worker: Start, tmp_path: Path, session_server: Server
) -> None:
    chance, restarts = random.Random(SEED), 30 if SOAK else 4
    module = jobs(JOBS)
    fleet = Fleet(start_worker, 2, "-c", "2", "--grace", "0.3")
    journal, producer = Journal(tmp_path), Producer(module, tmp_path, chance, [0.0, 0.005, 0.005, 0.6])
    journal.wait_for(20)

    for r in range(restarts):
        worker, started = fleet.workers[r % 2], journal.started
        if r % 3 == 2:
            wait_until(lambda w=worker: len(w.children()) == 2, "it has started")
            before = set(worker.children())
            worker.process.send_signal(signal.SIGHUP)
            wait_until(lambda w=worker, b=before: (c := set(w.children())) and not c & b, "its children are new")
        else:
            assert fleet.replace(r % 2) in (0, 1), fleet.logs  # 1: what ran beyond the grace was interrupted
        journal.wait_for(started + 20)
    handles = producer.stop()

    assert [handle.get(timeout=30) for handle in handles] == list(range(len(handles)))
    check_idle(module)
    queues = survey(module.app)
    assert not any(ledger.counters.get("crashes") for ledger in queues.values()), queues
    assert journal.unexplained(fleet.victims) == {}, fleet.logs
    print(f"seed {SEED}: {len(handles)} messages, {restarts} restarts, {journal.repeats} runs interrupted")


class Producer:
    """A thread that sends calls for as long as the workers keep up with them."""

    def __init__(self, module: ModuleType, folder: Path, chance: random.Random, lasts: list[float]) -> None:
        self._handles: list[Any] = []
        self._errors: list[Exception] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(module, Journal(folder), chance, lasts), daemon=True)
        self._thread.start()

    def _run(self, module: ModuleType, journal: Journal, chance: random.Random, lasts: list[float]) -> None:
        while not self._ended.wait(0.001):
            if len(self._handles) - len(journal.read().starts) > 100:
                continue
            task, seconds, i = chance.choice([module.work, module.awork]), chance.choice(lasts), len(self._handles)
            try:
                if chance.random() < 0.1:
                    self._handles += task.delay_many([(i + k, seconds) for k in range(5)])
                else:
                    self._handles.append(task.delay(i, seconds))
            except Exception as error:
                self._errors.append(error)
                return

    def stop(self) -> list[Any]:
        """End it; answers the handles of what was sent. An error that a caller would have seen is an error here."""
        self._ended.set()
        self._thread.join()
        assert self._errors == []
        return self._handles


@pytest.mark.timeout(120)
def test_scripts_are_flushed_and_connections_killed_again_and_again(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    n = 5000 if SOAK else 600
    module = jobs(JOBS, url=own_server.url, settings="lease=3, send_timeout=20")
    fleet = Fleet(start_worker, 2, "-c", "1", url=own_server.url)
    journal = Journal(tmp_path)
    ended = threading.Event()

    def storm() -> None:
        connection, storms = Connection(own_server.url), 0
        while not ended.wait(0.05):
            storms += 1
            connection.execute(Command(None, [b"SCRIPT", b"FLUSH"], bool))
            if storms % 4 == 0:
                connection.execute(Command(None, [b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"], bool))
        connection.close()

    thread = threading.Thread(target=storm)
    thread.start()
    producer = Producer(module, tmp_path, random.Random(SEED), [0.0, 0.002])
    try:
        journal.wait_for(n, 60)
        handles = producer.stop()
        values = [handle.get(timeout=30) for handle in handles]
    finally:
        ended.set()
        thread.join()

    assert values == list(range(len(handles)))
    check_idle(module)
    assert journal.unexplained(set()) == {}, fleet.logs
