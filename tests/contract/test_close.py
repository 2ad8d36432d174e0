"""close: an incarnation whose process is gone."""

from __future__ import annotations

import pytest

from taskq.broker.commands.holding import Lost, fetch
from taskq.broker.commands.leasing import Move, close
from taskq.errors import BrokerRefused
from tests.contract.world import MINUTE, T0, Near, Scores, State, World, messages, raw_id, serving, without

A, B, C, D, E = map(raw_id, range(1, 6))


def held(*ids: bytes, **more: object) -> State:
    """``inc`` holds these, accepted one after another; others serve on."""
    values = {id_: value for n, id_ in enumerate(ids) for id_, value in messages(id_, accepted=T0 - 9000 + n).items()}
    return serving("inc", "other") | {"messages": values, "processing:inc": dict.fromkeys(ids, b"1 q")} | more


def closed(before: State) -> State:
    """The same without the incarnation."""
    rest = serving("other", until=before["leases"][b"other"])
    return without(before, "processing:inc") | {n: rest[n] for n in ("leases", "terms", "calls", "workers")}


def end(world: World, died: bool, *running: bytes, alone: bool = True) -> list[tuple[bytes, str]]:
    moves = world.run(close(world.keys, "inc", died=died, alone=alone, running=running))
    assert all(move.queue == "q" for move in moves)
    return [(move.id, move.place) for move in moves]


def test_what_had_not_started_goes_back_to_the_head_in_order(world: World) -> None:
    before = world.seed(held(C, A, B, **{"queue:q": [D, E]}))

    moves = end(world, True)

    assert moves == [(C, "queue"), (A, "queue"), (B, "queue")]
    assert world.state() == closed(before) | {
        "queue:q": [C, A, B, D, E],
        "counters": {b"q|recovered": b"3"},
    }


def test_a_message_that_ran_alone_is_counted_and_runs_alone_from_now_on(world: World) -> None:
    before = world.seed(held(A, B, C, **{"queue:q": [D]}))

    moves = end(world, True, B)

    assert moves == [(A, "queue"), (B, "suspect"), (C, "queue")]
    assert world.state() == closed(before) | {
        "queue:q": [A, C, D],
        "suspects:q": [B],
        "crashes": {B: b"1"},
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|recovered": b"3", b"q|crashes": b"1"},
    }


def test_of_several_that_ran_all_become_suspects_and_none_is_counted(world: World) -> None:
    before = world.seed(held(A, B, C, **{"suspects:q": [D], "queue:q": [E]}))

    moves = end(world, True, A, C)

    assert moves == [(A, "suspect"), (B, "queue"), (C, "suspect")]
    assert world.state() == closed(before) | {
        "queue:q": [B, E],
        "suspects:q": [A, C, D],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|recovered": b"3"},
    }


def test_one_that_ran_beside_others_of_another_incarnation_is_not_counted(world: World) -> None:
    before = world.seed(held(A, B, **{"queue:q": [D]}))

    moves = end(world, True, A, alone=False)

    assert moves == [(A, "suspect"), (B, "queue")]
    after = world.state()
    assert "crashes" not in after
    assert after["counters"] == {b"q|recovered": b"2"}
    assert after["messages"] == before["messages"]


def test_the_only_one_it_held_is_counted_in_any_case(world: World) -> None:
    world.seed(held(A))

    assert end(world, True, A, alone=False) == [(A, "suspect")]
    assert world.state()["crashes"] == {A: b"1"}


def test_the_second_counted_death_waits_a_second_in_the_schedule(world: World) -> None:
    before = world.seed(held(A, crashes={A: b"1"}))

    assert end(world, True, A) == [(A, "scheduled")]
    assert world.state() == closed(before) | {
        "schedule": Scores({A: Near(T0 + 1000)}),
        "alarm": [b"1"],
        "crashes": {A: b"2"},
        "counters": {b"q|recovered": b"1", b"q|crashes": b"1", b"q|scheduled": b"1"},
    }


@pytest.mark.parametrize(("crashes", "seconds"), [(2, 2), (3, 4), (6, 32)])
def test_each_further_death_doubles_the_wait(world: World, crashes: int, seconds: int) -> None:
    world.seed(held(A, crashes={A: b"%d" % crashes}, settings={b"max_crashes": b"99"}))

    end(world, True, A)

    assert world.state()["schedule"] == Scores({A: Near(T0 + seconds * 1000)})


@pytest.mark.parametrize(("limit", "before_it"), [(None, 2), (1, 0), (5, 4)])
def test_the_last_counted_death_makes_a_dead_letter(world: World, limit: int | None, before_it: int) -> None:
    crashes: State = {"crashes": {A: b"%d" % before_it}} if before_it else {}
    settings: State = {"settings": {b"max_crashes": b"%d" % limit}} if limit else {}
    before = world.seed(held(A, **crashes, **settings), {"waiters": {A: b"in"}})

    assert end(world, True, A) == [(A, "dead")]
    gone = [name for name in ("crashes", "waiters") if name in before]
    assert world.state() == without(closed(before), *gone) | {
        "dead:q": Scores({A: Near(T0)}),
        "reasons": {A: b"crashed\n"},
        f"result:{A.decode()}": b"Dcrashed",
        "inbox:in": [b"\x10" + A + b"Dcrashed"],
        "counters": {b"q|recovered": b"1", b"q|crashes": b"1", b"q|died": b"1"},
    }


def test_a_worker_told_to_stop_counts_nothing(world: World) -> None:
    """A deploy never brings a message nearer to the dead letters."""
    before = world.seed(held(A, B, crashes={A: b"2"}, settings={b"discard_after": b"1"}, **{"queue:q": [D]}))

    assert end(world, False, A) == [(A, "queue"), (B, "queue")]
    assert world.state() == closed(before) | {"queue:q": [A, B, D], "counters": {b"q|recovered": b"2"}}


@pytest.mark.parametrize("died", [True, False])
def test_a_suspect_that_had_not_started_stays_a_suspect(world: World, died: bool) -> None:
    before = world.seed(held(A, **{"processing:inc": {A: b"!1 q"}, "suspects:q": [B]}))

    assert end(world, died) == [(A, "suspect")]
    assert world.state() == closed(before) | {
        "suspects:q": [A, B],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|recovered": b"1"},
    }


def test_a_message_too_old_to_run_again_is_a_dead_letter_with_that_reason(world: World) -> None:
    world.seed(held(A, B, settings={b"discard_after:t": b"5000", b"discard_after": b"%d" % (60 * MINUTE)}))

    assert end(world, True, A) == [(A, "dead"), (B, "queue")]
    assert world.state()["reasons"][A].startswith(b"discarded: ")


@pytest.mark.parametrize("died", [True, False])
def test_a_message_to_run_at_most_once_is_abandoned_if_it_ran_and_delivered_if_not(world: World, died: bool) -> None:
    once = {id_: value[:1] + b"\x02" + value[2:] for id_, value in messages(A, B, accepted=T0 - 9000).items()}
    before = world.seed(held(A, B, messages=once, **{"queue:q": [D]}))

    assert sorted(end(world, died, A)) == [(A, "dead"), (B, "queue")]
    after = world.state()
    assert after["queue:q"] == [B, D]
    assert after["dead:q"] == Scores({A: Near(T0)})
    assert after["reasons"] == {A: b"abandoned\n"}
    assert after["messages"] == before["messages"]
    assert "crashes" not in after


def test_what_is_known_of_a_death_is_kept_with_what_is_given_up_for_it(world: World) -> None:
    world.seed(held(A, crashes={A: b"2"}), {"waiters": {A: b"in"}})

    world.run(close(world.keys, "inc", died=True, alone=True, running=[A], cause=b"killed by\nSIGKILL\x00"))

    after = world.state()
    assert after["reasons"] == {A: b"crashed\nkilled by\nSIGKILL\x00"}
    assert after[f"result:{A.decode()}"] == b"Fkilled by\nSIGKILL\x00"
    assert after["inbox:in"] == [b"\x10" + A + b"Fkilled by\nSIGKILL\x00"]


def test_an_id_without_a_message_is_dropped_and_counted(world: World) -> None:
    before = world.seed(held(A, **{"processing:inc": {A: b"1 q", B: b"1 q"}, "queue:q": [D]}))

    moves = end(world, True)

    assert sorted(moves) == [(A, "queue"), (B, "dangling")]
    assert world.state() == closed(before) | {
        "queue:q": [A, D],
        "counters": {b"q|recovered": b"1", b"q|dangling": b"1"},
    }


def test_messages_of_several_queues_go_back_each_to_its_own(world: World) -> None:
    world.seed(held(A, B, C, **{"processing:inc": {A: b"1 q", B: b"1 p", C: b"1 q"}}))

    moves = world.run(close(world.keys, "inc", died=True, alone=True, running=()))

    assert moves == [Move(A, "q", "queue"), Move(B, "p", "queue"), Move(C, "q", "queue")]
    after = world.state()
    assert (after["queue:q"], after["queue:p"]) == ([A, C], [B])
    assert after["ready:set"] == Scores({b"q": Near(T0)})
    assert after["bell:set"] == [b"1"]


def test_again_it_changes_nothing(world: World) -> None:
    world.seed(held(A, B))
    end(world, True, A)
    before = world.dump()

    assert end(world, True, A) == []
    assert world.dump() == before


def test_a_full_incarnation_is_closed_in_one_call(world: World) -> None:
    ids = [raw_id(i) for i in range(128)]
    world.seed(held(*reversed(ids)))

    end(world, True, ids[64])

    after = world.state()
    assert after["queue:q"] == [id_ for id_ in reversed(ids) if id_ != ids[64]]
    assert after["suspects:q"] == [ids[64]]


def test_thousands_that_an_incarnation_held_go_back_in_pieces_and_in_order(world: World) -> None:
    ids = [raw_id(n) for n in range(9001)]
    world.seed(held(*ids, **{"queue:q": [raw_id(9999)]}))
    pieces = []
    while moves := end(world, True):
        pieces.append(len(moves))
        with pytest.raises(Lost):
            world.run(fetch(world.keys, "inc", 1000 + len(pieces), []))

    assert sum(pieces) == 9001
    assert max(pieces) == 1000
    state = world.state()
    assert state["queue:q"] == [*ids, raw_id(9999)]
    assert b"inc" not in {*state["leases"], *state["calls"]}


@pytest.mark.parametrize("name", ["messages", "counters", "queue:q", "suspects:q", "dead:q", "schedule", "crashes"])
def test_a_key_of_the_wrong_type_leaves_everything_as_it_was(world: World, name: str) -> None:
    world.seed(held(A, B))
    kept = world.take_away(name)
    world.raw("SET", world.keys[name], "an operator's hand")
    before = world.dump()

    with pytest.raises(BrokerRefused, match=f"key tq:.*{name} is a string"):
        end(world, True, A)

    assert world.dump() == before
    world.bring_back(name, kept)
    assert end(world, True, A) == [(A, "suspect"), (B, "queue")]
