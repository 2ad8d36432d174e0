"""What is derived is worked out anew: whichever key is deleted, nothing stays stuck, and the ledger balances."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from taskq.broker.commands import announcing, auditing, holding, steering, ticking
from taskq.broker.protocol import drive
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.message.outcome import Again, Dead, Returned
from taskq.upkeep.housekeeping import upkeep
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import LEASE, World, raw_id
from tests.model.audit import violations

(OWN, OWN_2, KEYED, KEYED_2, RATED, RATED_2, PAUSED, GUARDED, PLAIN, RANKED, SUSPECT, LATER, DEAD, UNIQUE, RUNNING) = (
    map(raw_id, range(1, 16))
)
TASKS = {
    "own": ("own", "o 0 1 1"), "keyed": ("q", "k 0 1 1"), "rated": ("q", "s 60000 1 0"), "idle": ("q", ""),
    "guarded": ("q", "b 0.5 2 30000"), "t": ("q", ""), "p": ("p", ""),
}  # fmt: skip


def audited(world: World) -> Counter[str]:
    class Line:
        execute = staticmethod(world.run)

    world.raw("DEL", world.keys["audited"])
    return drive(upkeep(world.keys), Line(), lambda _seconds: None)  # type: ignore[arg-type]


def announced(fleet: Fleet) -> None:
    """What workers announce, at their start and again when it is missing."""
    for task, (queue, limits) in TASKS.items():
        fleet.world.run(announcing.publish_tasks(fleet.world.keys, [(task, queue, limits)]))
    for inc in fleet.calls:
        fleet.world.run(holding.register(fleet.world.keys, inc, LEASE, b"", fleet.queues))


def everything(world: World) -> Fleet:
    """An app with a message in each kind of place, and something of each kind that is derived."""
    fleet = Fleet(world, "own", "p", "q")
    announced(fleet)
    fleet.pause("idle")
    fleet.send(PLAIN, DEAD, SUSPECT, task="p", queue="p")
    assert fleet.take(3) == [PLAIN, DEAD, SUSPECT]
    fleet.fetch(Dead(DEAD, "failed", b"", b"F"))
    fleet.begin("other")
    fleet.fetch(Returned(PLAIN))
    fleet.lose("inc", SUSPECT)
    fleet.begin("inc")
    first = more(_1="x")
    fleet.send_all([
        sent(OWN, more(limited=True), "own", "own"), sent(OWN_2, more(limited=True), "own", "own"),
        sent(KEYED, first, "keyed"), sent(KEYED_2, first, "keyed"),
        sent(RATED, more(limited=True), "rated"), sent(RATED_2, more(limited=True), "rated"),
        sent(PAUSED, more(limited=True), "idle"),
    ])  # fmt: skip
    trips = [raw_id(100), raw_id(101)]
    fleet.send(*trips, head=more(limited=True), task="guarded")
    taken = {*fleet.take(20)}
    assert {OWN, KEYED, RATED, *trips} <= taken
    fleet.fetch(*(Dead(id_, "failed", b"", b"F") for id_ in trips))
    fleet.send(GUARDED, head=more(limited=True), task="guarded")
    fleet.fetch(*((id_, b"") for id_ in taken & {PLAIN, RATED}))
    fleet.send(RUNNING, head=more(lock="d0:t|running"), task="t")
    assert fleet.take(5) == [RUNNING]
    fleet.send_all([
        sent(UNIQUE, more(lock="d0:t|waiting"), "t"), sent(RANKED, more(priority=5), "t"),
        sent(LATER, b"", "t", options=b"d40000"), sent(raw_id(50), b"", "p", "p"),
    ])  # fmt: skip
    world.run(ticking.change_entry(world.keys, "define", "tick", b"r" * 16 + b"entry", "1"))
    return fleet


def ends(fleet: Fleet) -> None:
    """All that is held ends, all that waits runs, whatever time it takes; what stays is dead."""
    world = fleet.world
    world.run(steering.resume(world.keys, "idle"))
    for _ in range(12):
        for inc in fleet.calls:
            held = world.raw("HKEYS", world.keys["processing:" + inc])
            fleet.fetch(*((id_, b"") for id_ in held), inc=inc)
        world.at(world.now + 8000)
        fleet.renew()
        fleet.promote()
        fleet.take(20)
        if fleet.take(1, mode="solo", inc="other"):
            continue


def left(world: World) -> dict[str, Any]:
    """What ought to be gone when everything has ended, and is not."""
    state = world.state()
    dead = state.get("reasons", {})
    stuck = {"messages": {id_ for id_ in state.get("messages", {}) if id_ not in dead}}
    families = ("queue:", "ranked:", "gated:", "suspects:", "processing:")
    stuck |= {name: state[name] for name in state if name.startswith(families)}
    stuck |= {name: state[name] for name in ("slots", "gates", "unique", "schedule", "crashes") if name in state}
    return {name: content for name, content in stuck.items() if content}


def test_everything_is_sound_and_an_audit_finds_nothing(world: World) -> None:
    fleet = everything(world)

    assert audited(world) == {}
    ends(fleet)
    assert left(world) == {}


def test_who_serves_a_queue_is_worked_out_anew(world: World) -> None:
    Fleet(world)
    right = world.state()["serving"]
    world.raw("HSET", world.keys["serving"], "q", "gone")

    assert world.run(auditing.restore(world.keys, [("q", False, "set")])) == {"serving": 1}
    assert world.state()["serving"] == right == {b"q": b"set"}
    assert not world.run(auditing.restore(world.keys, [("q", False, "set")]))


@pytest.mark.parametrize("head", [b"", more(priority=3)], ids=["in order", "by rank"])
def test_what_runs_at_most_once_and_waits_is_no_riddle_for_an_audit(world: World, head: bytes) -> None:
    fleet = Fleet(world, "own", "q")
    fleet.publish("once", "", queue="own")
    for id_, queue, options in ((OWN, "own", b""), (PLAIN, "q", b"w")):
        value = encode_head("once", queue, at_most_once=True, more=head) + encode_envelope(id_, {}, b"")
        fleet.send_all([(id_, value, options)])
    letters = set(world.state()["marks"][b"q"])

    assert audited(world) == {}

    world.raw("HDEL", world.keys["marks"], "q")
    fleet.audited = False
    assert audited(world)["mark"] == len(letters)
    assert set(world.state()["marks"][b"q"]) == letters, "that it is a guest there is known again"


def test_a_lock_whose_time_is_over_or_whose_message_has_expired_is_nothing_to_mend(world: World) -> None:
    fleet = Fleet(world, "q")
    fleet.send(OWN, head=more(limited=True, lock="d500:t|for a time"))
    fleet.send(PLAIN, head=more(limited=True, lock="d0:t|expires"), options=b"x500")
    world.at(world.now + 1000)

    assert audited(world) == {}
    assert fleet.take(5) == [OWN]
    fleet.fetch((OWN, b""))
    assert left(world) == {}, "each goes with its message"


@pytest.mark.parametrize("again", ["suspect", "retry"])
def test_what_was_unique_until_its_start_and_waits_for_another_run_is_nothing_to_mend(world: World, again: str) -> None:
    fleet, head = Fleet(world, "q", incarnations=("inc", "other")), more(limited=True, lock="s0:t|k")
    fleet.send(OWN, head=head)
    assert fleet.take(1) == [OWN]
    if again == "suspect":
        fleet.lose("inc", OWN)
    else:
        stored = world.state()["messages"][OWN]
        fleet.fetch(Again(OWN, stored, 5.0, "retried"))

    assert audited(world) == {}
    assert "locks" not in audited(world)
    world.at(world.now + 6000)
    fleet.promote()
    assert fleet.take(1, mode="solo" if again == "suspect" else "", inc="other") == [OWN]
    fleet.fetch((OWN, b""), inc="other")
    assert left(world) == {}


NAMES = [
    "alarm", "arrivals", "audited", "bell:set", "breakers", "calls", "counters", "crashes", "dead:p", "dead:q", "gates",
    "leases", "limits", "marks", "messages", "openings", "paused", "processing:inc", "queue:own", "queue:p", "queue:q",
    "ranked:q", "ready:set", "reasons", "schedule", "serving", "set-leases", "sets", "slots", "solo-bell:set",
    "solo:set", "suspects:p", "tasks", "ticks", "turns", "unique", "workers",
]  # fmt: skip


#: What workers announce again when it is missing.
ANNOUNCED = {"calls", "leases", "limits", "serving", "set-leases", "sets", "tasks", "workers"}


@pytest.mark.parametrize("name", NAMES)
def test_whichever_key_is_deleted_nothing_stays_stuck(world: World, name: str) -> None:
    fleet = everything(world)
    world.raw("DEL", world.keys[name])
    if name in ANNOUNCED:
        announced(fleet)
    fleet.audited = False
    audited(world)

    assert audited(world) == {}, "a second audit finds nothing"
    assert set(world.balances().values()) == {0}
    snap = fleet.look()
    assert violations(snap) == []
    ends(fleet)
    assert left(world) == {}
    assert set(world.balances().values()) == {0}


def test_a_breaker_does_not_wait_for_a_probe_that_is_lost(world: World) -> None:
    fleet = everything(world)
    world.at(world.now + 31_000)
    fleet.renew()
    fleet.promote()
    assert GUARDED in fleet.take(5)
    world.raw("HDEL", world.keys["processing:inc"], GUARDED)
    fleet.audited = False

    assert audited(world)["gates"] == 1
    fleet.renew()
    fleet.promote()
    assert GUARDED in fleet.take(5)
    fleet.fetch((GUARDED, b""))
    assert world.state()["breakers"][b"guarded"].startswith(b"c ")


def test_slots_that_are_no_number_are_counted_anew(world: World) -> None:
    fleet = everything(world)
    world.raw("HSET", world.keys["slots"], "own#1", "an operator's hand")
    fleet.audited = False

    assert audited(world)["gates"] == 1
    assert world.state()["slots"][b"own#1"] == b"1"
