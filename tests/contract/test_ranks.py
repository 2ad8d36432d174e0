"""Priorities and fair queues: in which turn messages are taken."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from taskq.message.outcome import Again, Returned, SlowDown
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import T0, Near, Scores, Taken, World, message, raw_id, serving, without
from tests.support import SOAK

BAND, FIRST, UNIT = 2**45, 2**30, 1024
A, B, C, D = map(raw_id, range(1, 5))


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world)


def test_a_message_with_a_priority_is_ranked_and_announced(world: World) -> None:
    before = world.seed(serving("inc"))
    fleet = Fleet(world, incarnations=())

    assert fleet.send(A, B, head=more(priority=5)) == b"++"

    assert without(world.state(), "producer:p", "messages") == before | {
        "ranked:q": Scores({A: -5.0 * BAND + FIRST + UNIT, B: -5.0 * BAND + FIRST + 2 * UNIT}),
        "turns": {b"q": b"2"},
        "marks": {b"q": b"r"},
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|accepted": b"2"},
    }


def test_taking_the_last_ranked_message_leaves_no_trace_of_its_turn(world: World) -> None:
    value = message(A, more=more(priority=-3))
    before = world.seed(
        serving("inc"),
        {
            "messages": {A: value},
            "ranked:q": Scores({A: 3.0 * BAND + FIRST + UNIT}),
            "turns": {b"q": b"1"},
            "marks": {b"q": b"r"},
            "ready:set": Scores({b"q": 1.0}),
            "counters": {b"q|accepted": b"1"},
        },
    )
    fleet = Fleet(world, incarnations=())
    fleet.calls["inc"] = 0

    assert fleet.fetch(want=5, caps=" q=5 ").messages == [A, value]

    assert world.state() == without(before, "ranked:q", "turns", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {A: Taken(T0, "q")},
    }


def test_a_queue_without_ranks_is_not_marked_and_has_no_key_for_them(fleet: Fleet) -> None:
    fleet.send(A, B)

    assert not {"marks", "ranked:q", "turns"} & set(fleet.world.names())


@pytest.mark.parametrize("n", [1, 3, 128])
def test_higher_priorities_are_taken_first_and_each_in_order(fleet: Fleet, n: int) -> None:
    """The plain list is the priority 0 between the others; every priority there may be has its place."""
    rng = random.Random(n)
    levels = [rng.choice([-100, -99, -1, 0, 0, 1, 7, 100]) for _ in range(60)]
    ids = [raw_id(i) for i in range(len(levels))]
    fleet.send_all([sent(id_, more(priority=level)) for id_, level in zip(ids, levels, strict=True)])

    taken: list[bytes] = []
    with fleet.unaudited():
        while got := fleet.take(n):
            taken += got
            fleet.done(*got)

    assert taken == [ids[i] for i in sorted(range(len(ids)), key=lambda i: (-levels[i], i))]
    assert not {"ranked:q", "turns", "queue:q"} & set(fleet.world.names())


def test_what_comes_later_with_a_higher_priority_is_taken_first(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.send(B, head=more(priority=-1))
    fleet.send(C, head=more(priority=1))
    assert fleet.take() == [C]
    fleet.send(D, head=more(priority=2))

    assert fleet.take(3) == [D, A, B]


@pytest.mark.parametrize("head", [more(priority=4), more(priority=-4), more(fair="k"), b""])
@pytest.mark.parametrize("outcome", [Returned, lambda id_: SlowDown(id_, 0.0)])
def test_what_is_returned_comes_first_and_in_order(fleet: Fleet, head: bytes, outcome: type[Returned]) -> None:
    ids = [raw_id(i) for i in range(6)]
    fleet.send(*ids, head=head)
    fleet.send(raw_id(77), head=more(priority=9))
    assert fleet.take(4) == [raw_id(77), *ids[:3]]

    fleet.fetch(*map(outcome, ids[:3]))
    fleet.world.at(T0 + 1000)

    assert fleet.take(6) == ids


def test_what_a_lost_worker_held_comes_first_among_its_own_in_order(fleet: Fleet) -> None:
    fleet.begin("other")
    low, high = [raw_id(i) for i in range(3)], [raw_id(10 + i) for i in range(3)]
    fleet.send(*low, head=more(priority=-1))
    fleet.send(*high, head=more(priority=1))
    assert fleet.take(4) == [*high, low[0]]

    fleet.lose("inc", died=False)

    assert fleet.take(6, inc="other") == [*high, *low]


def test_a_retry_goes_to_the_end_of_its_priority(fleet: Fleet) -> None:
    fleet.send(A, B, head=more(priority=3))
    fleet.send(C)
    assert fleet.take() == [A]

    fleet.fetch(Again(A, message(A, more=more(priority=3)), 0.0, "retried"))

    assert fleet.take(3) == [B, A, C]


def test_what_was_scheduled_takes_the_rank_of_its_priority(fleet: Fleet) -> None:
    fleet.send(A, head=more(priority=3), options=b"d1000")
    fleet.send(B, head=more(priority=2))
    fleet.world.at(T0 + 2000)

    assert fleet.take(2) == [A, B]


# -- fair queues -----------------------------------------------------------------------------------------------


def fair_ids(key: int, n: int) -> list[bytes]:
    return [b"k%04d-%010d" % (key, i) for i in range(n)]


def fair(ids: list[bytes], key: object, weight: float = 1.0) -> list[tuple[bytes, ...]]:
    return [sent(id_, more(fair=str(key), weight=weight)) for id_ in ids]


def test_keys_take_turns_and_each_keeps_its_order(fleet: Fleet) -> None:
    many, two, one = fair_ids(1, 6), fair_ids(2, 2), fair_ids(3, 1)
    fleet.send_all([*fair(many, 1), *fair(two, 2), *fair(one, 3)])

    taken = fleet.take(9)

    assert Counter(id_[:5] for id_ in taken[:3]) == {b"k0001": 1, b"k0002": 1, b"k0003": 1}
    assert Counter(id_[:5] for id_ in taken[3:5]) == {b"k0001": 1, b"k0002": 1}
    assert [id_ for id_ in taken if id_ in many] == many
    assert [id_ for id_ in taken if id_ in two] == two


@pytest.mark.parametrize("n", [1, 7])
def test_who_comes_later_does_not_wait_for_those_with_many(fleet: Fleet, n: int) -> None:
    """Not even after the one with many has been served alone for long; nor does a newcomer shut it out."""
    many, few = fair_ids(1, 200), fair_ids(2, 100)
    with fleet.unaudited():
        fleet.send_all(fair(many, 1))
        for _ in range(0, 70, n):
            fleet.done(*fleet.take(n))
        fleet.send_all(fair(few, 2))

        share = Counter(id_[:5] for _ in range(0, 42, n) for id_ in fleet.take(n))

    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2 + n, "one key has more than its turn"


def test_a_key_gets_its_weight(fleet: Fleet) -> None:
    fleet.send_all([*fair(fair_ids(1, 90), 1), *fair(fair_ids(2, 90), 2, weight=3.0)])

    share = Counter(id_[:5] for id_ in fleet.take(80))

    assert abs(share[b"k0002"] - 3 * share[b"k0001"]) <= 4, share


@pytest.mark.parametrize("level", [-2, 0, 5])
def test_turns_are_kept_within_each_priority(fleet: Fleet, level: int) -> None:
    def ranked(key: int, n: int, priority: int) -> list[tuple[bytes, ...]]:
        return [sent(id_, more(priority=priority, fair=str(key))) for id_ in fair_ids(key, n)]

    fleet.send_all(ranked(1, 40, level))
    first = fleet.take(20)
    fleet.send_all([*ranked(2, 10, level), *ranked(3, 3, level + 1)])

    taken = fleet.take(23)

    assert len(first) == 20
    assert {id_[:5] for id_ in taken[:3]} == {b"k0003"}
    share = Counter(id_[:5] for id_ in taken[3:])
    assert abs(share[b"k0001"] - share[b"k0002"]) <= 2, share


def test_a_fetch_that_takes_from_several_priorities_keeps_the_turn_of_each(fleet: Fleet) -> None:
    def high(key: int, first: int) -> list[tuple[bytes, ...]]:
        ids = fair_ids(key, first + 20)[first:]
        return [sent(id_, more(priority=5, fair=str(key))) for id_ in ids]

    fleet.send_all([*high(1, 0), *fair(fair_ids(2, 9), 2)])
    assert len(fleet.take(24)) == 24
    fleet.send_all([*high(3, 0), *high(1, 20)])

    share = Counter(id_[:5] for id_ in fleet.take(20))

    assert abs(share[b"k0001"] - share[b"k0003"]) <= 2, share


def test_a_fair_queue_that_was_emptied_keeps_nothing(fleet: Fleet) -> None:
    fleet.send_all([*fair(fair_ids(1, 3), 1), *fair(fair_ids(2, 3), 2)])
    fleet.done(*fleet.take(6))

    assert not {"ranked:q", "fair:q", "turns"} & set(fleet.world.names())


def test_a_fair_queue_forgets_the_keys_that_have_had_their_share(fleet: Fleet) -> None:
    """However many tenants there ever were, only those count that have something waiting."""
    with fleet.unaudited():
        fleet.send_all(fair(fair_ids(0, 100), 0))
        for key in range(1, 50):
            fleet.send_all(fair(fair_ids(key, 1), key))
            fleet.done(*fleet.take(2))

    assert len(fleet.look().table("fair:q")) <= 4


def test_a_key_with_very_many_waiting_does_not_keep_others_waiting(fleet: Fleet) -> None:
    """One key with 100,000 waiting, 100 keys with 10 each that come later: all done after at most 1,100 takes."""
    order: list[bytes] = []
    waiting = {id_ for key in range(1, 101) for id_ in fair_ids(key, 10)}
    with fleet.unaudited():
        fleet.send_all(fair(fair_ids(0, 100_000 if SOAK else 4_000), 0))
        for _ in range(20):
            fleet.done(*fleet.take(64))
        fleet.send_all([one for key in range(1, 101) for one in fair(fair_ids(key, 10), key)])
        while not waiting <= set(order):
            batch = fleet.take(16)
            order += batch
            fleet.done(*batch)
        fleet.world.raw("DEL", fleet.world.keys["producer:p"])

    assert len(order) <= 1100
    for key in range(1, 101):
        assert [id_ for id_ in order if id_.startswith(b"k%04d" % key)] == fair_ids(key, 10)


@pytest.mark.parametrize("level", [-99, 0, 7])
def test_however_many_messages_of_the_lowest_weight_none_leaves_its_priority(fleet: Fleet, level: int) -> None:
    """After 33 million of them without a pause: those that come then are in the order of their ids."""
    base = -level * 2.0**45
    last = base + 2.0**45 - 3_000_000
    fleet.world.seed(
        {"fair:q": Scores({b"%d|k" % level: last, b"%d" % level: last - 2_000_000}), "marks": {b"q": b"r"}}
    )
    ids = fair_ids(1, 6)
    fleet.send_all([sent(id_, more(priority=level, fair="k", weight=0.001)) for id_ in ids])
    fleet.send(D, head=more(priority=level - 1, fair="other"))

    assert all(base <= rank < base + 2.0**45 for id_, rank in fleet.look().table("ranked:q").items() if id_ != D)
    assert fleet.take(7) == [*ids, D]


def test_the_weight_is_a_number_in_the_head(world: World) -> None:
    """As the script reads it: a big-endian double, then the key."""
    assert more(fair="x", weight=2.5) == b"f\x09" + struct.pack(">d", 2.5) + b"x"
