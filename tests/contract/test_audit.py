"""audit, scan, mend: half-states that no script leaves, but an operator's hand or a restored snapshot can."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskq.audit import audit
from taskq.broker import commands
from taskq.broker.commands import Check, mend
from taskq.broker.protocol import drive
from tests.contract.fleet import more
from tests.contract.world import LEASE, T0, Near, Scores, State, World, message, messages, raw_id, serving, without

A, B, C, D = map(raw_id, range(1, 5))
EVERY = 60_000


def looked(world: World) -> Check:
    check = world.run(commands.audit(world.keys, EVERY))
    assert check is not None
    return check


def pending(*ids: bytes) -> State:
    return {"messages": messages(*ids), "queue:q": list(ids), "counters": {b"q|accepted": str(len(ids)).encode()}}


# -- audit -------------------------------------------------------------------------------------------------------


def test_a_sound_state_is_told_and_left_as_it_is(world: World) -> None:
    before = world.seed(
        serving("inc"),
        pending(A, B),
        {"messages": messages(C, D), "schedule": Scores({C: T0 + 1000.0}), "processing:inc": {D: b"%d q" % T0}},
        {"counters": {b"q|scheduled": b"1"}},
    )

    assert looked(world) == Check(messages=4, placed=4, incarnations=0, recounted=0, queues=["q"])
    assert world.state() == before | {"audited": b"1"}
    assert 0 < world.ttl("audited") <= EVERY


def test_only_one_looks_at_a_time(world: World) -> None:
    world.seed(pending(A))
    looked(world)
    before = world.dump()

    assert world.run(commands.audit(world.keys, EVERY)) is None
    assert world.dump() == before


@pytest.mark.parametrize("lost", ["calls", "leases"])
def test_an_incarnation_that_is_half_registered_is_recovered(world: World, lost: str) -> None:
    whole = {"messages": messages(A), "processing:inc": {A: b"%d q" % T0}, "counters": {b"q|accepted": b"1"}}
    registered = serving("inc")
    before = world.seed(without(registered, lost), whole)

    assert looked(world) == Check(messages=1, placed=1, incarnations=1, recounted=0, queues=["q"])
    gone = {"calls", "leases", "terms", "workers", "processing:inc"} - {lost}
    assert world.state() == without(before, *gone) | {
        "crashes": {A: b"1"},
        "suspects:q": [A],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|accepted": b"1", b"q|recovered": b"1", b"q|crashes": b"1"},
        "audited": b"1",
    }


def test_what_is_scheduled_is_counted_anew_if_the_count_is_wrong(world: World) -> None:
    world.seed({"messages": messages(A, B, C), "schedule": Scores({A: T0 + 1.0, B: T0 + 2.0, C: T0 + 3.0})})
    before = world.seed({"counters": {b"q|scheduled": b"1", b"p|scheduled": b"7", b"r|scheduled": b"0"}})

    assert looked(world).recounted == 2
    assert world.state() == before | {
        "counters": {b"q|scheduled": b"3", b"p|scheduled": b"0", b"r|scheduled": b"0"},
        "audited": b"1",
    }


# -- scan --------------------------------------------------------------------------------------------------------


def test_a_scan_answers_every_id_and_no_message(world: World) -> None:
    ids = {raw_id(n) for n in range(700)}
    before = world.seed({"messages": messages(*ids)})
    cursor, found = b"0", set()
    while True:
        cursor, some = world.run(commands.scan_ids(world.keys, cursor, 100))
        found.update(some)
        if cursor == b"0":
            break

    assert found == ids
    assert world.state() == before


# -- mend --------------------------------------------------------------------------------------------------------


def test_what_is_where_it_belongs_is_sound(world: World) -> None:
    world.seed(
        serving("inc"),
        pending(A),
        {"messages": messages(B, C, D), "schedule": Scores({B: T0 + 1.0}), "dead:q": Scores({C: T0 - 1.0})},
        {"reasons": {C: b"failed\n"}, "processing:inc": {D: b"%d q" % T0}},
    )
    before = world.dump()

    assert (
        world.run(mend(world.keys, [(A, ""), (B, "queue:q"), (C, "dead:q"), (D, ""), (raw_id(9), "")])) == ["sound"] * 5
    )
    assert world.dump() == before


def test_a_message_in_no_place_goes_back_to_its_queue(world: World) -> None:
    before = world.seed(serving("inc"), {"messages": messages(A, B), "crashes": {B: b"1"}})

    assert world.run(mend(world.keys, [(A, ""), (B, "")])) == ["resurrected"] * 2
    assert world.state() == before | {
        "queue:q": [A],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "suspects:q": [B],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|resurrected": b"2"},
    }
    assert world.run(mend(world.keys, [(A, ""), (B, "")])) == ["sound"] * 2


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        ({"queue:q": [B, A]}, "queue:q"),
        ({"suspects:q": [A]}, "suspects:q"),
        ({"schedule": Scores({A: T0 + 1.0}), "counters": {b"q|scheduled": b"1"}}, "queue:q"),
        ({"dead:q": Scores({A: T0 - 1.0}), "reasons": {A: b"failed\n"}}, "queue:q"),
        ({"processing:inc": {A: b"%d q" % T0}}, "processing:inc"),
        ({"queue:p": [A]}, "queue:p"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_of_several_places_the_best_is_kept(world: World, second: State, kept: str) -> None:
    world.seed(serving("inc"), pending(A, B), {"messages": messages(C)}, second)

    assert world.run(mend(world.keys, [(A, "queue:p" if "queue:p" in second else "")])) == ["deduplicated"]
    state = world.state()
    places = [name for name, content in state.items() if name not in ("messages", "reasons") and A in content]
    assert places == [kept]
    assert A not in state.get("reasons", {})
    assert state["queue:q"].count(A) <= 1
    assert state["counters"][b"q|deduplicated"] == b"1"
    assert state["counters"].get(b"q|scheduled", b"0") == b"0"


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ({"queue:q": [A]}, "queue:q"),
        ({"suspects:q": [A], "crashes": {A: b"2"}}, "suspects:q"),
        ({"dead:q": Scores({A: 1.0}), "reasons": {A: b"failed\n"}}, "dead:q"),
        ({"processing:inc": {A: b"%d q" % T0}}, "processing:inc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_id_without_a_message_leaves_its_place(world: World, place: State, seen: str) -> None:
    before = world.seed(serving("inc"))
    world.seed(place)

    assert world.run(mend(world.keys, [(A, seen)])) == ["dangling"]
    assert world.state() == before | {"counters": {b"q|dangling": b"1"}}


def test_a_message_in_no_place_that_names_no_queue_is_a_dead_letter(world: World) -> None:
    world.seed({"messages": {A: b"\x07"}})

    assert world.run(mend(world.keys, [(A, "")])) == ["unreadable"]
    state = world.state()
    assert state["dead:unreadable"] == Scores({A: Near(T0)})
    assert state["reasons"] == {A: b"unreadable\n"}


@pytest.mark.parametrize("place", ["queue", "suspects", "ranked", "dead", "schedule", "processing"])
def test_a_message_that_names_no_queue_and_moved_since_it_was_looked_for_is_sound(world: World, place: str) -> None:
    """The walk reads places first, and messages last: what went from one to another meanwhile is nowhere for it."""
    content: dict[str, State] = {
        "queue": {"queue:q": [B, A]},
        "suspects": {"suspects:q": [A]},
        "ranked": {"ranked:q": Scores({A: 1.0})},
        "dead": {"dead:q": Scores({A: T0 - 1.0}), "reasons": {A: b"undecodable\n"}},
        "schedule": {"schedule": Scores({A: T0 + 1.0})},
        "processing": {"processing:inc": {A: b"%d q" % T0}},
    }
    world.seed(serving("inc"), {"messages": {A: b"\x07"}, "counters": {b"q|accepted": b"1"}}, content[place])
    before = world.dump()

    assert world.run(mend(world.keys, [(A, "")])) == ["sound"]
    assert world.dump() == before


def test_a_head_that_was_cut_short_anywhere_stops_nobody(world: World) -> None:
    value = message(A, more=more(_1="x", lock="d0:t|k", limited=True))
    world.seed({"limits": {b"t": b"k 0 1 1"}, "tasks": {b"t": b"q"}})
    for length in range(len(value)):
        world.raw("HSET", world.keys["messages"], A, value[:length])
        assert world.run(mend(world.keys, [(A, "")]))[0] in ("resurrected", "unreadable")
        for name in without(world.state(), "limits", "tasks"):
            world.raw("DEL", world.keys[name])


# -- all of it ---------------------------------------------------------------------------------------------------


def lose_the_lists(world: World) -> None:
    world.raw("DEL", world.keys["queue:q"])


def put_twice(world: World) -> None:
    world.raw("LPUSH", world.keys["queue:q"], A)
    world.raw("ZADD", world.keys["schedule"], T0 + LEASE, B)


def one_too_many_hides_one_too_few(world: World) -> None:
    world.raw("LREM", world.keys["queue:q"], 1, A)
    world.raw("RPUSH", world.keys["queue:q"], B)


def lose_messages(world: World) -> None:
    world.raw("HDEL", world.keys["messages"], A, B)


@pytest.mark.parametrize("harm", [lose_the_lists, put_twice, one_too_many_hides_one_too_few, lose_messages])
def test_after_an_audit_everything_is_in_one_place_and_the_ledger_balances(
    world: World, harm: Callable[[World], None]
) -> None:
    world.seed(serving("inc"), pending(A, B, C))
    harm(world)

    mended = drive(audit(world.keys, EVERY), world.connection)
    assert sum(mended.values()) >= 2

    places = world.state()
    for id_ in places["messages"]:
        assert places["queue:q"].count(id_) + (id_ in places.get("schedule", {})) == 1
    assert set(places["queue:q"]) <= set(places["messages"])
    assert world.balances() == {"q": 0}
    world.raw("DEL", world.keys["audited"])
    assert drive(audit(world.keys, EVERY), world.connection) == {}


def test_ids_are_walked_in_a_large_app_only_if_the_numbers_differ(world: World) -> None:
    ids = [raw_id(n) for n in range(3000)]
    world.seed(serving("inc"), pending(*ids))
    walked: list[str] = []

    def look() -> None:
        world.raw("DEL", world.keys["audited"])
        execute = world.connection.execute

        class Watched:
            @staticmethod
            def execute(command: commands.Command[object]) -> object:
                walked.append(command.script.name if command.script else str(command.args[0]))
                return execute(command)

        drive(audit(world.keys, EVERY), Watched())  # type: ignore[arg-type]

    look()
    assert walked == ["audit"]
    world.seed({"messages": {raw_id(5000): message(raw_id(5000))}})
    look()
    assert "scan" in walked
    assert world.state()["queue:q"][-1] == raw_id(5000)
