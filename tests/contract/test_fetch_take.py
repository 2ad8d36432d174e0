"""fetch, second half: which messages are taken."""

from __future__ import annotations

from collections import Counter

import pytest

from taskq.broker.commands.holding import Batch, Lost, Stale, fetch
from taskq.broker.queue_set import QueueSet
from taskq.errors import BrokerRefused
from tests.contract.world import (
    MINUTE,
    T0,
    Near,
    Scores,
    State,
    Taken,
    World,
    messages,
    raw_id,
    serving,
    without,
)

A, B, C, D = map(raw_id, range(1, 5))
TWO = QueueSet("set", ("one", "two"))


def take(world: World, want: int, *, number: int = 1, mode: str = "", caps: str = "", set_id: str = "set") -> Batch:
    return world.run(fetch(world.keys, "inc", number, (), want=want, set_id=set_id, mode=mode, caps=caps))


def waiting(*ids: bytes, queue: str = "q", ready: float = T0 - 5.0) -> State:
    """A queue with these messages, announced."""
    return {
        "messages": messages(*ids, queue=queue),
        f"queue:{queue}": list(ids),
        "ready:set": Scores({queue.encode(): ready}),
    }


def two_queues(n: int) -> State:
    """Two announced queues of ``n`` messages each, ``one`` before ``two``."""
    one, two = [raw_id(i) for i in range(n)], [raw_id(1000 + i) for i in range(n)]
    return {
        "messages": messages(*one, queue="one") | messages(*two, queue="two"),
        "queue:one": one,
        "queue:two": two,
        "ready:set": Scores({b"one": T0 - 9.0, b"two": T0 - 5.0}),
    }


def taken_by_queue(world: World) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in world.state().get("processing:inc", {}).values():
        queue = value.split(b" ", 1)[1].decode()
        counts[queue] = counts.get(queue, 0) + 1
    return counts


def test_messages_are_taken_from_the_head_in_order_and_held(world: World) -> None:
    before = world.seed(serving("inc"), waiting(A, B, C))

    batch = take(world, 2)

    assert batch.messages == [A, before["messages"][A], B, before["messages"][B]]
    assert (batch.now, batch.fenced, batch.crashes) == (Near(T0), 0, 0)
    assert world.state() == before | {
        "calls": {b"inc": b"1"},
        "queue:q": [C],
        "processing:inc": {A: Taken(T0, "q"), B: Taken(T0, "q")},
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
    }


def test_a_queue_that_was_emptied_is_no_longer_ready_and_rings_nobody(world: World) -> None:
    before = world.seed(serving("inc"), waiting(A, B))

    take(world, 2)

    assert world.state() == without(before, "queue:q", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {A: Taken(T0, "q"), B: Taken(T0, "q")},
    }


def test_nothing_ready_takes_nothing(world: World) -> None:
    before = world.seed(serving("inc"), {"messages": messages(A), "queue:other": [A]})

    batch = take(world, 64)

    assert batch.messages == []
    assert world.state() == before | {"calls": {b"inc": b"1"}}


@pytest.mark.parametrize("key", ["messages", "processing:inc"])
def test_what_cannot_be_taken_stays_where_it_is_in_order(world: World, key: str) -> None:
    """A key that somebody has made another type strands nothing, and what it held up goes on when it is mended."""
    world.seed(serving("inc"), waiting(A, B, C))
    kept = world.take_away(key)
    world.raw("SET", world.keys[key], "of another type")

    with pytest.raises(BrokerRefused, match="WRONGTYPE"):
        take(world, 2)

    assert world.state()["queue:q"] == [A, B, C]
    world.bring_back(key, kept)
    assert take(world, 64, number=2).messages[::2] == [A, B, C]


def test_what_ended_beside_what_cannot_be_taken_does_not_go_back(world: World) -> None:
    """It would be counted again at each try, and what is counted twice is missing nowhere."""
    world.seed(serving("inc"), waiting(A, B, C, D), {"revoked": {C: b""}})
    world.raw("HDEL", world.keys["messages"], B)
    kept = world.take_away("processing:inc")
    world.raw("SET", world.keys["processing:inc"], "of another type")

    for number in (1, 2):
        with pytest.raises(BrokerRefused, match="WRONGTYPE"):
            take(world, 64, number=number)

    state = world.state()
    assert (state["queue:q"], state["counters"][b"q|dangling"], state["counters"][b"q|discarded"]) == (
        [A, D],
        b"1",
        b"1",
    )
    world.bring_back("processing:inc", kept)
    assert take(world, 64, number=3).messages[::2] == [A, D]


def test_wanting_nothing_takes_nothing_but_passes_the_bell_on(world: World) -> None:
    before = world.seed(serving("inc"), waiting(A))

    batch = take(world, 0)

    assert batch.messages == []
    assert world.state() == before | {"calls": {b"inc": b"1"}, "bell:set": [b"1"]}


def test_a_ready_name_of_an_empty_queue_goes(world: World) -> None:
    before = world.seed(serving("inc"), {"ready:set": Scores({b"q": 1.0})})

    take(world, 64)

    assert world.state() == without(before, "ready:set") | {"calls": {b"inc": b"1"}}


def test_only_the_queues_of_the_own_set_are_taken_from(world: World) -> None:
    before = world.seed(serving("inc"), {"ready:other": Scores({b"q": 1.0}), "queue:q": [A], "messages": messages(A)})

    assert take(world, 64).messages == []
    assert world.state() == before | {"calls": {b"inc": b"1"}}


def test_a_queue_not_timed_yet_gives_one_message(world: World) -> None:
    world.seed(serving("inc", queues=TWO), two_queues(10))

    take(world, 64, caps=" ")

    assert taken_by_queue(world) == {"one": 1}


def test_a_cap_bounds_what_one_queue_gives(world: World) -> None:
    world.seed(serving("inc", queues=TWO), two_queues(10))

    take(world, 64, caps=" one=4 two=2 ")

    assert taken_by_queue(world) == {"one": 4}


def test_what_one_queue_leaves_of_the_budget_the_next_may_use(world: World) -> None:
    """Five of a queue of cap 10 fill half a fetch; half of the other's cap fills the rest."""
    state = two_queues(10)
    world.seed(serving("inc", queues=TWO), state | {"queue:one": state["queue:one"][:5]})

    take(world, 64, caps=" one=10 two=8 ")

    assert taken_by_queue(world) == {"one": 5, "two": 4}


def test_no_more_is_taken_than_wanted_whatever_the_caps_are(world: World) -> None:
    world.seed(serving("inc", queues=TWO), two_queues(40))

    take(world, 30, caps=" one=64 two=64 ")

    assert taken_by_queue(world) == {"one": 30}


def test_a_queue_of_cap_0_gives_one_message_and_nothing_comes_with_it(world: World) -> None:
    world.seed(serving("inc", queues=TWO), two_queues(3))

    take(world, 64, caps=" one=0 two=64 ")

    assert taken_by_queue(world) == {"one": 1}


def test_a_queue_of_cap_0_gives_nothing_beside_others(world: World) -> None:
    before = world.seed(serving("inc", queues=TWO), two_queues(3))

    take(world, 64, caps=" one=64 two=0 ")

    assert taken_by_queue(world) == {"one": 3}
    after = world.state()
    assert after["queue:two"] == before["queue:two"]
    assert set(after["ready:set"]) == {b"two"}
    assert after["bell:set"] == [b"1"]


def test_caps_are_found_by_the_whole_name_of_a_queue(world: World) -> None:
    ids = [raw_id(i) for i in range(9)]
    world.seed(serving("inc"), waiting(*ids, queue="b.c"))

    take(world, 64, caps=" a.b.c=9 b.c=3 b.c.d=9 bxc=9 ")

    assert taken_by_queue(world) == {"b.c": 3}


def test_queues_take_turns(world: World) -> None:
    world.seed(serving("inc", queues=TWO), two_queues(3))

    firsts = [take(world, 1, number=number).messages[0] for number in range(1, 7)]

    one, two = [raw_id(i) for i in range(3)], [raw_id(1000 + i) for i in range(3)]
    assert sorted(firsts[:2]) == [one[0], two[0]]
    assert sorted(firsts) == [*one, *two]


def test_ids_without_a_message_are_passed_over_and_counted(world: World) -> None:
    before = world.seed(serving("inc"), waiting(A, B, C) | {"messages": messages(B)})

    batch = take(world, 3)

    assert batch.messages == [B, before["messages"][B]]
    assert world.state() == without(before, "queue:q", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {B: Taken(T0, "q")},
        "counters": {b"q|dangling": b"2"},
    }


def test_a_queue_with_more_after_a_dangling_id_stays_ready(world: World) -> None:
    world.seed(serving("inc"), waiting(A, B) | {"messages": messages(B)})

    first, second = take(world, 1), take(world, 1, number=2)

    assert [first.messages[:1], second.messages[:1]] in ([[], [B]], [[B], []])


@pytest.mark.parametrize("set_id", ["set", ""])
def test_a_lost_incarnation_takes_nothing(world: World, set_id: str) -> None:
    world.seed(serving("other"), waiting(A))
    before = world.dump()

    with pytest.raises(Lost):
        take(world, 1, set_id=set_id)

    assert world.dump() == before


def test_a_late_call_takes_nothing(world: World) -> None:
    world.seed(serving("inc"), waiting(A))
    world.seed({"calls": {b"inc": b"3"}})
    before = world.dump()

    with pytest.raises(Stale):
        take(world, 1, number=3)

    assert world.dump() == before


# -- promotion inside ------------------------------------------------------------------------------------------


def test_what_is_due_is_promoted_and_taken_in_the_same_call(world: World) -> None:
    before = world.seed(
        serving("inc"),
        {
            "messages": messages(A, B, C),
            "schedule": Scores({A: T0 - 2.0, B: T0 - 1.0, C: T0 + MINUTE}),
            "counters": {b"q|scheduled": b"3"},
        },
    )

    batch = take(world, 2)

    assert batch.messages[::2] == [A, B]
    assert world.state() == before | {
        "calls": {b"inc": b"1"},
        "schedule": Scores({C: T0 + MINUTE}),
        "processing:inc": {A: Taken(T0, "q"), B: Taken(T0, "q")},
        "counters": {b"q|scheduled": b"1"},
        "bell:set": [b"1"],
    }


def test_promotion_is_for_any_queue_of_the_partition(world: World) -> None:
    world.seed(serving("inc"), {"messages": messages(A, queue="elsewhere"), "schedule": Scores({A: 1.0})})

    batch = take(world, 1)

    assert batch.messages == []
    assert world.state()["queue:elsewhere"] == [A]


# -- suspects --------------------------------------------------------------------------------------------------


def test_solo_mode_takes_one_suspect_and_says_how_often_its_process_died(world: World) -> None:
    before = world.seed(
        serving("inc"),
        {
            "messages": messages(A, B, C),
            "suspects:q": [A, B],
            "queue:q": [C],
            "solo:set": Scores({b"q": 1.0}),
            "ready:set": Scores({b"q": 1.0}),
            "crashes": {A: b"2"},
        },
    )

    batch = take(world, 1, mode="solo")

    assert (batch.messages, batch.crashes) == ([A, before["messages"][A]], 2)
    assert world.state() == before | {
        "calls": {b"inc": b"1"},
        "suspects:q": [B],
        "processing:inc": {A: Taken(T0, "q", suspect=True)},
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
    }


def test_solo_mode_passes_over_queues_without_suspects_and_dangling_ids(world: World) -> None:
    before = world.seed(
        serving("inc", queues=QueueSet("set", ("gone", "q", "void"))),
        {
            "messages": messages(A),
            "suspects:q": [A],
            "suspects:void": [B],
            "solo:set": Scores({b"gone": 1.0, b"void": 2.0, b"q": 3.0}),
        },
    )

    batch = take(world, 1, mode="solo")

    assert batch.messages == [A, before["messages"][A]]
    assert batch.crashes == 0
    assert world.state() == without(before, "suspects:q", "suspects:void", "solo:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {A: Taken(T0, "q", suspect=True)},
        "counters": {b"void|dangling": b"1"},
    }


def test_solo_mode_takes_nothing_else(world: World) -> None:
    before = world.seed(serving("inc"), waiting(A))

    assert take(world, 1, mode="solo").messages == []
    assert world.state() == before | {"calls": {b"inc": b"1"}}


def test_suspects_are_not_taken_in_company(world: World) -> None:
    before = world.seed(serving("inc"), {"messages": messages(A), "suspects:q": [A], "solo:set": Scores({b"q": 1.0})})

    assert take(world, 64).messages == []
    assert world.state() == before | {"calls": {b"inc": b"1"}}


MANY = {name: [b"%s-%013d" % (name[-1:].encode(), n) for n in range(200)] for name in ("qa", "qb", "qc")}


def full_queues(world: World) -> None:
    queues = QueueSet("set", tuple(MANY))
    world.seed(
        serving("inc", queues=queues),
        *({"messages": messages(*ids, queue=name), f"queue:{name}": list(ids)} for name, ids in MANY.items()),
        {"ready:set": Scores({name.encode(): T0 + n for n, name in enumerate(MANY)})},
    )


def queues_of(world: World, times: int, want: int, order: str) -> Counter[str]:
    """From which queues so many fetches take."""
    taken: Counter[str] = Counter()
    for number in range(1, times + 1):
        batch = world.run(fetch(world.keys, "inc", number, (), want=want, set_id="set", order=order))
        taken.update("q" + raw_id[:1].decode() for raw_id in batch.messages[::2])
        world.raw("DEL", world.keys["processing:inc"])
    return taken


def test_queues_with_weights_share_what_is_taken_by_their_weights(world: World) -> None:
    full_queues(world)

    taken = queues_of(world, 90, 1, " qa=6 qb=2 qc=1 ")

    assert sum(taken.values()) == 90
    assert abs(taken["qa"] - 60) <= 3
    assert abs(taken["qb"] - 20) <= 3
    assert abs(taken["qc"] - 10) <= 3


def test_in_strict_order_the_first_is_emptied_first(world: World) -> None:
    full_queues(world)

    assert queues_of(world, 4, 100, "! qa=1 qb=3 qc=2 ") == Counter(qb=200, qc=200)
