"""sync: after a lost answer, agree on what is whose."""

from __future__ import annotations

import pytest

from taskq.broker.commands.holding import Lost, Stale, fetch, sync
from tests.contract.world import T0, Near, Scores, World, messages, raw_id, serving, without

A, B, C, D = map(raw_id, range(1, 5))


def test_messages_it_does_not_know_of_go_back_to_the_head_in_order(world: World) -> None:
    before = world.seed(
        serving("inc"),
        {
            "calls": {b"inc": b"4"},
            "messages": messages(A, B, C, D),
            "processing:inc": {C: b"1 q", A: b"1 q", B: b"1 q"},
            "queue:q": [D],
        },
    )

    executed, gone = world.run(sync(world.keys, "inc", 5, 4, [B]))

    assert (executed, gone) == (True, [])
    assert world.state() == before | {
        "calls": {b"inc": b"5"},
        "processing:inc": {B: b"1 q"},
        "queue:q": [A, C, D],
        "counters": {b"q|returned": b"2"},
    }


def test_a_queue_that_was_empty_is_announced(world: World) -> None:
    before = world.seed(serving("inc"), {"messages": messages(A), "processing:inc": {A: b"1 q"}})

    world.run(sync(world.keys, "inc", 2, 1, []))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"2.5"},
        "queue:q": [A],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|returned": b"1"},
    }


def test_a_suspect_it_does_not_know_of_stays_a_suspect(world: World) -> None:
    before = world.seed(
        serving("inc"),
        {"messages": messages(A), "processing:inc": {A: b"!1 q"}, "suspects:q": [B], "crashes": {A: b"1"}},
    )

    world.run(sync(world.keys, "inc", 2, 1, []))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"2.5"},
        "suspects:q": [A, B],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|returned": b"1"},
    }


@pytest.mark.parametrize(("last", "executed"), [(3, False), (4, True)])
def test_it_says_whether_the_lost_call_was_executed(world: World, last: int, executed: bool) -> None:
    before = world.seed(serving("inc"), {"calls": {b"inc": b"%d" % last}})

    assert world.run(sync(world.keys, "inc", 5, 4, [])) == (executed, [])
    assert world.state() == before | {"calls": {b"inc": b"5" if executed else b"5.5"}}


@pytest.mark.parametrize(("last", "executed"), [(3, False), (4, True)])
def test_it_says_the_same_again_if_its_own_answer_was_lost(world: World, last: int, executed: bool) -> None:
    """Else the outcomes that came with the lost call would be taken for settled, and never be."""
    world.seed(serving("inc"), {"calls": {b"inc": b"%d" % last}})

    assert [world.run(sync(world.keys, "inc", number, 4, [])) for number in (5, 6, 7)] == [(executed, [])] * 3


@pytest.mark.parametrize("executed", [False, True])
def test_after_a_sync_the_calls_go_on(world: World, executed: bool) -> None:
    world.seed(serving("inc"), {"calls": {b"inc": b"%d" % (3 + executed)}})
    world.run(sync(world.keys, "inc", 5, 4, []))

    for number in (4, 5):
        with pytest.raises(Stale):
            world.run(fetch(world.keys, "inc", number, ()))
    world.run(fetch(world.keys, "inc", 6, ()))
    assert world.state()["calls"] == {b"inc": b"6"}
    assert world.run(sync(world.keys, "inc", 7, 6, [])) == (True, [])


def test_ids_it_was_wrong_to_believe_in_are_named(world: World) -> None:
    before = world.seed(serving("inc"), {"messages": messages(A), "processing:inc": {A: b"1 q"}})

    _, gone = world.run(sync(world.keys, "inc", 2, 1, [A, B, C]))

    assert sorted(gone) == [B, C]
    assert world.state() == before | {"calls": {b"inc": b"2.5"}}


def test_a_call_still_on_its_way_cannot_execute_afterwards(world: World) -> None:
    world.seed(serving("inc"), {"messages": messages(A), "queue:q": [A], "ready:set": Scores({b"q": 1.0})})
    late = fetch(world.keys, "inc", 1, (), want=1, set_id="set")
    world.run(sync(world.keys, "inc", 2, 1, []))
    before = world.dump()

    with pytest.raises(Stale):
        world.run(late)

    assert world.dump() == before


def test_an_incarnation_that_is_not_registered_is_lost(world: World) -> None:
    world.seed(serving("other"), {"messages": messages(A), "processing:inc": {A: b"1 q"}})
    before = world.dump()

    with pytest.raises(Lost):
        world.run(sync(world.keys, "inc", 5, 4, []))

    assert world.dump() == before


@pytest.mark.parametrize("number", [4, 5])
def test_a_number_that_is_not_higher_is_stale(world: World, number: int) -> None:
    world.seed(serving("inc"), {"calls": {b"inc": b"5"}, "messages": messages(A), "processing:inc": {A: b"1 q"}})
    before = world.dump()

    with pytest.raises(Stale):
        world.run(sync(world.keys, "inc", number, 4, []))

    assert world.dump() == before


def test_thousands_taken_by_a_lost_call_go_back_in_order(world: World) -> None:
    ids = [raw_id(n) for n in range(9000)]
    world.seed(serving("inc"), {"messages": messages(*ids), "processing:inc": dict.fromkeys(ids, b"1 q")})

    executed, gone = world.run(sync(world.keys, "inc", 2, 1, ids[:10]))

    assert (executed, gone) == (False, [])
    assert world.state()["queue:q"] == ids[10:]
