"""adopt: messages in queues that nobody serves."""

from __future__ import annotations

import pytest

from taskq.broker.commands import announcing, holding, keeping, leasing, steering
from taskq.broker.commands.keeping import Stray
from taskq.broker.queue_set import QueueSet
from tests.contract.fleet import Fleet, sent
from tests.contract.world import World, raw_id

A, B, C = map(raw_id, range(1, 4))
HOUR = 3_600_000


class Workers(Fleet):
    """A worker whose task ``t`` has queue ``new``."""

    def __init__(self, world: World, queue: str = "new") -> None:
        super().__init__(world, queue)
        self.enlist(t=queue)

    def enlist(self, **homes: str) -> None:
        lane = QueueSet("set", self.queues.queues, tasks=tuple(homes))
        self.world.run(announcing.enlist(self.world.keys, [lane], homes))
        self.world.run(announcing.publish_tasks(self.world.keys, [(task, queue, "") for task, queue in homes.items()]))

    def adopt(self, *queues: str, patience: int = HOUR) -> list[Stray]:
        strays = self.world.run(keeping.adopt(self.world.keys, patience, b"why", queues or ("old",)))
        self.sound()
        return strays


def test_what_lies_in_the_queue_a_task_had_goes_to_those_that_know_it_under_its_new_one(world: World) -> None:
    fleet = Workers(world)
    fleet.send(A, B, queue="old")

    assert fleet.adopt() == [Stray("old", 0, "", 2, 0)]

    assert fleet.take(2) == [A, B]
    fleet.fetch((A, b""), (B, b""))
    assert fleet.look().counter("old", "done") == 2
    assert fleet.adopt() == [Stray("old", 0, "", 0, 0)]


def test_what_such_a_worker_could_not_start_waits_in_line_again(world: World) -> None:
    fleet = Workers(world)
    fleet.send(A, queue="old")
    fleet.adopt()
    assert fleet.take(1) == [A]

    world.run(leasing.close(world.keys, "inc", died=False, alone=False, running=()))
    fleet.begin("inc")
    fleet.adopt()

    assert fleet.take(1) == [A]


def test_what_was_sent_to_another_queue_on_purpose_waits_for_workers_of_that(world: World) -> None:
    fleet = Workers(world)
    fleet.send_all([sent(A, queue="gpu", options=b"w")])

    assert fleet.adopt("gpu") == [Stray("gpu", 1, "t", 0, 0)]
    assert fleet.take(1) == []


def test_but_not_if_the_task_has_had_that_queue(world: World) -> None:
    fleet = Workers(world, "gpu")
    world.run(leasing.close(world.keys, "inc", died=False, alone=False, running=()))
    world.raw("DEL", *(world.keys[name] for name in ("sets", "serving", "set-leases", "runs")))
    fleet.send_all([sent(A, queue="gpu", options=b"w")])
    fleet.queues = QueueSet("set", ("new",))
    fleet.enlist(t="new")
    fleet.begin("inc")

    assert fleet.adopt("gpu") == [Stray("gpu", 0, "", 1, 0)]
    assert fleet.take(1) == [A]


def test_what_was_accepted_before_overrides_were_noted_is_left_where_it_lies(world: World) -> None:
    fleet = Workers(world)
    world.raw("HSET", world.keys["homes"], "=", str(int(world.now + 1000)))
    fleet.send(A, queue="old")

    assert fleet.adopt() == [Stray("old", 1, "t", 0, 0)]


def test_a_task_that_no_live_worker_knows_is_given_up_when_its_time_is_over(world: World) -> None:
    fleet = Workers(world)
    fleet.send(A, task="renamed", queue="old")
    assert fleet.adopt() == [Stray("old", 1, "renamed", 0, 0)]
    world.at(world.now + HOUR / 2)
    fleet.adopt()
    fleet.send(B, task="renamed", queue="old")

    world.at(world.now + HOUR / 2)
    assert fleet.adopt() == [Stray("old", 1, "renamed", 0, 1)]

    assert world.state()["reasons"] == {A: b"unknown-task\nwhy"}
    assert world.state()[f"result:{A.decode()}"] == b"Fwhy"
    assert world.state()["queue:old"] == [B]


def test_a_task_that_a_live_worker_knows_is_never_given_up(world: World) -> None:
    """It was sent to a queue that nobody serves, on purpose."""
    fleet = Workers(world)
    fleet.send_all([sent(A, queue="old", options=b"w")])
    for _ in range(2):
        assert fleet.adopt() == [Stray("old", 1, "t", 0, 0)]
        world.at(world.now + HOUR)

    assert fleet.adopt(patience=0) == [Stray("old", 1, "t", 0, 0)]


def test_time_in_which_nobody_looked_does_not_count(world: World) -> None:
    """Its workers were there, and have gone again."""
    fleet = Workers(world)
    fleet.send(A, task="renamed", queue="old")
    fleet.adopt()

    world.at(world.now + 3 * HOUR)

    assert fleet.adopt() == [Stray("old", 1, "renamed", 0, 0)]


def test_nothing_is_given_up_while_a_worker_lives_that_does_not_tell_what_it_runs(world: World) -> None:
    fleet = Workers(world)
    world.run(holding.register(world.keys, "old", 15_000, b"", QueueSet("other", ("else",))))
    fleet.send(A, task="renamed", queue="old")

    fleet.adopt(patience=0)

    assert fleet.adopt(patience=0) == [Stray("old", 1, "renamed", 0, 0)]


@pytest.mark.parametrize("how", ["served", "paused"])
def test_a_queue_that_is_served_or_paused_is_left_alone(world: World, how: str) -> None:
    fleet = Workers(world)
    fleet.send(A, task="renamed", queue="new" if how == "served" else "old")
    if how == "paused":
        world.run(steering.pause(world.keys, "old", 0, "me", ""))

    assert fleet.adopt("new", "old", patience=0) == ([Stray("old", 0, "", 0, 0)] if how == "served" else [])


def test_suspects_are_shown_to_the_lanes_that_run_them(world: World) -> None:
    fleet = Workers(world)
    fleet.send(A, queue="old")
    world.raw("RENAME", world.keys["queue:old"], world.keys["suspects:old"])

    fleet.adopt()

    assert fleet.fetch(want=1, mode="solo").messages[::2] == [A]
