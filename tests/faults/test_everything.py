"""All faults at random from one seed, in rounds; after each round everything that was accepted has ended, once.

``TASKQ_SOAK=1`` makes it last half an hour, ``TASKQ_SOAK_SECONDS`` as long as one likes; ``TASKQ_SEED`` replays.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq import TaskError, TaskQ
from taskq.broker.commands import Command
from tests.faults.fleet import JOBS, Fleet, Journal, each_by_its_url, kill, nap, raw, wait_until_idle
from tests.faults.proxy import CUT_REPLY, DROP_REPLY, DROP_REQUEST, PASS, Proxy
from tests.model.audit import SCRIPT, Snapshot, violations
from tests.support import SEED, SOAK, Server, Start, Worker, Write, programs

SECONDS = float(os.environ.get("TASKQ_SOAK_SECONDS", "1800" if SOAK else "5"))
ROUND, LEASE, MAX_CRASHES = 10.0, 3.0, 1_000_000

TASKS = (
    JOBS
    + """
@app.task(pool="thread")
def threaded(i, seconds=0.0):
    return work.function(i, seconds)

@app.task(at_most_once=True)
def once(i, seconds=0.0):
    return work.function(i, seconds)

@app.task(autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=2, bind=True)
def third_try(self, i, seconds=0.0):
    if self.request.retries < 2:
        raise KeyError(i)
    return i

@app.task
def fails(i, seconds=0.0):
    raise ValueError(i)

@app.task
def calm(i, seconds=0.0):
    return work.function(i, seconds)

@app.task
async def acalm(i, seconds=0.0):
    return await awork.function(i, seconds)
"""
)
STORMY = ["work", "awork", "threaded", "once", "third_try", "fails"]
CALM = ["calm", "acalm"]
#: What a task was given and is to return, and the handle of the call.
Sent = tuple[str, Any]


class Storm:
    """Everything that can go wrong for a fleet of workers behind a proxy, and for their server.

    Attributes:
        log: What was done, and when.
    """

    def __init__(self, chance: random.Random, fleet: Fleet, proxy: Proxy, server: Server, module: ModuleType) -> None:
        self.chance = chance
        self.fleet = fleet
        self.proxy = proxy
        self.server = server
        self.module = module
        self.log: list[str] = []
        self._began = time.monotonic()
        self._later: list[threading.Timer] = []
        self._faults = [
            *(3 * [self.kill]),
            *(2 * [self.stop_some, self.lose_replies, self.break_connections]),
            *(self.silence, self.pause_server, self.kill_server, self.flush_scripts, self.deploy, self.hang_up),
        ]

    def rage(self, seconds: float) -> None:
        """Do one thing after the other, some at the same time; in the end all is as it was."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.fleet.tend()
            fault = self.chance.choice(self._faults)
            self.log.append(f"{time.monotonic() - self._began:.2f} {fault.__name__} {fault()}")
            nap(self.chance.uniform(0.0, 0.3))
        for timer in self._later:
            timer.join()
        self._later.clear()
        self.fleet.tend()

    def _in(self, seconds: float, what: Callable[..., object], *args: Any) -> str:
        self._later.append(threading.Timer(seconds, what, args))
        self._later[-1].start()
        return f"for {seconds:.1f} s"

    def kill(self) -> str:
        return self.fleet.kill_one(self.chance)

    def stop_some(self) -> str:
        """SIGSTOP for a part of a lease or more of it: a parent, or a worker with its children."""
        worker = self.chance.choice(self.fleet.workers)
        pids = [worker.process.pid, *(worker.children() if self.chance.random() < 0.5 else [])]
        self.fleet.victims.update(worker.children())
        for pid in pids:
            kill(pid, signal.SIGSTOP)
        return self._in(self.chance.uniform(0.1, 1.5) * LEASE, lambda: [kill(pid, signal.SIGCONT) for pid in pids])

    def lose_replies(self) -> str:
        chance = random.Random(self.chance.random())
        fates, weights = [PASS, DROP_REPLY, CUT_REPLY, DROP_REQUEST], [90, 5, 3, 2]
        self.proxy.decide = lambda number, call: chance.choices(fates, weights)[0]
        return self._in(self.chance.uniform(0.2, 2.0), setattr, self.proxy, "decide", lambda number, call: PASS)

    def silence(self) -> str:
        for worker in self.fleet.workers:
            self.fleet.victims.update(worker.children())
        self.proxy.swallow = True
        return self._in(self.chance.uniform(0.1, 1.2) * LEASE, setattr, self.proxy, "swallow", False)

    def break_connections(self) -> str:
        if self.chance.random() < 0.5:
            self.proxy.reset()
            return "of the fleet"
        self._ask(b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
        return "of all"

    def flush_scripts(self) -> None:
        self._ask(b"SCRIPT", b"FLUSH")

    def _ask(self, *words: bytes) -> None:
        self.module.app.client.broker.run(Command(None, list(words), lambda reply: reply), seconds=30)

    def pause_server(self) -> str:
        self.server.signal(signal.SIGSTOP)
        return self._in(self.chance.uniform(0.05, 1.2) * LEASE, self.server.signal, signal.SIGCONT)

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def deploy(self) -> None:
        self.fleet.replace(self.chance.randrange(len(self.fleet.workers)))

    def hang_up(self) -> None:
        """Replace the children of a worker, each when what it runs has ended."""
        worker = self.chance.choice(self.fleet.workers)
        if worker.children():  # before, it would be the end of it
            kill(worker.process.pid, signal.SIGHUP)


class Load:
    """Threads that send calls, one of them through the proxy."""

    def __init__(self, module: ModuleType, proxied: TaskQ, folder: Path, seed: str) -> None:
        self.handles: dict[str, list[Sent]] = {}
        self.errors: list[Exception] = []
        self._ended = threading.Event()
        self._threads = []
        for n, app in enumerate((module.app, proxied)):
            chance, mine = random.Random(f"{seed}-{n}"), self.handles.setdefault(f"p{n}", [])
            self._threads.append(
                threading.Thread(target=self._send, args=(module, app, chance, f"{seed}-{n}", mine, Journal(folder)))
            )
            self._threads[-1].daemon = True
            self._threads[-1].start()

    def _send(
        self,
        module: ModuleType,
        app: TaskQ,
        chance: random.Random,
        name: str,
        mine: list[Sent],
        seen: Journal,
    ) -> None:
        try:
            while not self._ended.wait(chance.uniform(0.001, 0.02)):
                if len(mine) > 300 + len(seen.read().starts):
                    continue
                task = getattr(module, chance.choice(STORMY + CALM))
                args = f"{name}-{len(mine)}", chance.choice([0.0, 0.0, 0.001, 0.005, 0.05, 0.3])
                if chance.random() < 0.1:
                    calls = [task.call(f"{args[0]}-{k}", args[1]) for k in range(10)]
                    handles = app.enqueue_many(calls)
                    mine += [(f"{args[0]}-{k}", handle) for k, handle in enumerate(handles)]
                else:
                    countdown = chance.choice([None, None, 0.1])
                    options = {} if countdown is None else {"countdown": countdown}
                    mine.append((args[0], *app.enqueue_many([task.prepare_call(args, **options)])))
        except Exception as error:
            self.errors.append(error)

    def stop(self) -> list[Sent]:
        """End it; answers what was sent: what its task got, and its handle."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        assert self.errors == []
        return [sent for mine in self.handles.values() for sent in mine]


@pytest.fixture
def server(short_folder: Path) -> Iterator[Server]:
    """A server of which a kill loses nothing: every write reaches its file before the answer leaves."""
    made = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)), "--appendfsync", "no")
    made.start()
    yield made
    made.stop()


@pytest.mark.timeout(SECONDS * 2 + 120)
def test_everything_at_random(jobs: Write, start_worker: Start, tmp_path: Path, server: Server) -> None:
    settings = f"lease={LEASE}, send_timeout=60, result_ttl=120, max_crashes={MAX_CRASHES}"
    module, proxy = each_by_its_url(jobs(TASKS, url=server.url, settings=settings)), Proxy(server.socket)
    proxied = TaskQ(module.app.name, proxy.url, send_timeout=60)
    queues = {kind: ",".join(f"jobs.{name}" for name in names) for kind, names in (("s", STORMY), ("c", CALM))}
    fleet = Fleet(start_worker, 2, "-c", "2", "--grace", "0.5", "-Q", queues["s"], url=proxy.url)
    calm = start_worker("-c", "1", "-Q", queues["c"], url=server.url)
    journal, totals, began, rounds = Journal(tmp_path), Counter[str](), time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        rounds += 1
        seed = f"{SEED}-{rounds}"
        print("seed", seed)
        storm = Storm(random.Random(seed), fleet, proxy, server, module)
        load = Load(module, proxied, tmp_path, seed)
        try:
            storm.rage(min(ROUND, SECONDS))
            sent = load.stop()
            totals += check(module, journal, fleet, calm, sent)
        except BaseException:
            print("\n".join([f"seed {seed}", *storm.log, *fleet.logs, calm.log]))
            raise
        totals["faults"] += len(storm.log)
    proxied.close()
    proxy.close()
    print(f"seed {SEED}: {rounds} rounds in {time.monotonic() - began:.0f} s, none lost, none twice: {dict(totals)}")


def check(module: ModuleType, journal: Journal, fleet: Fleet, calm: Worker, sent: list[Sent]) -> Counter[str]:
    """Nothing is lost, doubled or left over; answers how much there was."""
    ledger = wait_until_idle(module, 60)
    tally: Counter[str] = Counter()
    for value, handle in sent:
        end = handle.get(timeout=10, propagate=False)
        if isinstance(end, TaskError):
            tally["abandoned" if "abandoned" in str(end) else "failed"] += 1
            assert "abandoned" in str(end) or (isinstance(end, ValueError) and value in str(end)), end
        else:
            assert end == value
            tally["done"] += 1
    for name, queue in ledger.items():
        assert queue.balance == 0, (name, queue)
        assert queue.counters.get("done", 0) + queue.dead == queue.counters["accepted"], (name, queue)
    assert not any(ledger[f"jobs.{name}"].counters.get("crashes") for name in CALM if f"jobs.{name}" in ledger)
    assert wrong_keys(module) == []
    assert journal.unexplained(fleet.victims) == {}
    tally["messages"], tally["reruns"] = len(sent), journal.repeats
    return tally


def wrong_keys(module: ModuleType) -> list[str]:
    """What is wrong with the app's keys, by the audit of the model."""
    seconds, micros = raw(module, b"TIME")
    now = int(seconds) * 1000 + int(micros) / 1000
    reply = raw(module, b"EVAL", SCRIPT, 1, module.app.client.keys.prefix, f"{now:.3f}")
    keys = [reply[at : at + 5] for at in range(1, len(reply), 5) if not reply[at].startswith(b"result:")]
    return violations(Snapshot.read([reply[0], *(part for key in keys for part in key)]), MAX_CRASHES)
