"""audit, scan, mend: half-states that no script leaves, but an operator's hand or a restored snapshot can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from taskq.broker.call import Command
from taskq.broker.commands import auditing, looking
from taskq.broker.commands.auditing import Tally, mend
from taskq.broker.protocol import drive
from taskq.errors import BrokerRefused
from taskq.message.outcome import Returned
from taskq.upkeep.audit import audit
from taskq.upkeep.housekeeping import upkeep
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import LEASE, T0, Near, Scores, State, World, message, messages, raw_id, serving, without

A, B, C, D = map(raw_id, range(1, 5))
EVERY = 60_000


def audited(world: World) -> Counter[str]:
    """Audit, whoever has lately; without the rests between its calls."""
    world.raw("DEL", world.keys["audited"])
    return drive(upkeep(world.keys), world.connection, lambda _seconds: None)


def pending(*ids: bytes) -> State:
    return {"messages": messages(*ids), "queue:q": list(ids), "counters": {b"q|accepted": str(len(ids)).encode()}}


# -- audit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["audit", "minute:1", "minute:2"])
def test_a_note_that_somebody_has_spoilt_keeps_no_audit_from_mending(world: World, name: str) -> None:
    world.seed({"messages": messages(A), "counters": {b"q|accepted": b"1"}})
    world.raw("SADD", world.keys[name], "an operator's hand")

    with suppress(BrokerRefused):  # said by whoever does the upkeep
        audited(world)

    world.raw("DEL", world.keys[name])
    assert world.state()["queue:q"] == [A]


def test_a_sound_state_is_left_as_it_is(world: World) -> None:
    before = world.seed(
        serving("inc"),
        pending(A, B),
        {"messages": messages(C, D), "schedule": Scores({C: T0 + 1000.0}), "processing:inc": {D: b"%d q" % T0}},
        {"counters": {b"q|scheduled": b"1", b"q|accepted": b"4"}},
        {"ready:set": Scores({b"q": T0}), "bell:set": [b"1"]},
    )

    assert world.run(auditing.tally(world.keys, ["q"])) == Tally(4, 4, ["queue:q"])
    assert audited(world) == {}
    assert without(world.state(), "audited", "audit", "minute:1") == before


def test_only_one_looks_at_a_time(world: World) -> None:
    world.seed(pending(A))

    assert world.run(auditing.audit(world.keys, EVERY))
    before = world.dump()
    assert 0 < world.ttl("audited") <= EVERY
    assert not world.run(auditing.audit(world.keys, EVERY))
    assert world.dump() == before


@pytest.mark.parametrize("lost", ["calls", "leases"])
def test_an_incarnation_that_stays_half_registered_is_recovered(world: World, lost: str) -> None:
    whole = {"messages": messages(A), "processing:inc": {A: b"%d q" % T0}, "counters": {b"q|accepted": b"1"}}
    registered = serving("inc")
    before = world.seed(without(registered, lost), whole)

    assert drive(audit(world.keys, ["q"]), world.connection, lambda _seconds: None) == {"incarnations": 1}
    gone = {"calls", "leases", "terms", "workers", "processing:inc"} - {lost}
    assert world.state() == without(before, *gone) | {
        "crashes": {A: b"1"},
        "suspects:q": [A],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|accepted": b"1", b"q|recovered": b"1", b"q|crashes": b"1"},
    }


def test_an_incarnation_that_is_registered_wholly_again_is_left_alone(world: World) -> None:
    registered = serving("inc")
    world.seed(without(registered, "leases"), {"settings": {b"lease": b"15000"}})
    paused: list[float] = []

    def renewed(seconds: float) -> None:
        paused.append(seconds)
        world.seed({"leases": registered["leases"]})

    assert drive(audit(world.keys, ["q"]), world.connection, renewed) == {}
    assert 15 in paused
    assert world.state()["calls"] == {b"inc": b"0"}


# -- scan --------------------------------------------------------------------------------------------------------


def test_a_scan_answers_every_id_and_no_message(world: World) -> None:
    ids = {raw_id(n) for n in range(700)}
    before = world.seed({"messages": messages(*ids)})
    cursor, found = b"0", set()
    while True:
        cursor, some = world.run(auditing.scan_ids(world.keys, cursor, 100))
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

    assert sum(audited(world).values()) >= 2

    places = world.state()
    for id_ in places["messages"]:
        assert places["queue:q"].count(id_) + (id_ in places.get("schedule", {})) == 1
    assert set(places["queue:q"]) <= set(places["messages"])
    assert world.balances() == {"q": 0}
    assert audited(world) == {}


def test_that_the_ledger_was_wrong_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.seed(serving("inc"), pending(A))
    world.raw("HINCRBY", world.keys["counters"], "q|scheduled", 2)

    with caplog.at_level("WARNING", "taskq.audit"):
        assert audited(world)["recounted"] >= 1

    assert "of what waits for its time or at gates" in caplog.text


class Watched:
    """A connection that notes what is asked, and lets something happen before each of a kind."""

    def __init__(self, world: World, happens: Callable[[str], None] = lambda name: None) -> None:
        self.world, self.happens, self.asked, self.doubted = world, happens, list[str](), 0

    def execute(self, command: Command[Any]) -> Any:
        name = command.script.name if command.script else str(command.args[0], "ascii")  # type: ignore[arg-type]
        self.asked.append(name)
        if name == "mend":
            self.doubted += (len(command.args) - 2) // 2
        self.happens(name)
        return self.world.connection.execute(command)

    def audit(self) -> Counter[str]:
        return drive(audit(self.world.keys, ["q"]), self, lambda _seconds: None)  # type: ignore[arg-type]


def test_ids_are_walked_in_a_large_app_only_if_the_numbers_differ(world: World) -> None:
    world.seed(serving("inc"), pending(*map(raw_id, range(3000))))
    watched = Watched(world)

    watched.audit()
    assert "scan" not in watched.asked
    world.seed({"messages": {raw_id(5000): message(raw_id(5000))}, "counters": {b"q|accepted": b"3001"}})
    assert watched.audit() == {"resurrected": 1}
    assert "scan" in watched.asked
    assert world.state()["queue:q"][-1] == raw_id(5000)


def test_what_moves_while_it_is_walked_is_not_doubted(world: World) -> None:
    """Messages are taken, ended and returned between any two calls, faster than ids are read; one stands nowhere."""
    fleet = Fleet(world)
    ids = list(map(raw_id, range(6000)))
    lost, returned = raw_id(9999), ids[:40]
    with fleet.unaudited():
        fleet.send_all([sent(id_) for id_ in ids])
        held: list[bytes] = []

        def happens(name: str) -> None:
            if name in ("LRANGE", "scan", "HKEYS"):
                fleet.done(*(id_ for id_ in held if id_ not in returned))
                back = [Returned(id_) for id_ in held if id_ in returned]
                held[:] = fleet.fetch(*back, want=128, caps=" q=128 ").messages[::2]
                fleet.send(*(raw_id(10_000 + len(ids) + n) for n in range(100)))
                ids.extend(b"" for _ in range(100))

        world.seed({"messages": {lost: message(lost)}})
        world.raw("HINCRBY", world.keys["counters"], "q|accepted", 1)
        watched = Watched(world, happens)
        assert watched.audit() == {"resurrected": 1}
        assert watched.doubted < 20, "what moved between two walks"


def test_thousands_that_stand_nowhere_are_mended_in_bounded_calls(world: World) -> None:
    ids = list(map(raw_id, range(9000)))
    world.seed(serving("inc"), {"messages": messages(*ids), "counters": {b"q|accepted": b"9000"}})
    watched = Watched(world)

    assert watched.audit() == {"resurrected": 9000}
    assert watched.asked.count("mend") >= 9
    assert sorted(world.state()["queue:q"]) == ids
    assert watched.audit() == {}


def test_nine_thousand_queues_are_audited_and_surveyed(world: World) -> None:
    queues = [f"q{n}" for n in range(9000)]
    world.seed(serving("inc"), {"counters": {f"{q}|accepted".encode(): b"0" for q in queues}})
    world.seed({"messages": {A: message(A, queue="q8999"), B: message(B, queue="q1")}, "queue:q8999": [A]})
    world.seed({"counters": {b"q8999|accepted": b"1", b"q1|accepted": b"1"}})

    assert audited(world) == {"resurrected": 1}
    found = world.run(looking.survey(world.keys))
    assert (len(found), found["q8999"].pending, found["q1"].pending) == (9000, 1, 1)
    assert world.run(looking.backlog(world.keys, queues)).pending == 2


def test_a_message_of_any_incarnation_is_found_and_not_resurrected(world: World) -> None:
    many = [f"inc{n:04}" for n in range(1200)]
    world.seed(serving(*many), {"messages": messages(A), "processing:inc1199": {A: b"%d q" % T0}})
    before = world.state()

    assert world.run(mend(world.keys, [(A, "")])) == ["sound"]
    assert world.run(looking.locate(world.keys, A)).place == "processing"
    assert b"worker" in world.run(looking.why(world.keys, A))
    assert world.state() == before


def test_a_dead_letter_that_stands_nowhere_does_not_run_again(world: World) -> None:
    world.seed(serving("inc"), {"messages": messages(A), "reasons": {A: b"failed\n"}})

    assert world.run(mend(world.keys, [(A, "")])) == ["resurrected"]
    assert world.state()["dead:q"] == Scores({A: Near(T0)})
