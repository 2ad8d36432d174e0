"""Paused queues and tasks: what waits meanwhile, and that all of it goes on."""

from __future__ import annotations

import pytest

from taskq.broker.commands import looking, steering
from taskq.broker.commands.steering import Pause
from taskq.message.outcome import Again, Ended, Returned, SlowDown
from tests.contract.fleet import Fleet, more
from tests.contract.world import T0, Near, World, message, raw_id, without

A, B, C, D, E = map(raw_id, range(1, 6))
LIMITED = more(limited=True)


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world, incarnations=("inc", "other"))


def test_a_pause_says_since_when_by_whom_and_why(world: World) -> None:
    fleet = Fleet(world, incarnations=())

    assert fleet.pause("q") is True

    (text,) = world.state()["paused"].values()
    since, until, rest = text.split(b" ", 2)
    assert (Near(T0), b"0", b"me\nwhy") == (since, until, rest)
    assert without(world.state(), "paused") == {"marks": {b"q": b"p"}}
    assert fleet.pause("q") is False
    assert fleet.resume("q") is True
    assert world.state() == {}
    assert fleet.resume("q") is False
    assert world.state() == {}


def test_the_survey_tells_of_a_pause(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.world.run(steering.pause(fleet.world.keys, "q", 60.0, "ann", "two\nlines ä"))

    paused = fleet.world.run(looking.survey(fleet.world.keys))["q"].paused

    assert paused == Pause(pytest.approx(T0 / 1000, abs=1), pytest.approx(T0 / 1000 + 60, abs=1), "ann", "two\nlines ä")


def test_nothing_is_taken_from_a_paused_queue_and_all_of_it_after(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.pause("q")
    fleet.send(B, options=b"d1000")
    fleet.send(C, head=more(priority=3))
    fleet.world.at(T0 + 2000)
    fleet.promote()

    assert fleet.take(9) == []
    fleet.renew()
    assert fleet.take(9) == []
    fleet.resume("q")
    assert fleet.world.state()["bell:set"] == [b"1"]
    assert fleet.take(9) == [C, A, B]


def test_what_runs_goes_on_while_its_queue_is_paused(fleet: Fleet) -> None:
    fleet.send(A, B, C)
    assert fleet.take(2) == [A, B]
    fleet.pause("q")

    fleet.done(A)
    fleet.fetch(Again(B, message(B), 0.0, "retried"))

    assert fleet.take(9) == []
    fleet.resume("q")
    assert fleet.take(9) == [C, B]


def test_suspects_of_a_paused_queue_wait_too(fleet: Fleet) -> None:
    fleet.send(A, B)
    assert fleet.take(1) == [A]
    fleet.pause("q")
    fleet.lose("inc", A)

    assert fleet.take(1, inc="other", mode="solo") == []
    fleet.resume("q")
    assert fleet.world.state()["solo-bell:set"] == [b"1"]
    assert fleet.take(1, inc="other", mode="solo") == [A]


def test_a_timed_pause_is_over_by_itself(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.pause("q", 30.0)
    assert fleet.take(1) == []
    assert fleet.world.state()["alarm"] == [b"1"]
    assert fleet.promote() == pytest.approx(30, abs=1)
    fleet.world.at(T0 + 29_000)
    assert fleet.take(1) == []

    fleet.world.at(T0 + 30_500)

    assert fleet.take(1) == [A]
    assert not {"paused", "openings", "marks"} & set(fleet.world.names())


def test_the_last_pause_says_when_it_is_over(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.pause("q", 30.0)
    fleet.pause("q")

    fleet.world.at(T0 + 60_000)
    assert fleet.promote() is None
    assert fleet.take(1) == []
    fleet.pause("q", 30.0)
    fleet.world.at(T0 + 91_000)
    assert fleet.take(1) == [A]


def test_a_resume_ends_a_timed_pause_before_its_time(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.pause("q", 30.0)
    fleet.resume("q")
    fleet.pause("q")
    fleet.world.at(T0 + 60_000)
    fleet.promote()

    assert fleet.take(1) == [], "the pause after it has no end"


def test_lines_of_a_paused_queue_that_come_up_wait_for_its_resumption(fleet: Fleet) -> None:
    fleet.publish("t", "s 10000.000000 1 0")
    fleet.send(A, B, C, head=LIMITED)
    assert fleet.take(3) == [A]
    fleet.pause("q")
    fleet.world.at(T0 + 10_500)

    assert fleet.take(3) == []
    assert fleet.take(3, inc="other") == []
    assert list(fleet.look().table("lines:q")) == [b"t#1"]
    fleet.resume("q")
    assert "lines:q" not in fleet.world.names()
    assert fleet.take(3) == [B]
    assert fleet.promote() == pytest.approx(10, abs=1.5)


def test_a_task_in_a_queue_that_it_shares_is_paused_without_its_neighbours(fleet: Fleet) -> None:
    fleet.publish("t")
    fleet.publish("u")
    fleet.send(A, B)
    fleet.send(C, task="u")
    fleet.pause("t")
    fleet.send(D)
    fleet.send(E, task="u")

    assert fleet.take(9) == [C, E]
    assert fleet.look().lines() == {("q", "t#p"): [A, B, D]}
    assert fleet.resume("t")
    assert fleet.take(9) == [A, B, D]
    assert not {"gates", "paused"} & set(fleet.world.names())


def test_a_suspect_of_a_paused_task_waits(fleet: Fleet) -> None:
    fleet.publish("t")
    fleet.send(A)
    assert fleet.take(1) == [A]
    fleet.pause("t")
    fleet.lose("inc", A)

    assert fleet.take(1, inc="other", mode="solo") == []
    assert fleet.look().table("gates") == {b"t#p": b" !q "}
    fleet.resume("t")
    assert fleet.take(1, inc="other", mode="solo") == [A]


def test_the_end_of_a_tasks_pause_counts_for_what_goes_back_in_the_same_call(fleet: Fleet) -> None:
    fleet.publish("t")
    fleet.send(A, B)
    assert fleet.take(1) == [A]
    fleet.pause("t", 30.0)
    assert fleet.take(1, inc="other") == []
    fleet.world.at(T0 + 30_500)

    batch = fleet.fetch(Returned(A), want=5, caps=" q=9 ")

    assert batch.messages[::2] == [A, B]


def test_a_task_that_has_its_queue_for_itself_stands_for_the_queue(fleet: Fleet) -> None:
    fleet.publish("q")
    fleet.send(A, task="q")
    fleet.pause("q")

    assert list(fleet.world.state()["paused"]) == [b"q"]
    assert fleet.take(1) == []


@pytest.mark.parametrize(("before", "after"), [("q", "elsewhere"), ("elsewhere", "q")])
def test_a_pause_can_be_ended_though_its_task_was_published_otherwise_meanwhile(
    world: World, before: str, after: str
) -> None:
    """A new version of the app gives the task a queue of its own, or takes it away."""
    fleet = Fleet(world, "q", "elsewhere")
    fleet.publish("q", queue=before)
    fleet.pause("q")
    fleet.publish("q", queue=after)
    fleet.send(A, task="q", queue="q")
    fleet.send(B, task="q", queue="elsewhere")

    assert fleet.resume("q") is True

    assert "paused" not in world.names()
    assert sorted(fleet.take(9)) == [A, B]


# -- controls of a task hold wherever its messages wait -------------------------------------------------------------


@pytest.mark.parametrize("own", ["t", "shared"])
@pytest.mark.parametrize("before", [True, False])
def test_a_paused_task_waits_in_every_queue(world: World, own: str, before: bool) -> None:
    """Sent there by `queue=`, before the pause or after it; what else is in that queue passes it by."""
    fleet = Fleet(world, own, "urgent")
    fleet.publish("t", queue=own)
    if before:
        fleet.send(A, B, queue="urgent")
    fleet.pause("t")
    if not before:
        fleet.send(A, B, queue="urgent")
    fleet.send(C, task="other", queue="urgent")
    fleet.send(D, queue=own)

    assert fleet.take(9) == [C]
    assert fleet.resume("t")
    assert sorted(fleet.take(9)) == [A, B, D]
    assert b"*" not in world.state().get("marks", {}), "then it costs nothing any more"
    fleet.done(A, B, C, D)


def test_a_timed_pause_of_a_task_is_over_in_every_queue(world: World) -> None:
    fleet = Fleet(world, "t", "urgent")
    fleet.publish("t", queue="t")
    fleet.pause("t", 30.0)
    fleet.send(A, queue="urgent")
    fleet.send(B, queue="t")
    assert fleet.take(9) == []

    world.at(T0 + 30_500)
    fleet.promote()

    assert sorted(fleet.take(9)) == [A, B]


@pytest.mark.parametrize("own", ["t", "shared"])
def test_a_suspect_of_a_paused_task_waits_in_every_queue(world: World, own: str) -> None:
    fleet = Fleet(world, own, "urgent", incarnations=("inc", "other"))
    fleet.publish("t", queue=own)
    fleet.send(A, queue="urgent")
    assert fleet.take() == [A]
    fleet.pause("t")
    fleet.lose("inc", A)

    assert fleet.take(1, inc="other", mode="solo") == []
    fleet.resume("t")
    assert fleet.take(1, inc="other", mode="solo") == [A]


def test_a_worker_that_publishes_a_task_for_the_first_time_finds_its_pause_in_force(world: World) -> None:
    fleet = Fleet(world, "t", "urgent")
    fleet.pause("t")
    fleet.publish("t", queue="t")
    fleet.send(A, queue="urgent")

    assert fleet.take() == []
    assert fleet.look().lines() == {("urgent", "t#p"): [A]}


def test_a_limit_set_by_hand_holds_in_every_queue(world: World) -> None:
    fleet = Fleet(world, "q", "urgent")
    fleet.publish("t")
    fleet.send(A, B, queue="urgent")
    assert fleet.limit("t", "s 0 1 1")
    fleet.send(C)
    fleet.send(D, task="other", queue="urgent")

    taken = fleet.take(9)

    assert D in taken
    assert len(taken) == 2
    fleet.done(*taken)
    assert len(fleet.take(9)) == 1
    assert fleet.limit("t", "-")
    assert len(fleet.take(9)) == 1
    assert b"*" not in world.state()["marks"]


def test_what_rate_limited_asked_for_holds_in_every_queue(world: World) -> None:
    fleet = Fleet(world, "q", "urgent", incarnations=("inc", "other"))
    fleet.send(A)
    fleet.send(B, queue="urgent")
    fleet.send(C, task="other", queue="urgent")
    assert fleet.take(1, most=1) == [A]

    fleet.fetch(SlowDown(A, 30.0))

    assert fleet.take(9, inc="other") == [C]
    fleet.send(D, queue="urgent")
    assert fleet.take(9) == []
    world.at(T0 + 30_500)
    assert sorted(fleet.take(9)) == [A, B, D]
    assert b"*" not in world.state()["marks"]


def test_a_breaker_holds_in_every_queue(world: World) -> None:
    """Its messages say that their task has one."""
    fleet = Fleet(world, "q", "urgent")
    fleet.publish("t", "b 0.5 2 60000")
    fleet.send(A, B, head=LIMITED)
    fleet.send(C, head=LIMITED, queue="urgent")
    assert fleet.take(2) == [A, B]

    fleet.fetch(Ended(A, "failed", b""), Ended(B, "failed", b""))

    assert fleet.take(9) == []
