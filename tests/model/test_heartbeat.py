"""The parent's side of the fence: what it says of its children's leases."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.commands import holding, keeping, leasing
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import Now, Protocol, Sleep, boottime, drive
from taskq.broker.queue_set import QueueSet
from taskq.worker.parent.chores import Chore
from taskq.worker.parent.heartbeat import Heartbeat
from taskq.worker.plan import Plan
from taskq.worker.seats import CAPACITY, Seat, region_size
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
        self.seat = Seat(mmap.mmap(-1, region_size(CAPACITY)), 0, CAPACITY)
        self.seat.clear()
        self.seat.begin(INCARNATION, 0.0)
        self.line = Connection(app.client.url)
        self.proxied = Connection(url)
        plan = Plan("jobs", "worker", 1, 1, 1.0, False, QUEUES, NONE, NONE, announced=1)
        self.plan, self.words = plan, list[str]()
        self.chore = Chore("clean", 60.0, self.clean)
        self.cleaned = 0
        self.heartbeat = Heartbeat(
            self.keys, self.proxied, plan, LEASE, [self.seat], lambda: None, lambda incarnation, id_: None,
            [self.chore], lambda incarnation: b"what it is", self.words.append,
        )  # fmt: skip
        self.raw("HSET", "published", "=", "1")
        register = holding.register(self.keys, INCARNATION, int(LEASE * 1000), b"", QUEUES)
        self.line.execute(register)

    def beat(self) -> float:
        """Renew once; answers until when the lane may start anything."""
        drive(self.heartbeat._renew(boottime()), self.proxied)
        return self.seat.lease_until

    def raw(self, verb: str, name: str, *words: bytes | str) -> Any:
        """Run a plain command on one of the app's keys."""
        return self.line.execute(Command(None, [verb, self.keys[name], *words], lambda reply: reply))

    def clean(self) -> Protocol[None]:
        yield Now()
        self.cleaned += 1

    def turn(self) -> bool:
        """Do everything there is to do, without waiting; answers whether the lease was renewed."""
        self.heartbeat._renew_at = self.heartbeat._reap_at = 0.0
        before = self.seat.lease_until
        self.heartbeat.ended = False
        steps = self.heartbeat.keep()

        def without_waits() -> Protocol[None]:
            reply: Any = None
            while True:
                try:
                    step = steps.send(reply) if not isinstance(reply, Exception) else steps.throw(reply)
                except StopIteration:
                    return
                if isinstance(step, Sleep) or (isinstance(step, Command) and step.block):
                    self.heartbeat.ended, reply = True, None
                    continue
                try:
                    reply = yield step
                except Exception as error:
                    reply = error

        drive(without_waits(), self.line)
        return self.seat.lease_until > before

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
    parent.line.execute(leasing.close(parent.keys, INCARNATION, died=False, alone=False, running=()))

    assert parent.beat() == before


def test_an_answer_about_an_incarnation_that_is_gone_is_not_given_to_its_successor(
    parent: Parent, proxy: Proxy
) -> None:
    """The lane begins anew while the renewal is under way."""
    parent.beat()

    def begin_anew(number: int, call: bytes) -> str:
        parent.seat.begin("b" * 16, 1.0)
        return "pass"

    proxy.decide = begin_anew

    assert parent.beat() == 1.0


BAD = {
    "a queue whose name is no text": [("HSET", "counters", b"\xff|accepted", "1")],
    "a counter that is no number": [("HSET", "counters", "t|accepted", "many")],
    "a pause that nobody wrote": [("HSET", "counters", "t|accepted", "1"), ("HSET", "paused", "t", b"\xff since")],
    "an entry whose name is no text": [("HSET", "periodic", b"\xff", "x"), ("ZADD", "ticks", "1", b"\xff")],
    "a tick that is no number": [
        ("HSET", "periodic", "e", "x"), ("HSET", "entry:e", "tick", "soon"), ("ZADD", "ticks", "1", "e")
    ],
    "an entry of the wrong type": [
        ("HSET", "periodic", "e", "x"), ("SET", "entry:e", "x"), ("ZADD", "ticks", "1", "e")
    ],
    "times that are no numbers": [("SET", "pulse", "noon"), ("HSET", "published", "=", "noon", "@jobs", "noon")],
    "settings that are no numbers": [("HSET", "settings", "lease", "long", "dead_ttl", "for ever")],
    "an incarnation whose name is no text": [("ZADD", "leases", "1", b"\xff"), ("HSET", "calls", b"\xff", "0")],
    "a held message of a queue that is no text": [
        ("ZADD", "leases", "1", "gone"), ("HSET", "calls", "gone", "0"),
        ("HSET", "processing:gone", b"x" * 16, b"1 \xff")
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_nothing_that_somebody_has_stored_keeps_a_worker_from_its_leases(
    parent: Parent, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert parent.turn(), "the pulse is fresh"
    for verb, name, *words in BAD[what]:
        parent.raw(verb, name, *words)

    for _ in range(2):
        assert parent.turn()
    assert (parent.heartbeat.trouble, parent.heartbeat._reaper.stumbles) == ("", {}), caplog.text


@pytest.mark.parametrize("key", ["ticks", "schedule", "set-leases:", "alarm"])
def test_a_key_of_the_wrong_type_is_said_once_and_counted_and_leases_are_renewed(
    parent: Parent, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = key.rstrip(":")
    parent.raw("DEL", name)
    parent.raw(*(("SET", name, "x") if name != "alarm" else ("HSET", name, "x", "y")))

    renewed = [parent.turn() for _ in range(3)]

    if name == "set-leases":  # it is in the way of the renewal itself
        assert "WRONGTYPE" in parent.heartbeat.trouble
        return
    assert renewed == [True] * 3
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == len(parent.heartbeat._reaper.stumbles), [record.getMessage() for record in said]
    assert name == "alarm" or set(parent.heartbeat._reaper.stumbles.values()) == {3}


def test_an_answer_that_makes_no_sense_stops_nothing(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    promotion, renew = keeping._promotion, leasing._renewal
    monkeypatch.setattr(keeping, "_promotion", lambda reply: promotion(None))
    assert parent.turn()
    assert parent.heartbeat._reaper.stumbles == {"promote what is due": 1}

    monkeypatch.setattr(leasing, "_renewal", lambda reply: renew(None))
    assert not parent.turn()
    assert "TypeError" in parent.heartbeat.trouble

    monkeypatch.undo()
    assert parent.turn()
    assert parent.heartbeat.trouble == ""


def test_what_else_is_to_be_done_is_done_at_once_when_the_server_has_lost_something(parent: Parent) -> None:
    assert (parent.turn(), parent.turn(), parent.cleaned) == (True, True, 1)
    parent.raw("DEL", "published")

    parent.turn()
    assert parent.cleaned == 2
    parent.raw("HSET", "published", "=", "1")
    parent.raw("DEL", "sets")
    parent.turn()
    assert parent.cleaned == 3


def test_the_server_learns_again_what_an_incarnation_is(parent: Parent) -> None:
    parent.raw("DEL", "workers")
    parent.turn()
    parent.turn()

    assert parent.raw("HGET", "workers", INCARNATION) == b"what it is"


def test_what_a_worker_serves_is_lost_only_if_it_was_known_before(
    parent: Parent, caplog: pytest.LogCaptureFixture
) -> None:
    """The first renewal may come before any child has said what it serves."""
    parent.raw("DEL", "sets")
    parent.beat()
    assert caplog.text == ""

    parent.raw("DEL", "sets")
    parent.beat()
    assert "the server had lost what this worker serves" in caplog.text


def test_after_a_bell_that_nobody_heard_the_next_renewal_comes_soon(parent: Parent) -> None:
    """Who took its token may be gone, and so may be the next."""
    parent.raw("ZADD", f"ready:{QUEUES.id}", "1", "t")
    parent.turn()
    soon = parent.heartbeat._renew_at - boottime()
    assert parent.raw("LPOP", f"bell:{QUEUES.id}") == b"1"

    parent.turn()
    assert parent.raw("LLEN", f"bell:{QUEUES.id}") == 1
    parent.turn()
    later = parent.heartbeat._renew_at - boottime()

    assert soon < 0.5 < 3.0 < later


def test_a_word_for_this_worker_is_heard(parent: Parent) -> None:
    parent.raw("RPUSH", f"orders:{parent.plan.id}", "stop")
    drive(parent.heartbeat._wait(5.0), parent.proxied)

    assert parent.words == ["stop"]


def test_a_quiet_worker_serves_nothing_and_leaves_the_bells_of_suspects_to_others(parent: Parent) -> None:
    parent.beat()
    assert parent.raw("HKEYS", "serving")
    for name in ("serving", "sets", "set-leases"):
        parent.raw("DEL", name)
    parent.raw("RPUSH", f"solo-bell:{QUEUES.id}", "1")

    parent.heartbeat.quiet = True
    assert parent.beat() > 0.0, "its lanes keep their leases"
    drive(parent.heartbeat._wait(0.3), parent.proxied)

    assert not parent.raw("HKEYS", "serving")
    assert parent.raw("LLEN", f"solo-bell:{QUEUES.id}") == 1
