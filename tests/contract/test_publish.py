"""publish: settings, tasks and limits, as workers announce them again and again."""

from __future__ import annotations

from taskq.broker.commands.announcing import Published, publish_tasks
from taskq.broker.commands.holding import register
from tests.contract.world import LEASE, MINUTE, SET, T0, Near, World

LIMITS = "o 0 1 1"
SETTINGS = {"lease": LEASE, "dead_max": 7, "discard_after": None}


def say(world: World, limits: str = LIMITS, since: int | None = None, **settings: int | None) -> Published:
    return world.run(publish_tasks(world.keys, [("t", "q", limits)], {**SETTINGS, **settings}, since))


def test_what_a_worker_announces_is_in_force(world: World) -> None:
    said = say(world)

    assert said.since == Near(T0)
    stamp = b"%d" % said.since
    assert world.state() == {
        "settings": {b"lease": b"%d" % LEASE, b"dead_max": b"7"},
        "tasks": {b"t": b"q"},
        "limits": {b"t": LIMITS.encode()},
        "marks": {b"q": b"l"},
        "published": {b"=": stamp, b"t": stamp},
    }


def test_again_nothing_is_left_to_be_changed(world: World) -> None:
    since = say(world).since
    before = world.dump()

    assert say(world, since=since) == Published(since, 0, 0)
    assert world.dump() == before


def test_whatever_of_it_was_lost_is_put_back(world: World) -> None:
    since = say(world).since
    before = world.state()
    for lost in [*before, "everything"]:
        gone = list(before) if lost == "everything" else [lost]
        world.raw("DEL", *(world.keys[name] for name in gone))

        said = say(world, since=since)

        assert world.state() == before, lost
        assert bool(said.changed) == (lost not in ("published", "marks")), lost


def test_of_workers_that_say_otherwise_the_one_started_last_is_right(world: World) -> None:
    old = say(world, LIMITS).since
    new = say(world, "", dead_max=8).since
    assert new > old, "even in the same millisecond"
    before = world.dump()

    say(world, LIMITS, old)
    assert world.dump() == before

    world.raw("DEL", *(world.keys[name] for name in world.names()))
    say(world, LIMITS, old)
    say(world, "", new, dead_max=8)
    say(world, LIMITS, old)
    assert world.dump() == before


def test_one_started_after_the_clock_was_set_back_is_started_later_all_the_same(world: World) -> None:
    old = say(world).since
    world.at(T0 - 9.0 * MINUTE)

    assert say(world, "").since == old + 1
    assert "limits" not in world.state()


def test_the_lease_all_go_by_is_the_longest_of_those_that_live(world: World) -> None:
    world.run(register(world.keys, "long", MINUTE, b"", SET))

    since = say(world, lease=3000).since
    assert world.state()["settings"][b"lease"] == b"%d" % MINUTE

    world.raw("DEL", world.keys["terms"])
    say(world, since=since, lease=3000)
    assert world.state()["settings"][b"lease"] == b"3000"
