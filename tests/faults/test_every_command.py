"""Every script and every plain command: its request lost, its reply lost, its process killed before and after it.

The workload below reaches every script; a new one that it does not reach makes its tests fail until it does.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import drive
from taskq.broker.scripts import all_scripts
from taskq.upkeep.reaper import Reaper
from tests.faults.breaking import MODES, PLAIN, faults, happened, plant
from tests.support import SOAK, Server, Worker, Write, survey, wait_until

Begin = Callable[[dict[str, str]], "Case"]

JOBS = """
HERE = os.path.dirname(os.path.abspath(__file__))

def first_time(name):
    try:
        os.close(os.open(os.path.join(HERE, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    except FileExistsError:
        return False

@app.task
def double(i, seconds=0):
    time.sleep(seconds)
    return 2 * i

@app.task
async def adouble(i):
    await asyncio.sleep(0.001)
    return 2 * i

@app.task(autoretry_for=(KeyError,), default_retry_delay=0.05, max_retries=3)
def second_try(i):
    if first_time(f"tried-{i}"):
        raise KeyError(i)
    return 2 * i

@app.task
def crash_once(i):
    if first_time(f"crashed-{i}"):
        os._exit(9)
    return 2 * i

@app.task
def fails_once(i):
    if first_time(f"failed-{i}"):
        raise ValueError(i)
    return 2 * i

@app.task
def fails(i):
    raise ValueError(i)
"""

# What producers, waiters, operators and a reaper do. Killed at any point it can be run again from its beginning.
CLIENT = """
import asyncio, os, time
from taskq import DuplicateTaskId, every, TaskError, UnknownResult
from taskq.broker import onward
from taskq.broker.call import Command, as_it_is
from taskq.broker.commands import auditing, fleet, keeping, looking, steering, ticking
from taskq.broker.scripts import script
from taskq.broker.net.connection import Connection
from taskq.broker.faults import NotSent, Unanswered
from taskq.broker.protocol import drive
from taskq.periodic.entry import Entry
from taskq.errors import BrokerError
from taskq.upkeep.reaper import Reaper
from jobs import *

broker, keys, calls = app.client.broker, app.client.keys, open(os.path.join(HERE, "calls"), "ab", buffering=0)

def send(task, i, **options):
    try:
        return task.apply_async((i,), task_id=f"{task.name}-{i}", **options)
    except DuplicateTaskId:
        return app.AsyncResult(f"{task.name}-{i}")

def plainly(n, send_them):
    calls.write(b"b" * n)
    handles = send_them()
    calls.write(b"r" * n)
    return handles

def value_of(handle):
    try:
        return handle.get(timeout=30)
    except UnknownResult:  # forgotten by a run before this one
        return None

entry = Entry.of("e", every(1), adouble.prepare_call((12,)).message, catch_up="all")
broker.run(ticking.change_entry(keys, "define", "e", entry.stored, 1))
handles = {i: send(task, i) for i, task in enumerate([second_try, crash_once, fails_once, adouble, double])}
handles[5] = send(double, 5, countdown=0.1)
broken = send(fails, 6)
slow = plainly(1, lambda: [double.delay(7, 0.03)])
bulk = plainly(2, lambda: double.delay_many([(8,), (9,)]))

async def on_a_loop():
    sent = [await adouble.aapply_async((i,), task_id=f"a{i}") for i in (10, 11)]
    results = [await handle.aget(timeout=30) for handle in sent]
    await app.aclose()
    return results
try:
    assert asyncio.run(on_a_loop()) == [20, 22]
except DuplicateTaskId:
    assert [app.AsyncResult(f"a{i}").get(timeout=30) for i in (10, 11)] == [20, 22]

try:
    value = handles.pop(2).get(timeout=30)
    assert value == 4, "mended and replayed by a run before this one"
except TaskError as error:
    assert isinstance(error, ValueError), error
    broker.run(steering.replay(keys, "jobs.fails_once", b"jobs.fails_once-2", b""))
    value = app.AsyncResult("jobs.fails_once-2").get(timeout=30)
    assert value == 4
try:
    broken.get(timeout=30)
except (ValueError, UnknownResult):
    pass
broker.run(looking.dead_ids(keys, "jobs.fails", 0, -1))
broker.run(steering.purge(keys, "jobs.fails", [b"jobs.fails-6"]))
for i, handle in handles.items():
    assert value_of(handle) in (2 * i, None), i
assert [handle.get(timeout=30) for handle in slow + bulk] == [14, 16, 18]
assert app.AsyncResult(handles[4].id).status().state in ("SUCCESS", "UNKNOWN")
handles[4].forget()
while broker.run(looking.survey(keys))["jobs.adouble"].counters["accepted"] < 4:  # three calls, and a tick
    time.sleep(0.05)
broker.run(ticking.change_entry(keys, "remove", "e"))
reaper, connection = Reaper(keys, "client", app.settings.lease), Connection(app.client.url)
for _ in range(5):
    try:
        drive(reaper.step(), connection)
        break
    except (NotSent, Unanswered):
        pass
broker.run(keeping.retire(keys, 100, ["jobs.fails"]))
broker.run(looking.backlog(keys, ["jobs.double"]))
broker.run(looking.survey(keys))
broker.run(looking.ages(keys, ["jobs.nothing"]))
broker.run(looking.peek(keys, "jobs.nothing", 0, 10))
broker.run(keeping.keep_minute(keys))
broker.run(fleet.report(keys, "client", 60.0, b"how it is"))
broker.run(fleet.order(keys, "client", "a word"))
broker.run(fleet.report(keys, "client", 60.0, b""))
for _ in range(3):
    try:
        broker.run(steering.clear(keys, "jobs.nothing", "", 10))
    except BrokerError:  # not known whether it was done
        pass
broker.run(steering.limit(keys, "jobs.double", "-"))
broker.run(steering.pause(keys, "jobs.nothing", 0.0, "me", "no reason"))
broker.run(steering.resume(keys, "jobs.nothing"))
broker.run(steering.mark(keys, [b"nothing"], "no reason"))
broker.run(steering.revoke(keys, b"nothing", "no reason"))
broker.run(looking.why(keys, b"nothing"))
broker.run(auditing.scan_ids(keys, b"0", 10))
broker.run(auditing.mend(keys, [(b"nothing", "")]))
broker.run(keeping.adopt(keys, 3_600_000, b"", ["jobs.nothing"]))
for command in (
    auditing.audit(keys, 1),
    auditing.tally(keys, ["jobs.double"]),
    auditing.restore(keys, [("jobs.nothing", False, "")]),
    auditing.reopen(keys, [b"jobs.nothing#1"]),
    auditing.recount(keys, [b"jobs.nothing#1"]),
    auditing.tidy(keys, "waiters", [b"nothing"]),
    auditing.relock(keys, [b"nothing"]),
    auditing.rouse(keys, ["nothing"]),
    Command(script("fetch_any"), [keys.prefix, "nobody", "1", 1, "set", "", "", "", "", keys.prefix], as_it_is),
    Command(script("claim"), [keys.prefix, 1, b""], bool),
    onward.send_on(keys, "jobs.nothing", b"nothing", "jobs.double", b"nothing"),
    Command(script("arrive"), [keys.prefix, *double.prepare_call((3,), task_id="jobs.adouble-3").message], as_it_is),
    Command(script("arrived"), [keys.prefix, b"nothing", 1], bool),
):
    broker.run(command)
try:
    broker.run(auditing.ledger(keys, {}))
except BrokerError:  # it is for the next audit to do it again
    pass
"""


class Case:
    """The workload under one fault: its processes, started again when they die."""

    def __init__(self, folder: Path, module: ModuleType, url: str, environment: dict[str, str]) -> None:
        plant(folder)
        (folder / "client.py").write_text(CLIENT)
        self.folder = folder
        self.module = module
        self.url = url
        self.environment = environment
        self.deaths = 0
        self.worker = self._start_worker()
        self.client = self._start_client()

    def _start_worker(self) -> Worker:
        # With --autoscale the parent also asks for the backlog.
        return Worker(self.folder, self.url, "--autoscale", "1,2", env=self.environment)

    def _start_client(self) -> subprocess.Popen[bytes]:
        with open(self.folder / "client.log", "ab") as log:
            environ = {**os.environ, "PYTHONPATH": str(self.folder), **self.environment}
            return subprocess.Popen([sys.executable, "client.py"], cwd=self.folder, env=environ, stdout=log, stderr=log)

    def run(self, seconds: float = 120.0) -> None:
        """Run until the client has had all it wants and nothing is left to do, then stop the worker."""
        deadline = time.monotonic() + seconds
        while not (self.client.poll() == 0 and self.idle()):
            assert time.monotonic() < deadline, f"not done within {seconds:g} s: {self}"
            if self.client.poll() not in (None, 0):
                assert self.client.returncode == -signal.SIGKILL, str(self)
                self.deaths += 1
                self.client = self._start_client()
            self._keep_a_worker()
            time.sleep(0.01)
        while self._stop_worker() != 0:  # killed while it stopped: the next one cleans up
            assert self.worker.process.returncode == -signal.SIGKILL, str(self)
            assert time.monotonic() < deadline, f"it does not stop: {self}"
            self.deaths += 1
            self.worker = self._start_worker()
        # What was killed has left its leases.
        reaper, connection = Reaper(self.module.app.client.keys, "test", 1.0), Connection(self.url)
        while self.raw("ZCARD", "leases"):
            assert time.monotonic() < deadline, f"leases are left: {self}"
            time.sleep(drive(reaper.reap(), connection))
        connection.close()

    def _stop_worker(self) -> int:
        """Stop it; not before it listens, since Python itself dies of the signal."""
        wait_until(lambda: "concurrency" in self.worker.log or self.worker.process.poll() is not None, "it has begun")
        return self.worker.stop()

    def _keep_a_worker(self) -> None:
        if self.worker.process.poll() is not None:
            assert self.worker.process.returncode == -signal.SIGKILL, str(self)
            self.deaths += 1
            self.worker = self._start_worker()

    def idle(self) -> bool:
        return all(
            not (queue.pending or queue.suspects or queue.processing or queue.scheduled)
            for queue in survey(self.module.app).values()
        )

    def raw(self, word: str, key: str, *more: Any) -> Any:
        keys = self.module.app.client.keys
        return self.module.app.client.broker.run(Command(None, [word, keys[key], *more], lambda reply: reply))

    def end(self) -> None:
        if self.client.poll() is None:
            self.client.kill()
            self.client.wait()
        if self.worker.process.poll() is None:
            self.worker.kill_group()

    def __str__(self) -> str:
        logs = [self.folder / "client.log", *sorted(self.folder.glob("worker-*.log"))]
        return f"{survey(self.module.app)}\n" + "\n".join(f"{log}:\n{log.read_text()}" for log in logs)


@pytest.fixture
def begin(jobs: Write, tmp_path: Path, session_server: Server) -> Iterator[Begin]:
    cases: list[Case] = []

    def start(environment: dict[str, str]) -> Case:
        module = jobs(JOBS, settings="lease=1, send_timeout=5")
        cases.append(Case(tmp_path, module, session_server.url, environment))
        return cases[0]

    yield start
    for case in cases:
        case.end()


def check(case: Case) -> None:
    """Nothing is lost, nothing committed twice, nothing left over."""
    ledger = survey(case.module.app)
    for name, queue in ledger.items():
        assert queue.balance == 0, f"{name}: {case}"
        assert queue.dead == 0, f"{name}: {case}"
        ended = queue.counters.get("done", 0) + queue.counters.get("purged", 0)
        assert ended == queue.counters.get("accepted", 0), f"{name}: {case}"
        assert queue.counters.get("dangling", 0) == 0, f"{name}: {case}"
    calls = (case.folder / "calls").read_bytes()
    begun, returned = calls.count(b"b"), calls.count(b"r")
    counted = ledger["jobs.double"].counters["accepted"]
    # 4 and 5 have ids of their own; 4 was forgotten, so a client that died after that sent it again.
    assert 2 + returned <= counted <= 2 + begun + case.deaths, f"{begun} calls, {returned} returned: {case}"
    if not case.deaths:
        assert counted == 5, str(case)
    assert case.raw("HLEN", "messages") == 0, str(case)
    assert case.raw("ZCARD", "leases") == 0, str(case)
    assert case.raw("HLEN", "calls") == 0, str(case)


#: The lost replies of some fetches are part of the workload, since nothing else makes a worker sync.
LOST_FETCHES = [("fetch", "fail-after", n) for n in (3, 5, 8)]
SCRIPTS = [script.name for script in all_scripts()]


def break_and_check(begin: Begin, folder: Path, *breaks: tuple[str, str, int]) -> None:
    case = begin(faults(folder, *breaks, *LOST_FETCHES))
    case.run()

    check(case)
    for command, mode, n in breaks:
        names = happened(folder, mode, n)
        reached = names - set(SCRIPTS) if command == PLAIN else command in names
        assert reached or n > 1, f"the workload does not reach {command}: extend it\n{case}"


#: What breaks in one run of the workload: a few scripts, or every plain command.
TOGETHER = [*(SCRIPTS[i : i + 4] for i in range(0, len(SCRIPTS), 4)), [PLAIN]]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("what", ["fail", "die"])
@pytest.mark.parametrize("commands", TOGETHER, ids="-".join)
def test_nothing_is_lost_or_doubled_when_calls_break_before_and_then_after_they_are_executed(
    commands: list[str], what: str, begin: Begin, tmp_path: Path
) -> None:
    breaks = [(command, f"{what}-{when}", 1) for command in commands for when in ("before", "after")]
    break_and_check(begin, tmp_path / "faults", *breaks)


#: Each by itself: hundreds, which take many minutes.
ALL = [*itertools.product([*SCRIPTS, PLAIN], MODES, (1, 2, 3, 5, 8))] if SOAK else []


@pytest.mark.parametrize(("command", "mode", "n"), ALL)
def test_nothing_is_lost_or_doubled_when_the_nth_call_breaks(
    command: str, mode: str, n: int, begin: Begin, tmp_path: Path
) -> None:
    break_and_check(begin, tmp_path / "faults", (command, mode, n))
