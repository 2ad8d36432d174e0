"""Histories from seeds: the decisions of workers, reapers, producers and waiters, without a server and without waiting.

``TASKQ_SEED=n`` plays one history and shows its trace; ``TASKQ_SOAK=1`` plays ten thousand.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq.broker.commands import keeping, leasing
from taskq.broker.net.connection import Connection
from taskq.broker.producer import Numbering
from taskq.broker.protocol import Protocol
from taskq.errors import BrokerRefused
from taskq.upkeep.reaper import Reaper
from taskq.worker.child.session import Session
from taskq.worker.seats import Seat
from tests.simulation.replay import differences
from tests.simulation.story import simulate
from tests.simulation.world import Violation
from tests.support import SOAK, Server, programs

pytestmark = pytest.mark.timeout(0 if SOAK else 300)

ONE = os.environ.get("TASKQ_SEED")
BLOCK = 1000 if SOAK else 80
HISTORIES = [range(n, n + BLOCK) for n in range(0, 10 * BLOCK if SOAK else 2 * BLOCK, BLOCK)]


@pytest.mark.parametrize("seeds", [[int(ONE)]] if ONE else HISTORIES, ids=lambda seeds: f"from-{seeds[0]}")
def test_whatever_happens_nothing_is_lost_doubled_or_stuck(seeds: range) -> None:
    for seed in seeds:
        simulate(seed, print if ONE else lambda _: None)


def digest(seed: int) -> str:
    return hashlib.sha256("\n".join(map(str, simulate(seed).trace)).encode()).hexdigest()


@pytest.mark.parametrize("order", ["1", "2"])
def test_a_seed_is_the_same_history_in_every_process(order: str) -> None:
    """Whatever the order in which a process goes through its sets."""
    script = f"from {__name__} import digest; print(*map(digest, range(3)))"
    environ = {**os.environ, "PYTHONHASHSEED": order, "TASKQ_TEST_CLOCK": "1"}
    root = Path(__file__).parents[2]
    output = subprocess.run([sys.executable, "-c", script], cwd=root, env=environ, capture_output=True, text=True)

    assert output.stdout.split() == [digest(seed) for seed in range(3)], output.stderr


def test_the_real_server_does_the_same(each_server: Server) -> None:
    connection = Connection(each_server.url)
    for seed in range(500 if SOAK else 20 // len(programs()) + 1):
        assert differences(simulate(seed), connection) == [], f"TASKQ_SEED={seed}"


# -- faults that are found: if they were not, the rest would say nothing --------------------------------------


def no_sync(_self: Session, _lost: int) -> Protocol[bool]:
    yield from ()
    return False


def send_as_new(self: Numbering, messages: Any, _failed: Any = None, send: Any = Numbering.send) -> Protocol[bytes]:
    return send(self, messages)  # type: ignore[no-any-return]


def reap_by_what_was_read(self: Reaper, reap: Any = Reaper.reap) -> Protocol[float]:
    for incarnation in (yield keeping.reap(self.keys, 10, dry_run=True)).moves:
        yield leasing.close(self.keys, incarnation, died=True, alone=False, running=())
    return (yield from reap(self))  # type: ignore[no-any-return]


def say_that_nothing_runs(_self: Seat) -> frozenset[bytes]:
    return frozenset()


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Session, "_sync", no_sync),
        (Numbering, "send", send_as_new),
        (Reaper, "reap", reap_by_what_was_read),
        (Seat, "running", say_that_nothing_runs),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_fault_is_found(
    owner: type, name: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, fault)

    with pytest.raises((Violation, BrokerRefused)):
        [simulate(seed) for seed in range(100)]
