"""At most once: such a message is taken alone, from whatever queue it comes by."""

from __future__ import annotations

import pytest

from taskq.broker.commands import keeping
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import LEASE, World, raw_id

A, B, C, D, E = map(raw_id, range(1, 6))
ALL = " q=64 "


def once(id_: bytes, head: bytes = b"", queue: str = "q") -> tuple[bytes, ...]:
    """A call of a task that runs at most once, sent to another queue than its own."""
    return id_, encode_head("once", queue, at_most_once=True, more=head) + encode_envelope(id_, {}, b""), b"w"


@pytest.mark.parametrize("caps", ["", ALL], ids=["loop lane", "main lane"])
def test_what_runs_at_most_once_is_taken_alone_from_a_queue_of_others(world: World, caps: str) -> None:
    fleet = Fleet(world)
    fleet.send_all([sent(A), sent(B), once(C), once(D), sent(E)])

    taken = [fleet.fetch(want=64, caps=caps).messages[::2] for _ in range(4)]

    assert taken == [[A, B], [C], [D], [E]]


@pytest.mark.parametrize("head", [more(priority=3), more(fair="k"), more(priority=-3)], ids=["high", "fair", "low"])
def test_it_is_also_where_the_queue_has_ranks(world: World, head: bytes) -> None:
    fleet = Fleet(world)
    fleet.send_all([sent(A, head), once(B, head), once(C, head), sent(D, head)])

    assert [fleet.fetch(want=64, caps=ALL).messages[::2] for _ in range(4)] == [[A], [B], [C], [D]]


def test_it_is_also_at_the_gate_of_a_limit(world: World) -> None:
    fleet = Fleet(world)
    fleet.publish("once", "s 0 1 2", queue="own")
    fleet.send_all([once(id_, more(limited=True)) for id_ in (A, B, C)])
    first = [fleet.fetch(want=64, caps=ALL).messages[::2] for _ in range(3)]
    assert first == [[A], [B], []]

    assert fleet.fetch((A, b""), (B, b""), want=64, caps=ALL).messages[::2] == [C]


def test_it_is_also_when_it_comes_out_of_a_line_beside_other_queues(world: World) -> None:
    fleet = Fleet(world, "a", "q")
    fleet.publish("once", "s 0 1 1", queue="own")
    fleet.send_all([once(id_, more(limited=True)) for id_ in (B, C)])
    caps = " a=64 q=64 "
    assert [fleet.fetch(want=64, caps=caps).messages[::2] for _ in range(2)] == [[B], []]
    fleet.send(A, queue="a")

    assert [fleet.fetch(*done, want=64, caps=caps).messages[::2] for done in ([(B, b"")], [(A, b"")])] == [[A], [C]]


def test_one_that_could_not_be_taken_with_others_comes_first_the_next_time(world: World) -> None:
    """Other queues that always have a little would otherwise put it off for ever."""
    fleet = Fleet(world, "a", "q")
    fleet.send_all([sent(A, queue="a"), once(B)])
    assert fleet.fetch(want=64, caps=" a=64 q=64 ").messages[::2] == [A]
    fleet.send(C, queue="a")

    assert fleet.fetch(want=64, caps=" a=64 q=64 ").messages[::2] == [B]


def test_a_lost_worker_gives_up_the_one_that_it_may_have_begun_and_no_other(world: World) -> None:
    fleet = Fleet(world)
    fleet.send_all([once(id_) for id_ in (A, B, C)])
    fleet.fetch(want=64, caps=ALL)

    moves = []
    for _ in range(4):  # the pulse is to be fresh when the lease ends
        world.at(world.now + LEASE / 3)
        moves += world.run(keeping.reap(world.keys, 10)).moves.get("inc", [])

    assert [(move.id, move.place) for move in moves] == [(A, "dead")]


def test_its_own_queue_is_not_marked_for_workers_take_one_at_a_time_from_there(world: World) -> None:
    fleet = Fleet(world)
    fleet.send_all([(*once(A)[:2], b"")])

    assert "marks" not in world.names()
    assert fleet.fetch(want=64, caps=" q=0 ").messages[::2] == [A]
