"""A server that stops answering, dies, is full, jumps in time, or comes back with an older state."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.net.connection import Connection
from taskq.errors import BrokerFull
from tests.support import SEED, SOAK, Server, Start, Write, each_kind, survey, wait_until

JOBS = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "runs.log"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.task
def work(i, seconds=0.0):
    os.write(LOG, f"{i} {os.getpid()} main\\n".encode())
    time.sleep(seconds)
    return i

@app.task
async def awork(i, seconds=0.0):
    os.write(LOG, f"{i} {os.getpid()} loop\\n".encode())
    await asyncio.sleep(seconds)
    return i
"""


def runs(folder: Path) -> Counter[str]:
    """How often each message was started."""
    return Counter(line.split()[0] for line in lines(folder))


def lines(folder: Path) -> list[str]:
    """What the tasks wrote at their start: the message, the process, the lane."""
    path = folder / "runs.log"
    return path.read_text().splitlines() if path.exists() else []


def raw(module: ModuleType, *words: Any) -> Any:
    return module.app.client.broker.run(Command(None, list(words), lambda reply: reply))


def check_idle(module: ModuleType) -> None:
    """Everything accepted has ended, once."""
    wait_until(lambda: all(not q.processing for q in survey(module.app).values()), "nothing is held", 5.0)
    for name, ledger in survey(module.app).items():
        assert ledger.balance == 0, name
        assert ledger.pending == ledger.suspects == ledger.scheduled == ledger.dead == 0, name
        assert ledger.counters["done"] == ledger.counters["accepted"], name


def test_a_server_paused_for_longer_than_a_lease_costs_no_living_worker_its_messages(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1")
    workers = [start_worker("-c", "1", url=own_server.url) for _ in range(2)]
    handles = [module.work.delay(i, 4.0) for i in range(2)] + [module.awork.delay(i, 4.0) for i in range(2, 6)]
    wait_until(lambda: len(runs(tmp_path)) == 6, "all run")

    own_server.signal(signal.SIGSTOP)
    threading.Timer(2.5, own_server.signal, (signal.SIGCONT,)).start()

    assert [h.get(timeout=30) for h in handles] == list(range(6))
    assert set(runs(tmp_path).values()) == {1}, [worker.log for worker in workers]
    check_idle(module)


def test_a_server_down_for_three_leases_costs_no_living_worker_its_messages(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1")
    workers = [start_worker("-c", "1", url=own_server.url) for _ in range(2)]
    handles = [module.work.delay(i, 5.0) for i in range(2)] + [module.awork.delay(i, 5.0) for i in range(2, 6)]
    wait_until(lambda: len(runs(tmp_path)) == 6, "all run")

    own_server.kill()
    down = threading.Timer(3.5, own_server.start)
    down.start()
    down.join()

    assert [h.get(timeout=30) for h in handles] == list(range(6))
    assert set(runs(tmp_path).values()) == {1}, [worker.log for worker in workers]
    check_idle(module)


def test_a_server_killed_again_and_again_under_load_loses_nothing(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    print("seed", SEED)
    chance, kills = random.Random(SEED), 10 if SOAK else 3
    module = jobs(JOBS, url=own_server.url, settings="lease=3, send_timeout=20")
    workers = [start_worker("-c", "2", url=own_server.url) for _ in range(2)]
    handles: list[Any] = []
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            if len(handles) - len(lines(tmp_path)) > 100:
                time.sleep(0.002)
                continue
            task = chance.choice([module.work, module.awork])
            handles.append(task.delay(len(handles), 0.002))

    def everyone_since(n: int) -> bool:
        return len({line.split(maxsplit=1)[1] for line in lines(tmp_path)[n:]}) == 8  # 4 children of 2 lanes

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        wait_until(lambda: everyone_since(0), "all run")
        for _ in range(kills):
            own_server.kill()
            own_server.start()
            n = len(lines(tmp_path))
            wait_until(lambda n=n: everyone_since(n), "every lane of every child consumes again", 5.0)
            pause, back = chance.uniform(0.0, 0.3), time.monotonic()
            wait_until(lambda back=back, pause=pause: time.monotonic() - back > pause, "a while")
    finally:
        stop.set()
        producer.join()

    values = [h.get(timeout=30) for h in handles]

    assert values == list(range(len(handles))), [worker.log for worker in workers]
    check_idle(module)
    done = sum(q.counters["done"] for q in survey(module.app).values())
    assert done == len(handles)


@each_kind
def test_a_full_server_is_drained_while_children_are_killed_and_a_worker_starts(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1")
    n = 10_000 if SOAK else 1000
    module.work.delay_many([(i, 0.001) for i in range(n)])
    module.awork.delay_many([(i, 0.001) for i in range(n, n + 50)])
    worker = start_worker("-c", "2", url=own_server.url)
    wait_until(lambda: len(runs(tmp_path)) > 50, "they run")

    raw(module, b"CONFIG", b"SET", b"maxmemory", b"1")
    with pytest.raises(BrokerFull):
        module.work.delay(0)
    with pytest.raises(BrokerFull):
        module.work.delay_many([(0,)])
    late = start_worker("-c", "1", url=own_server.url)
    for at in (200, 400, 600):
        wait_until(lambda at=at: len(runs(tmp_path)) > at, f"{at} have run")
        if children := worker.children():
            os.kill(random.Random(at).choice(children), signal.SIGKILL)
    worker.kill_group()

    wait_until(lambda: len(runs(tmp_path)) == n + 50, "all have run", 30)
    wait_until(lambda: raw(module, b"HLEN", module.app.client.keys["messages"]) == 0, "all have ended")
    check_idle(module)
    assert late.process.poll() is None, late.log
    raw(module, b"CONFIG", b"SET", b"maxmemory", b"0")
    assert module.work.delay(-1).get(timeout=30) == -1


def leases_end_soon(module: ModuleType, offset: int) -> bool:
    """Whether every lease (of a second) ends within one from now, by a clock moved by ``offset`` ms."""
    ends = raw(module, b"ZRANGE", module.app.client.keys["leases"], 0, -1, b"WITHSCORES")
    scores = [float(end) for end in (ends[1::2] if not isinstance(ends[0], list) else [pair[1] for pair in ends])]
    now = time.time() * 1000 + offset
    return all(now - 500 < end < now + 1500 for end in scores)


@pytest.mark.parametrize("first", [+3_600_000, -3_600_000])
def test_a_jump_of_the_servers_clock_costs_no_living_worker_its_messages(
    first: int, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings="lease=1")
    workers = [start_worker("-c", "1") for _ in range(2)]
    handles = [module.work.delay(i, 3.0) for i in range(2)] + [module.awork.delay(i, 3.0) for i in range(2, 6)]
    wait_until(lambda: len(runs(tmp_path)) == 6, "all run")
    keys = module.app.client.keys

    for offset in (first, 0):
        raw(module, b"SET", keys["clock"], offset)
        wait_until(lambda offset=offset: leases_end_soon(module, offset), "the leases are renewed by the new clock")
        began = time.monotonic()
        wait_until(lambda began=began: time.monotonic() - began > 1.1, "more than a lease passes")
        assert module.awork.delay(100 + offset).get(timeout=5) == 100 + offset, "new ones run meanwhile"
    retried = module.awork.apply_async((7,), countdown=0.2)

    assert [h.get(timeout=30) for h in [*handles, retried]] == [*range(6), 7]
    assert set(runs(tmp_path).values()) == {1}, [worker.log for worker in workers]
    check_idle(module)


def test_a_worker_lost_before_the_clock_went_back_is_recovered_a_lease_later(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(JOBS, settings="lease=1")
    doomed = start_worker("-c", "1")
    handle = module.work.delay(1, 0.5)
    wait_until(lambda: runs(tmp_path)["1"] == 1, "it runs")

    doomed.kill_group()
    raw(module, b"SET", module.app.client.keys["clock"], -3_600_000)
    start_worker("-c", "1")

    assert handle.get(timeout=20) == 1
    check_idle(module)


def aof(server: Server) -> Path:
    return server.folder / "appendonlydir"


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "busy"])
def test_workers_survive_a_server_that_comes_back_with_an_older_state(
    idle: bool, jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1")
    workers = [start_worker("-c", "2", url=own_server.url) for _ in range(2)]
    seconds = 0.05 if idle else 0.01
    handles = [task.delay(i, seconds) for i in range(40) for task in (module.work, module.awork)]
    wait_until(lambda: len(runs(tmp_path)) > 8, "they run")

    snapshot = tmp_path / "snapshot"
    shutil.copytree(aof(own_server), snapshot)  # a cut last command is dropped at the start
    if idle:
        assert len([h.get(timeout=30) for h in handles]) == 80
        wait_until(lambda: all(not q.processing for q in survey(module.app).values()), "all is settled")
    else:
        wait_until(lambda: len(runs(tmp_path)) > 30, "they run on")
    own_server.kill()
    shutil.rmtree(aof(own_server))
    shutil.copytree(snapshot, aof(own_server))
    own_server.start()

    wait_until(
        lambda: (queues := survey(module.app)) and all(not (q.pending or q.processing) for q in queues.values()),
        "all that the older state holds has ended; nothing stays with a worker that does not know of it",
        15,
    )
    for name, ledger in survey(module.app).items():
        assert ledger.balance == 0, (name, [worker.log for worker in workers])
        assert ledger.counters["done"] + ledger.dead == ledger.counters["accepted"], name
    assert raw(module, b"HLEN", module.app.client.keys["messages"]) == sum(q.dead for q in survey(module.app).values())
    assert [task.delay(i).get(timeout=30) for i in (100, 101) for task in (module.work, module.awork)]


def test_a_power_loss_loses_only_what_was_not_synced_and_leaves_no_half_state(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url, settings="lease=1, send_timeout=20")
    raw(module, b"CONFIG", b"SET", b"appendfsync", b"everysec")  # the others never sync
    for _ in range(2):
        start_worker("-c", "2", url=own_server.url)
    handles: list[Any] = []
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            handles.append([module.work, module.awork][len(handles) % 2].delay(len(handles), 0.002))

    producer = threading.Thread(target=produce)
    producer.start()
    wait_until(lambda: len(runs(tmp_path)) > 100, "they run")
    (file,) = aof(own_server).glob("*.incr.aof")
    sent, connection = len(handles), Connection(own_server.url)
    # WAITAOF is about what its own connection has written, and with it all that was before.
    connection.execute(Command(None, [b"INCR", module.app.client.keys["none"]], int))
    confirmed = connection.execute(Command(None, [b"WAITAOF", 1, 0, 5000], lambda reply: reply[0]))
    size = file.stat().st_size  # not before: a write may be put off while a sync goes on, its answer is not
    connection.close()
    assert confirmed == 1
    wait_until(lambda: len(handles) > sent + 50, "more is accepted")
    own_server.kill()
    with open(file, "r+b") as opened:
        opened.truncate(min(size + random.Random(SEED).randrange(200), file.stat().st_size))  # never longer
    own_server.start()
    stop.set()
    producer.join()

    values = [handle.get(timeout=30) for handle in handles[:sent]]

    assert values == list(range(sent)), "what was synced is there, and has run"
    wait_until(lambda: all(not (q.pending or q.processing) for q in survey(module.app).values()), "all has ended")
    check_idle(module)
    assert raw(module, b"HLEN", module.app.client.keys["messages"]) == 0


ANNOUNCED = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "runs.log"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.task(max_concurrency=1)
def one(i):
    os.write(LOG, f"+{i}\\n".encode())
    time.sleep(0.05)
    os.write(LOG, f"-{i}\\n".encode())

@app.task(max_concurrency=1)
async def aone(i):
    os.write(LOG, f"+a{i}\\n".encode())
    await asyncio.sleep(0.05)
    os.write(LOG, f"-a{i}\\n".encode())

@app.periodic("tick", "every 1s")
@app.task(ignore_result=True)
def tick():
    os.write(LOG, b"tick\\n")
"""


def most_at_once(folder: Path, lane: str) -> int:
    """How many of a task ran at the same time at most, by what they wrote."""
    running = most = 0
    for line in lines(folder):
        if line[1:2].isdigit() == (lane == "") and line[0] in "+-":
            running += 1 if line[0] == "+" else -1
            most = max(most, running)
    return most


def test_a_server_that_is_emptied_learns_everything_again_from_living_workers_before_they_run_anything(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    """Else limits, periodic entries and the list of apps would be gone until somebody starts a worker."""
    module = jobs(ANNOUNCED, url=own_server.url)
    worker = start_worker("-c", "4", url=own_server.url)
    wait_until(lambda: "tick" in lines(tmp_path), "it ticks")
    keys, at_first = module.app.client.keys, raw(module, b"HGETALL", module.app.client.keys["settings"])

    raw(module, b"FLUSHALL")
    (tmp_path / "runs.log").write_text("")
    handles = [task.delay(i) for i in range(20) for task in (module.one, module.aone)]

    for handle in handles:
        handle.get(timeout=40)
    assert [most_at_once(tmp_path, lane) for lane in ("", "a")] == [1, 1]
    wait_until(lambda: "tick" in lines(tmp_path), "it ticks again", 10)
    assert raw(module, b"HGETALL", keys["settings"]) == at_first
    assert raw(module, b"SMEMBERS", "tq:apps") == [keys.app.encode()]
    assert "the server had lost what this worker announced" in worker.log


def test_a_server_that_is_full_at_the_start_has_the_limits_in_force_all_the_same(
    jobs: Write, start_worker: Start, tmp_path: Path, own_server: Server
) -> None:
    module = jobs(ANNOUNCED, url=own_server.url)
    handles = [module.one.delay(i) for i in range(10)]
    raw(module, b"CONFIG", "SET", "maxmemory", 1)

    worker = start_worker("-c", "4", url=own_server.url)
    wait_until(lambda: survey(module.app)["jobs.one"].counters.get("done") == 10, "a full server drains")

    assert most_at_once(tmp_path, "") == 1
    assert "does not hear of this app" in worker.log
    assert "results are not kept above 90 %" in worker.log
    assert not [key for key in raw(module, b"KEYS", "*") if b"}:result:" in key]
    raw(module, b"CONFIG", "SET", "maxmemory", 0)
    assert len(handles) == 10
