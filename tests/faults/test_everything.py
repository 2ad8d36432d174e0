"""All faults at random from one seed, in rounds; after each round everything that was accepted has ended, once.

Workers with other settings each and producers of every kind use every option meanwhile, and an operator pauses, revokes
and replays. ``TASKQ_SOAK=1`` makes it last half an hour, ``TASKQ_SOAK_SECONDS`` as long as one likes; ``TASKQ_SEED``
replays.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq import TaskQ
from taskq.upkeep.audit import audit, queues_of
from taskq.upkeep.derived import restore
from tests.faults.every_option import CALM, GATES, ONCE, STORMY, TASKS, URGENT, Sent, wrong_end
from tests.faults.fleet import Fleet, Journal, each_by_its_url, raw, wait_until_idle
from tests.faults.load import Load, Producers, purge, start_producers
from tests.faults.proxy import Proxy
from tests.faults.storm import LEASE, Storm
from tests.model.audit import SCRIPT, Snapshot, violations
from tests.support import SEED, SOAK, Server, Start, Write

SECONDS = float(os.environ.get("TASKQ_SOAK_SECONDS", "1800" if SOAK else "5"))
#: Keys that are there only while there are messages: families, or whole names.
OF_MESSAGES = (
    b"messages", b"schedule", b"queue:", b"ranked:", b"turns", b"fair:", b"gated:", b"gates", b"heads:", b"lines:",
    b"slots", b"unique", b"paused", b"revoked", b"suspects:", b"processing:", b"dead:", b"reasons", b"crashes",
    b"waiters", b"strays",
)  # fmt: skip
ROUND, MAX_CRASHES = 10.0, 1_000_000
SHORT = SECONDS < 2 * ROUND
METHODS = ["forkserver"] if SHORT else ["forkserver", "spawn"]
#: Every queue but those of the tasks that nothing is to happen to.
ALL = [URGENT, *(f"jobs.{name}" for name in STORMY)]


class MixedFleet(Fleet):
    """Workers that differ in their leases, in how they make children and in what they serve; the rest is by chance."""

    SIZE = 2 if SHORT else 3
    SERVED = (",".join(ALL), ",".join(ALL), f"{URGENT}:3,jobs.work,jobs.fair,jobs.sole,jobs.once")
    LEASES = (LEASE, 2 * LEASE, 20.0)
    SIZES = (["-c", "2"], ["-c", "1"], ["--autoscale", "1,3"])
    MORE = (
        ["--max-tasks-per-child", "100"], ["--max-memory-per-child", "150"], ["--threads", "3"], ["--strict"],
    )  # fmt: skip

    def __init__(self, *args: Any, **more: Any) -> None:
        self._chance = random.Random(SEED)
        super().__init__(*args, **more)

    def own(self, place: int) -> tuple[list[str], dict[str, Any]]:
        # What ran beside others when its process died runs alone, each in a child of its own: that takes its time.
        slots = ["--async-slots", self._chance.choice(["3", "10"])]
        options = sum(self._chance.sample(self.MORE, self._chance.randrange(3)), self.SIZES[place] + slots)
        method = "fork" if SHORT else ("fork", "spawn", "forkserver")[place]  # spawn takes a second to start
        environ = {"TASKQ_LEASE": str(self.LEASES[place]), "TASKQ_START_METHOD": method}
        return [*options, "-Q", self.SERVED[place]], {"env": environ}


@pytest.fixture
def reaper(own_server: Server, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A reaper apart, which has its own opinion of how long a lease is."""
    command = [sys.executable, "-m", "taskq", "reaper", "--url", own_server.url]
    with (
        open(tmp_path / "reaper.log", "wb") as log,
        subprocess.Popen(command, env={**os.environ, "TASKQ_LEASE": "9"}, stdout=log, stderr=log) as process,
    ):
        yield process
        process.terminate()


@pytest.fixture
def start_programs(own_server: Server, tmp_path: Path) -> Iterator[Callable[[], list[Producers]]]:
    """Starts the programs that send; they end with the test."""
    made: list[Producers] = []

    def start() -> list[Producers]:  # the module that they import is there by then
        made.extend(start_producers(tmp_path, own_server.url, *METHODS))
        return made

    yield start
    for program in made:
        program.stop()


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_everything_at_random(
    jobs: Write,
    start_worker: Start,
    start_programs: Callable[[], list[Producers]],
    tmp_path: Path,
    own_server: Server,
    reaper: subprocess.Popen[bytes],
) -> None:
    settings = f"send_timeout=60, result_ttl=600, max_crashes={MAX_CRASHES}"
    module, proxy = each_by_its_url(jobs(TASKS, url=own_server.url, settings=settings)), Proxy(own_server.socket)
    proxied = TaskQ(module.app.name, proxy.url, send_timeout=60)
    producers = start_programs()
    fleet = MixedFleet(start_worker, MixedFleet.SIZE, "--grace", "0.5", url=proxy.url)
    calm = start_worker("-c", "1", "-Q", ",".join(f"jobs.{name}" for name in CALM), url=own_server.url)
    facts, began, rounds = Facts(module, Journal(tmp_path), fleet), time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        rounds += 1
        seed = f"{SEED}-{rounds}"
        print("seed", seed)
        storm = Storm(random.Random(seed), fleet, proxy, own_server, module)
        load = Load(module, [module.app, proxied], producers, seed)
        try:
            storm.rage(min(ROUND, SECONDS))
            load.stop()
            facts.check(load)
            assert complaints(tmp_path) == []
        except BaseException:
            print("\n".join([f"seed {seed}", *storm.log, *fleet.logs, calm.log]))
            raise
        facts.totals["faults"] += len(storm.log)
        assert reaper.poll() is None
    proxied.close()
    proxy.close()
    seconds = time.monotonic() - began
    print(f"seed {SEED}: {rounds} rounds in {seconds:.0f} s, none lost, none twice: {dict(facts.totals)}")


class Facts:
    """What must be true when everything has ended, and how much there was.

    Attributes:
        totals: How many ended in which way, and how much else there was.
    """

    def __init__(self, module: ModuleType, journal: Journal, fleet: Fleet) -> None:
        self.module, self.journal, self.fleet = module, journal, fleet
        self.totals: Counter[str] = Counter()
        self._ids: dict[str, set[str]] = {}
        self._moved = 0

    def check(self, load: Load) -> None:
        """Nothing is lost, doubled or left over."""
        ledger = wait_until_idle(self.module, 60 if SHORT else 120)
        for one in load.sent:
            self._moved += one.task == "debounced"  # into another queue: it counts as accepted there as well
            self._ids.setdefault(one.id, set()).add(one.value)
        for one in load.sent:
            self._look_at(one, load)
        for name, queue in ledger.items():
            assert queue.balance == 0, (name, queue)
            assert queue.gated == 0, (name, queue)
            assert not queue.counters.get("dangling"), (name, queue)
        accepted = sum(queue.counters.get("accepted", 0) for queue in ledger.values())
        assert len(self._ids) <= accepted <= len(self._ids) + self._moved
        assert not any(ledger[f"jobs.{name}"].counters.get("crashes") for name in CALM if f"jobs.{name}" in ledger)
        assert wrong_keys(self.module) == []
        assert not self._mended()
        self._check_journal(load)
        purge(self.module)
        assert left_over(self.module) == set()
        assert wrong_keys(self.module) == []
        self.totals["messages"], self.totals["reruns"] = len(self._ids), self.journal.repeats
        self.totals["calls"] += len(load.sent)
        self.totals["acts"] += load.acts

    def _mended(self) -> Counter[str]:
        """What the product's own audit finds to be mended; nothing, for it is there for what others have broken."""
        keys, broker = self.module.app.client.keys, self.module.app.client.broker
        queues = broker.drive(queues_of(keys))
        found: Counter[str] = broker.drive(audit(keys, queues)) + broker.drive(restore(keys, queues))
        return found

    def _look_at(self, one: Sent, load: Load) -> None:
        if one.task == "silent":
            return
        handle = self.module.app.AsyncResult(one.id)
        end = handle.get(timeout=10, propagate=False)
        revoked = one.id in load.revoked or one.task in load.revoked
        assert not wrong_end(one, self._ids[one.id], revoked, end), (one, end, getattr(end, "type", ""))
        if load.revoked.get(one.id) == "revoked":
            assert getattr(end, "type", "") == "revoked", (one, end)
        self.totals[getattr(end, "type", "done").partition(":")[0]] += 1

    def _check_journal(self, load: Load) -> None:
        """None ran at once with one it must not, none ran twice of those that must not, no other without a reason."""
        tasks = {one.value: one.task for one in load.sent}
        twice = [i for i, pids in self.journal.read().starts.items() if len(pids) > 1 and tasks.get(i) in ONCE]
        assert twice == []
        victims = self.fleet.victims | self.journal.doomed
        assert self.journal.unexplained(victims) == {}
        stopped = {value for one in load.sent if one.id in load.revoked for value in self._ids[one.id]}
        crowd = self.journal.crowd(lambda i, pid: pid in victims or i in stopped or tasks.get(i) in load.revoked)
        assert {gate: n for gate, n in crowd.items() if n > GATES[gate.partition("-")[0]]} == {}


def complaints(folder: Path) -> list[str]:
    """What workers and the reaper have mended though nobody had broken it, or what a server has refused to them."""
    logs = [*folder.glob("worker-*.log"), folder / "reaper.log"]
    words = ("audit: ", "cannot be done", "server refused", "user_script")
    return [line for log in logs for line in log.read_text().splitlines() if any(word in line for word in words)]


def left_over(module: ModuleType) -> set[str]:
    """Keys that have something though there is no message: what holds, orders, stops or waits for one."""
    prefix = module.app.client.keys.prefix
    names = raw(module, b"KEYS", prefix.replace(b"{", b"[{]") + b"*")
    return {
        name[len(prefix) :].decode(errors="replace") for name in names if name[len(prefix) :].startswith(OF_MESSAGES)
    }


def wrong_keys(module: ModuleType) -> list[str]:
    """What is wrong with the app's keys, by the audit of the model."""
    seconds, micros = raw(module, b"TIME")
    now = int(seconds) * 1000 + int(micros) / 1000
    reply = raw(module, b"EVAL", SCRIPT, 1, module.app.client.keys.prefix, f"{now:.3f}")
    keys = [reply[at : at + 5] for at in range(1, len(reply), 5) if not reply[at].startswith(b"result:")]
    return violations(Snapshot.read([reply[0], *(part for key in keys for part in key)]), MAX_CRASHES)
