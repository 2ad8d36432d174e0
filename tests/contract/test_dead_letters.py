"""replay, purge, retire, and reading dead letters."""

from __future__ import annotations

import pytest

from taskq.broker.call import hash_values
from taskq.broker.commands.keeping import retire
from taskq.broker.commands.looking import dead_ids, dead_time
from taskq.broker.commands.steering import purge, replay
from tests.contract.world import MINUTE, T0, Near, Scores, State, World, message, messages, raw_id, serving, without

A, B, C, D = map(raw_id, range(1, 5))


def dead(*ids: bytes, age: float = MINUTE) -> State:
    """Dead letters of ``q``, each a millisecond younger than the one before."""
    return {
        "messages": messages(*ids),
        "dead:q": Scores({id_: T0 - age + n for n, id_ in enumerate(ids)}),
        "reasons": dict.fromkeys(ids, b"failed\ndetail"),
    }


def test_a_replayed_message_goes_to_the_end_of_its_queue_as_if_new(world: World) -> None:
    before = world.seed(
        serving("inc"), dead(A, B), {"queue:q": [C], f"result:{A.decode()}": b"F", "crashes": {A: b"3", C: b"1"}}
    )

    assert world.run(replay(world.keys, "q", A, b"")) is True
    assert world.state() == without(before, f"result:{A.decode()}") | {
        "dead:q": Scores({B: before["dead:q"][B]}),
        "reasons": {B: b"failed\ndetail"},
        "crashes": {C: b"1"},
        "queue:q": [C, A],
        "counters": {b"q|replayed": b"1"},
    }


def test_a_replay_may_store_another_value_and_rings(world: World) -> None:
    before = world.seed(serving("inc"), dead(A))
    fresh = message(A, body=b"fresh")

    assert world.run(replay(world.keys, "q", A, fresh)) is True
    assert world.state() == without(before, "dead:q", "reasons") | {
        "messages": {A: fresh},
        "queue:q": [A],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|replayed": b"1"},
    }


@pytest.mark.parametrize(("queue", "id_"), [("q", C), ("p", A), ("q", D)])
def test_what_is_no_dead_letter_of_that_queue_is_not_replayed(world: World, queue: str, id_: bytes) -> None:
    world.seed(dead(A, B), {"queue:q": [C]})
    world.seed({"messages": messages(C), "dead:q": Scores({D: 1.0})})  # D has no message
    before = world.dump()

    assert world.run(replay(world.keys, queue, id_, b"")) is False
    assert world.dump() == before


def test_replaying_again_does_nothing(world: World) -> None:
    world.seed(dead(A))
    world.run(replay(world.keys, "q", A, b""))
    before = world.dump()

    assert world.run(replay(world.keys, "q", A, b"")) is False
    assert world.dump() == before


def test_purged_dead_letters_go_for_good(world: World) -> None:
    before = world.seed(dead(A, B, C))

    assert world.run(purge(world.keys, "q", [A, C, D])) == 2
    assert world.state() == before | {
        "messages": messages(B),
        "dead:q": Scores({B: before["dead:q"][B]}),
        "reasons": {B: b"failed\ndetail"},
        "counters": {b"q|purged": b"2"},
    }


def test_purging_leaves_no_empty_rest_and_again_does_nothing(world: World) -> None:
    world.seed(dead(A, B))

    assert world.run(purge(world.keys, "q", [A, B])) == 2
    assert world.state() == {"counters": {b"q|purged": b"2"}}
    assert world.run(purge(world.keys, "q", [A, B])) == 0
    assert world.state() == {"counters": {b"q|purged": b"2"}}


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_purged_on_its_way_to_another_partition_is_not_carried_there(world: World, broken: bool) -> None:
    world.seed(dead(A, B), {"onward": {A: b"elsewhere\n" + message(A), B: b"elsewhere\n" + message(B)}})
    if broken:
        kept = world.take_away("onward")
        world.raw("SET", world.keys["onward"], "of another type")

    assert world.run(purge(world.keys, "q", [A])) == 1
    if broken:  # it costs the purge nothing
        world.bring_back("onward", kept)
    else:
        assert list(world.state()["onward"]) == [B]
    assert list(world.state()["dead:q"]) == [B]


def test_what_is_alive_is_not_purged(world: World) -> None:
    world.seed(dead(A), {"queue:q": [B]})
    world.seed({"messages": messages(B)})
    before = world.dump()

    assert world.run(purge(world.keys, "q", [B, C])) == 0
    assert world.run(purge(world.keys, "p", [A])) == 0
    assert world.dump() == before


def test_dead_letters_past_their_time_retire(world: World) -> None:
    before = world.seed(dead(A, B, age=2 * MINUTE), {"settings": {b"dead_ttl": b"60000"}})
    world.seed({"dead:q": Scores({C: T0 - 5000.0}), "messages": messages(C), "reasons": {C: b"failed\n"}})

    assert world.run(retire(world.keys, 100, ["q", "empty"])) == 2
    assert world.state() == before | {
        "messages": messages(C),
        "dead:q": Scores({C: T0 - 5000.0}),
        "reasons": {C: b"failed\n"},
        "counters": {b"q|purged": b"2"},
    }
    assert world.run(retire(world.keys, 100, ["q", "empty"])) == 0


def test_a_queue_whose_dead_letters_cannot_be_read_keeps_no_other_from_retiring(world: World) -> None:
    world.seed(dead(A, B), {"settings": {b"dead_ttl": b"1000"}, "dead:broken": b"x"})

    assert world.run(retire(world.keys, 100, ["broken", "q"])) == 2
    assert world.state()["counters"] == {b"q|purged": b"2"}
    world.raw("DEL", world.keys["dead:broken"])


def test_the_oldest_retire_first_up_to_the_limit(world: World) -> None:
    world.seed(dead(A, B, C, age=2 * MINUTE), {"settings": {b"dead_ttl": b"60000"}})

    assert world.run(retire(world.keys, 2, ["q"])) == 2
    assert set(world.state()["dead:q"]) == {C}


def test_without_a_time_nothing_retires(world: World) -> None:
    world.seed(dead(A, age=10 * 365 * 24 * 60 * MINUTE))
    before = world.dump()

    assert world.run(retire(world.keys, 100, ["q"])) == 0
    assert world.dump() == before


def test_dead_letters_are_listed_oldest_first(world: World) -> None:
    world.seed(dead(A, B, C))

    listed = world.run(dead_ids(world.keys, "q", 0, 1))

    assert listed == [(A, (T0 - MINUTE) / 1000), (B, (T0 - MINUTE + 1) / 1000)]
    assert world.run(dead_ids(world.keys, "none", 0, -1)) == []
    assert world.run(hash_values(world.keys, "reasons", [C, D])) == [b"failed\ndetail", None]
    assert world.run(dead_time(world.keys, "q", B)) == (T0 - MINUTE + 1) / 1000
    assert world.run(dead_time(world.keys, "q", D)) is None
