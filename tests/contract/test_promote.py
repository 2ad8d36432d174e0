"""promote: what is due goes to its queue, and one keeps the time."""

from __future__ import annotations

import pytest

from taskq.broker.call import Command
from taskq.broker.commands import keeping, leasing
from taskq.broker.keys import Keys
from taskq.broker.protocol import drive
from taskq.message.outcome import Again
from taskq.upkeep.listening import listen
from tests.contract.fleet import Fleet, sent
from tests.contract.world import (
    LEASE,
    MINUTE,
    T0,
    Near,
    Scores,
    State,
    World,
    message,
    messages,
    raw_id,
    serving,
    without,
)
from tests.support import wait_until

A, B, C, D = map(raw_id, range(1, 5))
KEEP = 5000


def promote(keys: Keys, who: str, limit: int, keep_ms: int) -> Command[tuple[int, float | None]]:
    """The command, without what it says of periodic entries (see ``test_periodic.py``)."""
    command = keeping.promote(keys, who, limit, keep_ms)
    return Command(command.script, command.args, lambda reply: (command.parse(reply).moved, command.parse(reply).wait))


def scheduled(**due: float) -> State:
    """Messages ``A`` … by their due times."""
    ids = {"A": A, "B": B, "C": C, "D": D}
    return {
        "messages": messages(*(ids[name] for name in due)),
        "schedule": Scores({ids[name]: at for name, at in due.items()}),
        "counters": {b"q|scheduled": b"%d" % len(due)},
    }


def keeper(world: World) -> tuple[str, float]:
    who, until = world.state()["keeper"].decode().split()
    return who, float(until)


def test_what_is_due_goes_to_the_end_of_its_queue_in_order_of_time(world: World) -> None:
    before = world.seed(
        serving("inc"), scheduled(A=T0 - 1.0, B=T0 - 3.0, C=T0 - 2.0, D=T0 + 3000.0), {"queue:q": [b"first"]}
    )

    moved, wait = world.run(promote(world.keys, "me", 100, KEEP))

    assert (moved, wait) == (3, pytest.approx(3, abs=1))
    assert keeper(world) == ("me", Near(T0 + 3000))
    assert without(world.state(), "keeper") == before | {
        "schedule": Scores({D: T0 + 3000.0}),
        "queue:q": [b"first", B, C, A],
        "counters": {b"q|scheduled": b"1"},
    }


def test_a_queue_that_was_empty_is_announced(world: World) -> None:
    before = world.seed(serving("inc"), scheduled(A=T0 - 1.0))

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (1, None)
    assert world.state() == without(before, "schedule") | {
        "queue:q": [A],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|scheduled": b"0"},
    }


def test_a_message_with_counted_deaths_is_still_a_suspect(world: World) -> None:
    before = world.seed(serving("inc"), scheduled(A=1.0, B=2.0), {"crashes": {B: b"1"}})

    assert world.run(promote(world.keys, "me", 100, KEEP))[0] == 2
    assert world.state() == without(before, "schedule") | {
        "queue:q": [A],
        "suspects:q": [B],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|scheduled": b"0"},
    }


def test_no_more_than_the_limit_moves_and_the_caller_is_to_come_again_at_once(world: World) -> None:
    world.seed(scheduled(A=1.0, B=2.0, C=3.0))

    assert world.run(promote(world.keys, "me", 2, KEEP)) == (2, 0)
    assert world.run(promote(world.keys, "me", 2, KEEP)) == (1, None)
    assert world.state()["queue:q"] == [A, B, C]


def test_what_is_not_due_stays_and_the_caller_keeps_the_time(world: World) -> None:
    before = world.seed(scheduled(A=T0 + 60.0 * MINUTE))

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (0, KEEP / 1000)
    assert keeper(world) == ("me", Near(T0 + KEEP))
    assert without(world.state(), "keeper") == before
    assert KEEP < world.ttl("keeper") <= KEEP + 1000


def test_an_empty_schedule_needs_no_keeper(world: World) -> None:
    before = world.dump()

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (0, None)
    assert world.dump() == before


def test_another_than_the_keeper_comes_half_a_second_later(world: World) -> None:
    world.seed(scheduled(A=T0 + 60.0 * MINUTE))
    world.run(promote(world.keys, "me", 100, KEEP))
    before = world.dump()

    moved, wait = world.run(promote(world.keys, "you", 100, KEEP))

    assert moved == 0
    assert wait == pytest.approx(KEEP / 1000 + 0.5, abs=0.2)
    assert world.dump() == before


def test_the_keeper_itself_goes_on_keeping_the_time(world: World) -> None:
    world.seed(scheduled(A=T0 + 60.0 * MINUTE))
    world.run(promote(world.keys, "me", 100, KEEP))
    world.at(T0 + KEEP - 1500)

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (0, KEEP / 1000)
    assert keeper(world) == ("me", Near(T0 + 2 * KEEP - 1500))


def test_a_keeper_that_came_and_found_nothing_is_relied_on_no_more(world: World) -> None:
    """It waits for the alarm like all others then, and whoever hears that must see to what comes next."""
    world.seed(scheduled(A=T0 + 50.0))
    world.run(promote(world.keys, "me", 100, KEEP))
    world.at(T0 + 50)
    assert world.run(promote(world.keys, "me", 100, KEEP)) == (1, None)
    assert "keeper" not in world.names()
    world.seed({"schedule": Scores({B: T0 + 2000.0}), "messages": messages(B)})

    moved, wait = world.run(promote(world.keys, "you", 100, KEEP))

    assert (moved, wait) == (0, pytest.approx(1.95, abs=0.4))
    assert keeper(world)[0] == "you"


def test_a_keeper_that_did_not_come_is_replaced(world: World) -> None:
    world.seed(scheduled(A=T0 + 60.0 * MINUTE))
    world.run(promote(world.keys, "me", 100, KEEP))
    world.at(T0 + KEEP + 200)

    assert world.run(promote(world.keys, "you", 100, KEEP)) == (0, KEEP / 1000)
    assert keeper(world)[0] == "you"


def test_a_keeper_that_comes_too_late_for_an_earlier_message_is_replaced(world: World) -> None:
    world.seed(scheduled(A=T0 + 60.0 * MINUTE))
    world.run(promote(world.keys, "me", 100, KEEP))
    world.seed({"schedule": Scores({B: T0 + 2000.0}), "messages": messages(B)})

    moved, wait = world.run(promote(world.keys, "you", 100, KEEP))

    assert (moved, wait) == (0, pytest.approx(2, abs=0.5))
    assert keeper(world) == ("you", Near(T0 + 2000))


def test_an_id_without_a_message_leaves_the_schedule_and_is_left_to_the_audit(world: World) -> None:
    world.seed({"schedule": Scores({A: 1.0})})

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (1, None)
    assert world.state() == {}


@pytest.mark.parametrize("value", [b"", b"\x02\x00", b"\x01\x00" + bytes(8) + b"\x05t", b"\x01\x01" + bytes(8)])
def test_a_message_whose_head_cannot_be_read_is_a_dead_letter(world: World, value: bytes) -> None:
    world.seed({"schedule": Scores({A: 1.0}), "messages": {A: value}})

    assert world.run(promote(world.keys, "me", 100, KEEP)) == (1, None)
    assert world.state() == {
        "messages": {A: value},
        "dead:unreadable": Scores({A: Near(T0)}),
        "reasons": {A: b"unreadable\n"},
        "counters": {b"unreadable|died": b"1"},
    }


@pytest.mark.parametrize("seconds", [0.01, 30.0])
def test_whoever_waits_for_a_due_time_hears_a_bell_however_short_the_wait_is(world: World, seconds: float) -> None:
    bells = [world.keys["alarm"], world.keys["solo-bell:set"]]
    assert drive(listen(bells, 0.01), world.connection) is None
    world.seed({"solo-bell:set": [b"1"]})

    assert drive(listen(bells, seconds), world.connection) == [
        world.keys["solo-bell:set"],
        b"1",
    ]
    assert world.state() == {}


def test_again_it_finds_nothing_more_to_move(world: World) -> None:
    world.seed(scheduled(A=1.0, B=T0 + MINUTE))
    world.run(promote(world.keys, "me", 100, KEEP))
    before = without(world.state(), "keeper")

    assert world.run(promote(world.keys, "me", 100, KEEP))[0] == 0
    assert without(world.state(), "keeper") == before


# -- a clock that is set back ------------------------------------------------------------------------------------


def set_back(world: World, ms: float) -> None:
    """The clock goes back, and somebody's renewal notices."""
    world.run(leasing.renew(world.keys, LEASE, [], []))
    world.at(world.now - ms)
    world.run(leasing.renew(world.keys, LEASE, [], []))


def test_what_waits_for_some_seconds_waits_as_long_though_the_clock_is_set_back(world: World) -> None:
    """A delay, a retry and a deferred call; an eta is a time of the day, and stays."""
    fleet = Fleet(world)
    fleet.send(A, B)
    assert fleet.take(2) == [A, B]
    fleet.fetch(Again(A, message(A), 10.0, "retried"), Again(B, message(B), 20.0, "deferred"))
    fleet.send(C, options=b"d30000")
    fleet.send(D, options=b"a%d" % (T0 + 40_000))

    set_back(world, 120 * MINUTE)

    for ms, id_ in ((10_100, A), (20_100, B), (30_100, C)):
        world.at(T0 - 120 * MINUTE + ms)
        assert fleet.take(9) == [id_]
    world.at(T0 + 39_000)
    assert fleet.take(9) == []
    world.at(T0 + 40_100)
    assert fleet.take(9) == [D]


def test_a_schedule_of_thousands_moves_with_the_clock_but_for_its_etas(world: World) -> None:
    """Page by page; what was moved stands among what was looked at, in whatever order they are."""
    fleet = Fleet(world)
    kinds = [b"a%d" if i % 7 == 0 else b"d%d" for i in range(2500)]
    with fleet.unaudited():
        fleet.send_all([
            sent(raw_id(i), options=kind % (i * 1000 + MINUTE + (T0 if kind[:1] == b"a" else 0)))
            for i, kind in enumerate(kinds)
        ])  # fmt: skip
        before = world.state()["schedule"]
        set_back(world, 1000 * 1000)
        after = world.state()["schedule"]

    for i, kind in enumerate(kinds):
        moved = before[raw_id(i)] - after[raw_id(i)]
        assert moved == pytest.approx(0 if kind[:1] == b"a" else 1000 * 1000, abs=1), f"message {i}"


def test_a_clock_that_is_set_back_lets_the_next_audit_begin_and_another_keep_the_time(world: World) -> None:
    world.raw("SET", world.keys["audited"], 1, "PX", MINUTE)
    world.seed({"keeper": b"gone %d" % (T0 + 4000)}, scheduled(A=T0 + 4000.0))

    set_back(world, 120 * MINUTE)

    wait_until(lambda: not {"audited", "keeper"} & set(world.names()), "both are forgotten")
    assert world.run(promote(world.keys, "me", 100, KEEP)) == (0, pytest.approx(4, abs=0.1))
