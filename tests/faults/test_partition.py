"""A worker behind a network of its own that is cut and healed: its packets vanish, and nobody is told."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import JOBS, Journal, check_idle, each_by_its_url, nap
from tests.support import SEED, SOAK, Server, Start, Write, programs, wait_until

PORT = 6399


class Network:
    """A network namespace, joined to this one by a cable."""

    def __init__(self) -> None:
        self.name = f"tq{os.getpid()}"
        here, there, net = f"{self.name}a", f"{self.name}b", f"10.231.{os.getpid() % 256}"
        self.address, self._cable = f"{net}.1", here
        self.within = ("ip", "netns", "exec", self.name)
        ip("netns", "add", self.name)
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
        ip("address", "add", f"{net}.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", self.name, "address", "add", f"{net}.2/30", "dev", there)
        ip("-n", self.name, "link", "set", there, "up")

    def cut(self) -> None:
        """Let every packet vanish."""
        ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        """Let them through again."""
        ip("link", "set", self._cable, "up")

    def close(self) -> None:
        """Take it away, with the cable."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._cable], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def network() -> Iterator[Network]:
    if not shutil.which("ip"):
        pytest.skip("there is no `ip` to make a network with")
    made = Network.__new__(Network)
    try:
        made.__init__()  # type: ignore[misc]
    except subprocess.CalledProcessError as error:
        made.close()
        pytest.skip(f"no network may be made here: {error.stderr.decode().strip()}")
    yield made
    made.close()


@pytest.fixture
def far_server(network: Network, short_folder: Path) -> Iterator[Server]:
    """A server that also listens at the near end of the cable."""
    options = ("--port", str(PORT), "--bind", network.address, "--protected-mode", "no")
    server = Server(programs()["valkey"], Path(tempfile.mkdtemp(dir=short_folder)), *options)
    server.start()
    yield server
    server.stop()


#: Waits for a bell for a minute, on a thread's connection or a loop's; says when it begins to.
WAITS = """
import asyncio, sys
from taskq.broker.commands.awaiting import wait_bells
from taskq.broker.faults import Unanswered
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import Connection

connection = (Connection if sys.argv[1] == "thread" else AsyncConnection)(sys.argv[2])
print(flush=True)
try:
    wait = connection.execute(wait_bells([b"tq:{bell:0}:bell:b"], 60.0))
    if sys.argv[1] == "loop":
        asyncio.run(wait)
except Unanswered as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_who_waits_for_a_bell_soon_notices_that_the_other_end_is_gone(
    where: str, network: Network, far_server: Server
) -> None:
    words = [*network.within, sys.executable, "-c", WAITS, where, f"redis://{network.address}:{PORT}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        nap(1.0)
        network.cut()
        began = time.monotonic()
        try:
            said = process.stdout.readline()
            seconds = time.monotonic() - began
        finally:
            process.kill()

    assert said.strip(), "it hears an error"
    assert seconds < 10.0


@pytest.mark.timeout(180)
def test_an_isolated_worker_is_fenced_and_loses_nothing(
    network: Network, far_server: Server, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    chance, cuts = random.Random(SEED), [1.2, 2.0, 3.0] * 4 if SOAK else [2.5]  # seconds; a lease is one
    module = each_by_its_url(jobs(JOBS, url=far_server.url, settings="lease=1"))
    far_url = f"redis://{network.address}:{PORT}"
    isolated = start_worker("-c", "2", url=far_url, within=network.within)
    wait_until(lambda: len(isolated.children()) == 2, "it has started")
    victims, journal, n, handles = set(isolated.children()), Journal(tmp_path), 20, []

    def send(seconds: float) -> None:
        tasks = [module.work, module.work, *(chance.choice([module.work, module.awork]) for _ in range(n - 2))]
        handles.extend([task.delay(len(handles) + i, seconds) for i, task in enumerate(tasks)])

    def works_again(before: Counter[int]) -> bool:
        send(0.0)
        nap(0.05)
        return bool(victims & set(journal.read().pids - before))

    beside = None
    for seconds in cuts:
        send(0.2)
        journal.wait_for(len(handles) - n + 2)
        beside = beside or start_worker("-c", "2", url=far_server.url)
        network.cut()
        nap(seconds)
        send(0.01)  # accepted meanwhile
        network.heal()
        before = journal.read().pids.copy()
        wait_until(lambda before=before: works_again(before), "it works again", 15.0)

    assert [handle.get(timeout=30) for handle in handles] == [*range(len(handles))], isolated.log
    check_idle(module)
    assert journal.unexplained(victims) == {}, isolated.log
    assert "starting anew" in isolated.log
    print(
        f"seed {SEED}: cut {len(cuts)} times for {min(cuts)} to {max(cuts)} leases: {len(handles)} messages, "
        f"{journal.repeats} reruns, {isolated.log.count('starting anew')} lanes fenced"
    )
