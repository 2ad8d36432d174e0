"""reap: incarnations whose lease has ended."""

from __future__ import annotations

import pytest

from taskq.broker.commands.holding import Lost, fetch
from taskq.broker.commands.keeping import reap
from taskq.broker.commands.leasing import Move
from taskq.broker.commands.outcomes import words
from taskq.broker.protocol import drive
from taskq.broker.queue_set import QueueSet
from taskq.upkeep.reaper import Reaper
from tests.contract.world import (
    LEASE,
    MINUTE,
    T0,
    Near,
    Scores,
    State,
    World,
    messages,
    raw_id,
    serving,
    without,
)

A, B, C, D, E = map(raw_id, range(1, 6))
PULSE: State = {"pulse": b"%d" % (T0 - 1000)}


def ended(*ids: bytes, accepted: float = T0 - 9000.0, **more: object) -> State:
    """The lease of ``inc``, which holds these, ended a second ago; another serves on."""
    values: dict[bytes, bytes] = {}
    for n, id_ in enumerate(ids):
        values |= messages(id_, accepted=accepted + n)
    state = serving("inc", "other") | PULSE
    state["leases"] = Scores({b"inc": T0 - 1000.0, b"other": T0 + 9000.0})
    return state | {"messages": values, "processing:inc": dict.fromkeys(ids, b"1 q")} | more


def reaped(before: State) -> State:
    """The same without the incarnation."""
    rest = {name: {k: v for k, v in before[name].items() if k != b"inc"} for name in ("calls", "workers")}
    leases = Scores({b"other": before["leases"][b"other"]})
    rest["terms"] = Scores({b"other": float(LEASE)})
    return without(before, "processing:inc") | rest | {"leases": leases, "pulse": Near(T0)}


def places(world: World) -> list[str]:
    return [move.place for move in world.run(reap(world.keys, 10)).moves["inc"]]


def test_a_lease_that_has_not_ended_is_left_alone(world: World) -> None:
    before = world.seed(serving("inc"), PULSE, {"messages": messages(A), "processing:inc": {A: b"1 q"}})

    reaping = world.run(reap(world.keys, 10))

    assert reaping.moves == {}
    assert reaping.next_end == pytest.approx(LEASE / 1000, abs=1)
    assert world.state() == before | {"pulse": Near(T0)}


def test_without_leases_there_is_no_next_end(world: World) -> None:
    assert world.run(reap(world.keys, 10)).next_end is None


def test_the_only_message_it_held_is_counted_and_becomes_a_suspect(world: World) -> None:
    before = world.seed(ended(A))

    reaping = world.run(reap(world.keys, 10))

    assert reaping.moves == {"inc": [Move(A, "q", "suspect")]}
    assert reaping.next_end == pytest.approx(9, abs=1)
    assert world.state() == reaped(before) | {
        "suspects:q": [A],
        "crashes": {A: b"1"},
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|recovered": b"1", b"q|crashes": b"1"},
    }


def test_of_several_all_become_suspects_in_order_and_none_is_counted(world: World) -> None:
    before = world.seed(ended(C, A, B, **{"suspects:q": [D]}))

    reaping = world.run(reap(world.keys, 10))

    assert [move.id for move in reaping.moves["inc"]] == [C, A, B]
    assert world.state() == reaped(before) | {
        "suspects:q": [C, A, B, D],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|recovered": b"3"},
    }


def test_the_second_counted_death_runs_after_a_second(world: World) -> None:
    before = world.seed(ended(A, crashes={A: b"1"}))

    assert places(world) == ["scheduled"]
    assert world.state() == reaped(before) | {
        "schedule": Scores({A: Near(T0 + 1000)}),
        "alarm": [b"1"],
        "crashes": {A: b"2"},
        "counters": {b"q|recovered": b"1", b"q|crashes": b"1", b"q|scheduled": b"1"},
    }


def test_the_third_counted_death_makes_a_dead_letter(world: World) -> None:
    before = world.seed(ended(A, crashes={A: b"2"}), {"waiters": {A: b"in"}})

    assert places(world) == ["dead"]
    assert world.state() == without(reaped(before), "crashes", "waiters") | {
        "dead:q": Scores({A: Near(T0)}),
        "reasons": {A: b"crashed\n"},
        f"result:{A.decode()}": b"Dcrashed",
        "inbox:in": [b"\x10" + A + b"Dcrashed"],
        "counters": {b"q|recovered": b"1", b"q|crashes": b"1", b"q|died": b"1"},
    }


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, "suspect"),
        ({b"discard_after": b"60000"}, "dead"),
        ({b"discard_after": b"180000"}, "suspect"),
        ({b"discard_after": b"180000", b"discard_after:t": b"60000"}, "dead"),
        ({b"discard_after": b"60000", b"discard_after:t": b"180000"}, "suspect"),
        ({b"discard_after:other": b"60000"}, "suspect"),
    ],
)
def test_the_discard_window_counts_from_acceptance_by_app_and_by_task(
    world: World, settings: dict[bytes, bytes], place: str
) -> None:
    world.seed(ended(A, accepted=T0 - 2.0 * MINUTE), {"settings": settings} if settings else {})

    assert places(world) == [place]
    after = world.state()
    assert after.get("dead:q") == (Scores({A: Near(T0)}) if place == "dead" else None)
    assert ("reasons" in after and after["reasons"][A].startswith(b"discarded")) == (place == "dead")


def test_a_message_that_merely_waits_is_never_discarded_by_age(world: World) -> None:
    waiting = {"queue:q": [B], "suspects:q": [C], "schedule": Scores({D: T0 + 1.0 * MINUTE})}
    before = world.seed(ended(A), waiting, {"settings": {b"discard_after": b"1"}, "messages": messages(B, C, D)})

    world.run(reap(world.keys, 10))

    after = world.state()
    assert {name: after[name] for name in waiting} == waiting
    assert after["messages"] == before["messages"]


def test_a_reaped_incarnation_cannot_settle_any_more(world: World) -> None:
    world.seed(ended(A, B))
    world.run(reap(world.keys, 10))
    before = world.dump()

    with pytest.raises(Lost):
        world.run(fetch(world.keys, "inc", 1, words([(A, b"Sa"), (B, b"")], 1000)))

    assert world.dump() == before


def test_a_dry_run_says_what_is_held_and_changes_nothing(world: World) -> None:
    world.seed(ended(A, B, crashes={A: b"2"}), {"set-leases": Scores({b"old": 1.0}), "sets": {b"old": b"q"}})
    world.raw("DEL", world.keys["pulse"])
    before = world.dump()

    reaping = world.run(reap(world.keys, 10, dry_run=True))

    assert reaping.moves == {"inc": [Move(A, "q", "held"), Move(B, "q", "held")]}
    assert world.dump() == before


def test_one_that_held_nothing_is_forgotten(world: World) -> None:
    before = world.seed(without(ended(), "processing:inc", "messages"))

    assert world.run(reap(world.keys, 10)).moves == {"inc": []}
    assert world.state() == without(reaped(before | {"processing:inc": {}}))


def test_at_most_as_many_as_asked_for_are_reaped_and_the_rest_is_due_at_once(world: World) -> None:
    names = [f"inc{i:02}" for i in range(12)]
    world.seed(serving(*names), PULSE, {"leases": Scores({n.encode(): T0 - 1000.0 + i for i, n in enumerate(names)})})

    first = world.run(reap(world.keys, 10))
    second = world.run(reap(world.keys, 10))

    assert (sorted(first.moves), first.next_end) == (names[:10], 0)
    assert (sorted(second.moves), second.next_end) == (names[10:], None)


def test_again_it_finds_nothing_more_to_do(world: World) -> None:
    world.seed(ended(A, B))
    world.run(reap(world.keys, 10))
    before = without(world.state(), "pulse")

    assert world.run(reap(world.keys, 10)).moves == {}
    assert without(world.state(), "pulse") == before


def test_incarnations_that_cannot_be_recovered_are_in_nobodys_way(world: World) -> None:
    """As many of them as are looked at in one call: what they held waits, what others held is recovered."""
    before = world.seed(ended(A))
    bad = [f"bad{i:02}" for i in range(12)]
    for name in bad:
        world.seed({"leases": Scores({name.encode(): T0 - 5000.0}), f"processing:{name}": b"x"})
        world.seed({"calls": {name.encode(): b"0"}})

    reapings = [world.run(reap(world.keys, 10)) for _ in range(2)]

    assert sorted({**reapings[0].failed, **reapings[1].failed}) == bad
    assert all("WRONGTYPE" in why for reaping in reapings for why in reaping.failed.values())
    assert {**reapings[0].moves, **reapings[1].moves} == {"inc": [Move(A, "q", "suspect")]}
    assert world.state()["leases"] == Scores(
        {**{name.encode(): Near(T0 + LEASE / 3) for name in bad}, b"other": before["leases"][b"other"]}
    ), "they are tried again, after the others"
    world.raw("DEL", *(world.keys[f"processing:{name}"] for name in bad))


def test_a_part_of_the_upkeep_that_fails_is_in_no_others_way(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """`taskq reaper` goes on for this app and for others, and says once what is wrong."""
    world.seed(ended(A), {"ticks": b"x"})
    reaper = Reaper(world.keys, "me", 15.0)

    assert [drive(reaper.step(), world.connection) for _ in range(2)] == [1.0, 1.0]

    assert world.state()["suspects:q"] == [A]
    assert reaper.stumbles == {"promote what is due": 2}
    assert caplog.text.count("cannot promote what is due; everything else goes on") == 1
    world.raw("DEL", world.keys["ticks"])


def test_a_set_nobody_serves_any_more_is_dropped(world: World) -> None:
    before = world.seed(
        serving("inc"),
        PULSE,
        {
            "sets": {b"old": b"p q"},
            "serving": {b"q": b"set old", b"p": b"old"},
            "set-leases": Scores({b"old": T0 - LEASE - 1000.0}),
            "ready:old": Scores({b"p": 1.0}),
            "bell:old": [b"1"],
            "solo:old": Scores({b"p": 1.0}),
            "solo-bell:old": [b"1"],
            "queue:p": [A],
        },
    )

    world.run(reap(world.keys, 10))

    gone = ("ready:old", "bell:old", "solo:old", "solo-bell:old")
    assert world.state() == without(before, *gone) | serving("inc") | {"pulse": Near(T0)}


def test_a_set_is_kept_for_one_more_lease(world: World) -> None:
    before = world.seed(serving("inc"), PULSE, {"set-leases": Scores({b"set": T0 - LEASE + 1000.0})})

    world.run(reap(world.keys, 10))

    assert world.state() == before | {"pulse": Near(T0)}


def test_a_name_that_begins_like_another_is_told_apart(world: World) -> None:
    queues = QueueSet("set", ("q",))
    world.seed(
        serving("inc", queues=queues),
        PULSE,
        {"sets": {b"se": b"q"}, "serving": {b"q": b"se set"}, "set-leases": Scores({b"se": 1.0})},
    )

    world.run(reap(world.keys, 10))

    assert world.state()["serving"] == {b"q": b"set"}


def test_one_that_cannot_be_recovered_does_not_keep_the_others_from_it(world: World) -> None:
    bad = [f"bad{n:02}" for n in range(12)]
    world.seed(serving(*bad, until=T0 - 2), {f"processing:{inc}": b"an operator's hand" for inc in bad})
    world.seed({"pulse": str(T0).encode(), "messages": messages(A), "processing:good": {A: b"1 q"}})
    world.seed(serving("good", until=T0 - 1))

    first, second = world.run(reap(world.keys, 10)), world.run(reap(world.keys, 10))

    assert set(first.failed) | set(second.failed) == set(bad)
    assert "wrong kind" in first.failed["bad00"] or "WRONGTYPE" in first.failed["bad00"]
    assert [move.id for move in second.moves["good"]] == [A]
    assert second.next_end is not None
    assert second.next_end > 1, "it would be tried again and again at once"
    for inc in bad:
        world.raw("DEL", world.keys[f"processing:{inc}"])


def test_thousands_that_an_incarnation_held_are_recovered_in_pieces(world: World) -> None:
    ids = [raw_id(n) for n in range(2001)]
    world.seed(serving("inc", until=T0 - 1), {"messages": messages(*ids), "pulse": str(T0).encode()})
    world.seed({"processing:inc": dict.fromkeys(ids, b"1 q")})
    found = [world.run(reap(world.keys, 10)) for _ in range(4)]

    assert [len(reaping.moves.get("inc", ())) for reaping in found] == [1000, 999, 2, 0]
    assert [reaping.unfinished for reaping in found] == [{"inc"}, {"inc"}, set(), set()]
    assert "crashes" not in world.names(), "of two none is to blame"
    assert world.state()["suspects:q"] == ids
