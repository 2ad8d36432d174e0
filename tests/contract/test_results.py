"""await, locate, forget, and the inbox."""

from __future__ import annotations

import pytest

from taskq.broker.commands.awaiting import await_results, drain_inbox, forget, take_inbox
from taskq.broker.commands.looking import Located, locate
from tests.contract.world import MINUTE, T0, Scores, State, World, message, messages, raw_id, serving, without

A, B, C, D, E = map(raw_id, range(1, 6))

PLACES: dict[str, State] = {
    "pending": {"queue:q": [A]},
    "suspect": {"suspects:q": [A]},
    "scheduled": {"schedule": Scores({A: T0 + MINUTE})},
    "processing": serving("inc") | {"processing:inc": {A: b"123 q"}},
}


@pytest.mark.parametrize("place", PLACES)
def test_whoever_asks_for_a_living_message_is_remembered(world: World, place: str) -> None:
    before = world.seed(PLACES[place], {"messages": messages(A)})

    assert world.run(await_results(world.keys, "in1", [A])) == [1]
    assert world.state() == before | {"waiters": {A: b"in1"}}


def test_several_inboxes_wait_for_the_same_message_each_once(world: World) -> None:
    before = world.seed({"messages": messages(A)})

    for inbox in ("in1", "in2", "in1", "in2", "in3"):
        assert world.run(await_results(world.keys, inbox, [A])) == [1]

    assert world.state() == before | {"waiters": {A: b"in1 in2 in3"}}


def test_each_id_is_answered_as_it_stands(world: World) -> None:
    before = world.seed(
        {
            "messages": messages(B, C),
            "dead:q": Scores({C: 1.0}),
            "reasons": {C: b"failed\ndetail"},
            f"result:{A.decode()}": b"Svalue",
            "queue:q": [B],
        }
    )

    answers = world.run(await_results(world.keys, "in1", [A, B, C, D]))

    assert answers == [b"Svalue", 1, [b"failed\ndetail"], 0]
    assert world.state() == before | {"waiters": {B: b"in1"}}


def test_a_dead_letter_whose_result_is_still_there_answers_with_that(world: World) -> None:
    world.seed({"messages": messages(A), "reasons": {A: b"failed\n"}, f"result:{A.decode()}": b"Fwhy"})

    assert world.run(await_results(world.keys, "in1", [A])) == [b"Fwhy"]


def test_only_looking_leaves_no_word(world: World) -> None:
    world.seed({"messages": messages(A, B), f"result:{C.decode()}": b"S"})
    before = world.dump()

    assert world.run(await_results(world.keys, "", [A, B, C, D])) == [1, 1, b"S", 0]
    assert world.dump() == before


def test_an_inbox_gives_one_and_then_the_rest(world: World) -> None:
    world.seed({"inbox:in": [b"one", b"two", b"three"]})

    inbox = world.keys["inbox:in"]
    assert world.run(take_inbox(world.keys, "in", 1)) == [inbox, b"one"]
    assert world.run(drain_inbox(world.keys["inbox:in"])) == [b"two", b"three"]
    assert world.run(drain_inbox(world.keys["inbox:in"])) == []
    assert world.run(take_inbox(world.keys, "in", 0.001)) == []
    assert world.state() == {}


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("pending", Located("pending", message(A))),
        ("suspect", Located("pending", message(A))),
        ("scheduled", Located("scheduled", message(A), time=(T0 + MINUTE) / 1000)),
        ("processing", Located("processing", message(A), time=0.123, worker=b"info")),
    ],
)
def test_a_living_message_is_located_where_it_is(world: World, place: str, found: Located) -> None:
    world.seed(PLACES[place], {"messages": messages(A)})
    before = world.dump()

    assert world.run(locate(world.keys, A)) == found
    assert world.dump() == before


def test_a_suspect_that_runs_is_located_too(world: World) -> None:
    world.seed(PLACES["processing"] | {"processing:inc": {A: b"!123 q"}, "messages": messages(A)})

    assert world.run(locate(world.keys, A)) == Located("processing", message(A), time=0.123, worker=b"info")


def test_a_dead_letter_is_located_with_its_reason_and_time(world: World) -> None:
    world.seed({"messages": messages(A), "dead:q": Scores({A: 5000.0}), "reasons": {A: b"failed\ndetail"}})

    assert world.run(locate(world.keys, A)) == Located("dead", message(A), b"failed\ndetail", 5.0)


def test_an_unreadable_dead_letter_is_located_too(world: World) -> None:
    world.seed({"messages": {A: b"?"}, "dead:unreadable": Scores({A: 5000.0}), "reasons": {A: b"unreadable\n"}})

    assert world.run(locate(world.keys, A)) == Located("dead", b"?", b"unreadable\n", 5.0)


def test_a_result_and_the_unknown_are_told_apart(world: World) -> None:
    world.seed({f"result:{A.decode()}": b"S"})

    assert world.run(locate(world.keys, A)) == Located("result", b"S")
    assert world.run(locate(world.keys, B)) == Located("unknown")


def test_forgetting_deletes_the_result_alone(world: World) -> None:
    before = world.seed({f"result:{A.decode()}": b"S", f"result:{B.decode()}": b"S", "messages": messages(A)})

    assert world.run(forget(world.keys, A)) == 1
    assert world.run(forget(world.keys, A)) == 0
    assert world.state() == without(before, f"result:{A.decode()}")
