"""why: what it reads of each place a message can be in; the sentences themselves are in ``tests/unit/test_why.py``."""

from __future__ import annotations

import msgpack
import pytest

from taskq.broker.commands.looking import why
from taskq.broker.commands.producing import enqueue
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.tasks.flow import Flow
from taskq.tasks.keys import NO_ARGUMENTS
from taskq.views.why import sentence
from tests.contract.world import LEASE, T0, Scores, State, World, messages, raw_id, serving

A, B, C = map(raw_id, range(1, 4))
WORKER = bytes(msgpack.packb({"worker": "w", "child": 3, "queues": ["q"], "tasks": {"t": b""}}))


def served(*incs: str) -> State:
    return serving(*(incs or ("inc",))) | {"workers": {inc.encode(): WORKER for inc in incs or ("inc",)}}


def send(world: World, raw_id_: bytes, number: int, more: bytes = b"", options: bytes = b"") -> None:
    value = encode_head("t", "q", more=more) + encode_envelope(raw_id_, {}, b"")
    assert world.run(enqueue(world.keys, b"p", number, [(raw_id_, value, options)])) == b"+"


def asked(world: World, id_: bytes = A) -> str:
    """The sentence; asking changes nothing."""
    before = world.dump()
    text = sentence(id_, world.run(why(world.keys, id_)))
    assert world.dump() == before
    assert sentence(id_, world.run(why(world.keys, id_)))[:20] == text[:20]
    return text


STATES: dict[str, tuple[State, str]] = {
    "nowhere": ({}, "No message and no result of id message-00000001 exists"),
    "with a result": ({"result:" + A.decode(): b"Xrevoked\na mistake"}, "It was revoked: a mistake."),
    "dead": (
        {"messages": messages(A), "dead:q": Scores({A: float(T0)}), "reasons": {A: b"crashed\n"}},
        "It is a dead letter since 2033-05-18 03:33:20 UTC, crashed;",
    ),
    "dead and unreadable": (
        {"messages": {A: b"?"}, "dead:unreadable": Scores({A: float(T0)}), "reasons": {A: b"unreadable\n"}},
        "It is a dead letter since 2033-05-18 03:33:20 UTC, unreadable;",
    ),
    "scheduled": (
        {"messages": messages(A), "schedule": Scores({A: T0 + 3_600_000.0})},
        "It is scheduled for 2033-05-18 04:33:20 UTC (in 60 min).",
    ),
    "running": (
        {"messages": messages(A), "processing:inc": {A: b"%d q" % (T0 - 120_000)}},
        "It runs in worker w, child 3",
    ),
    "suspect": (
        {"messages": messages(A, B), "suspects:q": [B, A], "crashes": {A: b"2"}},
        "It waits to run alone, since its process died 2 times; it is number 2 of 2.",
    ),
    "waiting": (
        {"messages": messages(A, B, accepted=T0 - 600_000.0), "queue:q": [B, A]},
        "It is number 2 of 2 in queue q.",
    ),
    "revoked": ({"messages": messages(A), "queue:q": [A], "revoked": {A: b""}}, "It was revoked and ends when"),
    "paused": (
        {"messages": messages(A), "queue:q": [A], "paused": {b"q": b"%d 0 ann\nthe provider is down" % (T0 - 600_000)}},
        "Queue q was paused 10 min ago by ann, until it is resumed: the provider is down.",
    ),
    "of a paused task": (
        {"messages": messages(A), "queue:q": [A], "paused": {b"=t": b"%d 0 ann\n" % (T0 - 600_000)}},
        "Task t was paused 10 min ago by ann, until it is resumed.",
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_each_place_has_its_reason(world: World, state: str) -> None:
    seeded, expected = STATES[state]
    world.seed(served(), seeded)

    assert asked(world).startswith(expected)


def test_a_queue_is_served_as_long_as_a_set_of_it_lives(world: World) -> None:
    world.seed(served(), {"messages": messages(A), "queue:q": [A]})
    assert asked(world) == "It is number 1 of 1 in queue q."

    world.at(T0 + LEASE + 1000)

    assert asked(world).startswith("No live worker serves queue q")


def test_a_task_that_no_live_worker_has_is_told_apart(world: World) -> None:
    world.seed(served(), {"messages": messages(A, task="new"), "queue:q": [A]})

    assert asked(world).startswith("No live worker has task new")


def test_a_rate_says_when_it_lets_the_next_one_pass(world: World) -> None:
    limits = {"limits": {b"t": b"o 60000.000000 1 0"}, "tasks": {b"t": b"t"}, "marks": {b"q": b"l"}}
    world.seed(served(), limits, {"arrivals": Scores({b"t#1": T0 + 30_000.0})})
    send(world, A, 1, Flow(rate="1/m").fields("t", NO_ARGUMENTS))

    assert asked(world).startswith(
        "It is held up by limit 1 of task t (1/m): the next may start at 2033-05-18 03:33:50 UTC (in "
    )


def test_a_concurrency_says_who_holds_the_slots(world: World) -> None:
    limits = {"limits": {b"t": b"s 0 1 2"}, "tasks": {b"t": b"q"}, "marks": {b"q": b"l"}, "slots": {b"t#1": b"2"}}
    held = {B: b"%d q\nt#1" % T0, C: b"%d q\nt#1" % T0, raw_id(9): b"%d q\nt#12" % T0}
    world.seed(served(), limits, {"processing:inc": held, "gates": {b"t#1": b" q "}})
    world.seed({"messages": messages(A), "gated:q|t#1": [A], "counters": {b"q|accepted": b"1", b"q|gated": b"1"}})

    text = asked(world)

    assert text in {
        f"It is held up by limit 1 of task t (2 at a time): all 2 are in use, by {', '.join(ids)}; it is number 1 of 1."
        for ids in (("message-00000002", "message-00000003"), ("message-00000003", "message-00000002"))
    }


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        (
            b"o %d " % (T0 + 60_000),
            "The breaker of task t is open, since it kept failing; it lets one through at 2033-05-18",
        ),
        (b"h 0 ", "The breaker of task t has let one message through"),
        (b"c 0 0101", "It is number 1 of 1 in queue q."),
    ],
)
def test_a_breaker_says_how_it_stands(world: World, breaker: bytes, expected: str) -> None:
    world.seed(served(), {"limits": {b"t": b"b 0.5 20 60000"}, "tasks": {b"t": b"q"}, "breakers": {b"t": breaker}})
    world.seed({"messages": messages(A), "queue:q": [A], "marks": {b"q": b"l"}})

    assert asked(world).startswith(expected)


def test_ranked_messages_count_what_goes_before_them(world: World) -> None:
    world.seed(served())
    for number, (id_, priority) in enumerate([(A, -5), (B, 0), (C, 5)], 1):
        send(world, id_, number, Flow(priority=priority).fields("t", NO_ARGUMENTS))

    assert asked(world, C) == "It is number 1 of 3 in queue q, by its priority."
    assert asked(world, B).startswith("It is number 2 of 3 in queue q")
    assert asked(world, A) == "It is number 3 of 3 in queue q, by its priority."


def test_a_position_is_exact_to_ten_thousand(world: World) -> None:
    ids = [raw_id(i) for i in range(10_001)]
    world.seed(served(), {"messages": messages(*ids)})
    for first in range(0, len(ids), 1000):
        world.raw("RPUSH", world.keys["queue:q"], *ids[first : first + 1000])

    assert sentence(ids[9999], world.run(why(world.keys, ids[9999]))).startswith("It is number 10,000 of 10,001")
    assert sentence(ids[10_000], world.run(why(world.keys, ids[10_000]))).startswith(
        "It is behind more than 10,000 others of 10,001"
    )
