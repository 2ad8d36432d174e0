"""register: a new incarnation and what it serves."""

from __future__ import annotations

from taskq.broker.commands.announcing import publish_tasks
from taskq.broker.commands.holding import register
from taskq.broker.commands.looking import workers
from taskq.broker.queue_set import QueueSet
from tests.contract.world import LEASE, SET, T0, Near, Scores, World, messages, raw_id, serving

A, B = raw_id(1), raw_id(2)


def test_an_incarnation_becomes_known_with_its_lease_and_its_queues(world: World) -> None:
    world.run(register(world.keys, "inc", LEASE, b"info", SET))

    assert world.state() == serving("inc", until=Near(T0 + LEASE))
    assert world.run(workers(world.keys)) == {b"inc": b"info"}


def test_again_it_renews_the_same_registration(world: World) -> None:
    world.run(register(world.keys, "inc", LEASE, b"info", SET))
    world.raw("HSET", world.keys["calls"], "inc", 7)
    world.at(T0 + 5000)

    world.run(register(world.keys, "inc", LEASE, b"info", SET))

    assert world.state() == serving("inc", until=Near(T0 + 5000 + LEASE)) | {"calls": {b"inc": b"7"}}


def test_a_second_incarnation_of_the_same_set_changes_nothing_of_the_set(world: World) -> None:
    world.run(register(world.keys, "one", LEASE, b"info", SET))
    world.run(register(world.keys, "two", LEASE, b"info", SET))

    assert world.state() == serving("one", "two", until=Near(T0 + LEASE))


def test_a_queue_may_be_in_several_sets(world: World) -> None:
    more = QueueSet("more", ("p", "q"))
    world.run(register(world.keys, "one", LEASE, b"", SET))
    world.run(register(world.keys, "two", LEASE, b"", more))

    after = world.state()
    assert after["serving"] == {b"q": b"set more", b"p": b"more"}
    assert after["sets"] == {b"set": b"q", b"more": b"p q"}


def test_what_waits_already_is_announced(world: World) -> None:
    before = world.seed({"messages": messages(A, B), "queue:q": [A], "suspects:q": [B]})

    world.run(register(world.keys, "inc", LEASE, b"info", SET))

    assert world.state() == before | serving("inc", until=Near(T0 + LEASE)) | {
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
    }


def test_one_that_serves_nothing_is_known_all_the_same(world: World) -> None:
    world.run(register(world.keys, "inc", LEASE, b"info", QueueSet("", ())))

    assert world.state() == {
        "leases": Scores({b"inc": Near(T0 + LEASE)}),
        "terms": Scores({b"inc": float(LEASE)}),
        "calls": {b"inc": b"0"},
        "workers": {b"inc": b"info"},
    }


def test_it_is_refused_while_what_its_worker_announced_is_not_in_force(world: World) -> None:
    """Else its messages would run without the limits of their tasks: the server was emptied, or is an older copy."""
    since = world.run(publish_tasks(world.keys, [("t", "q", "o 10.000 1 0")], {"lease": LEASE})).since
    world.raw("DEL", world.keys["published"])
    for known in ({}, {"published": {b"=": b"%d" % (since - 1)}}):
        before = world.seed(known)

        assert not world.run(register(world.keys, "inc", LEASE, b"info", SET, since))
        assert world.state() == before

    world.run(publish_tasks(world.keys, [("t", "q", "o 10.000 1 0")], {"lease": LEASE}, since))
    assert world.run(register(world.keys, "inc", LEASE, b"info", SET, since))


def test_the_same_queues_make_the_same_set_in_any_order() -> None:
    assert QueueSet.of(["b", "a", "b"]) == QueueSet.of(("a", "b"))
    assert QueueSet.of(["a b".replace(" ", "")]) != QueueSet.of(["a", "b"])
    assert QueueSet.of(["b", "a"]).joined == "a b"
