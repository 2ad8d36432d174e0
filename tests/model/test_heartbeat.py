"""The parent's side of the fence: what it says of its children's leases."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest

from taskq import TaskQ
from taskq.broker import commands
from taskq.broker.commands import QueueSet
from taskq.broker.connection import Connection
from taskq.broker.protocol import boottime, drive
from taskq.worker.heartbeat import Heartbeat
from taskq.worker.plan import Plan
from taskq.worker.slots import CAPACITY, Slot, region_size
from tests.faults.proxy import Proxy
from tests.support import Server

LEASE = 10.0
QUEUES, NONE = QueueSet.of(["t"]), QueueSet("", ())
INCARNATION = "a" * 16


@pytest.fixture
def proxy(session_server: Server) -> Iterator[Proxy]:
    made = Proxy(session_server.socket)
    yield made
    made.close()


class Parent:
    """A heartbeat that beats when it is told to, for one lane."""

    def __init__(self, app: TaskQ, url: str) -> None:
        self.keys = app.client.keys
        self.slot = Slot(mmap.mmap(-1, region_size(CAPACITY)), 0, CAPACITY)
        self.slot.clear()
        self.slot.begin(INCARNATION, 0.0)
        self.line = Connection(app.client.url)
        self.proxied = Connection(url)
        plan = Plan("jobs", "worker", 1, 1, 1.0, False, QUEUES, NONE, NONE)
        self.heartbeat = Heartbeat(
            self.keys, self.proxied, plan, LEASE, [self.slot], lambda: None, lambda incarnation, id_: None
        )
        register = commands.register(self.keys, INCARNATION, int(LEASE * 1000), b"", QUEUES)
        self.line.execute(register)

    def beat(self) -> float:
        """Renew once; answers until when the lane may start anything."""
        drive(self.heartbeat._renew(boottime()), self.proxied)
        return self.slot.lease_until

    def close(self) -> None:
        self.proxied.close()
        self.line.close()


@pytest.fixture
def parent(app: TaskQ, proxy: Proxy) -> Iterator[Parent]:
    made = Parent(app, proxy.url)
    yield made
    made.close()


def test_a_lease_is_counted_from_the_asking_and_not_from_the_answer(parent: Parent, proxy: Proxy) -> None:
    """The server counts from somewhere in between: what the lane believes must end first."""
    parent.beat()
    proxy.latency = 0.3

    until = parent.beat()

    assert until - LEASE <= boottime() - 0.3


def test_a_lane_whose_incarnation_is_lost_gets_no_more_time(parent: Parent) -> None:
    before = parent.beat()
    parent.line.execute(commands.close(parent.keys, INCARNATION, died=False, alone=False, running=()))

    assert parent.beat() == before


def test_an_answer_about_an_incarnation_that_is_gone_is_not_given_to_its_successor(
    parent: Parent, proxy: Proxy
) -> None:
    """The lane begins anew while the renewal is under way."""
    parent.beat()

    def begin_anew(number: int, call: bytes) -> str:
        parent.slot.begin("b" * 16, 1.0)
        return "pass"

    proxy.decide = begin_anew

    assert parent.beat() == 1.0
