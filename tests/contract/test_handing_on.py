"""What a lane does not run waits in the line of its task, for a lane, or a worker, that does."""

from __future__ import annotations

import pytest

from taskq.broker.commands import announcing, auditing, holding, leasing, looking, steering
from taskq.broker.commands.outcomes import words
from taskq.broker.queue_set import QueueSet
from taskq.message.outcome import Passed
from taskq.views.why import sentence
from tests.contract.fleet import Fleet, more
from tests.contract.world import LEASE, MINUTE, World, raw_id

A, B, C, D = map(raw_id, range(1, 5))
HOUR = 3600.0


class Lanes(Fleet):
    """A worker of two lanes, of which ``main`` serves the queue and ``loop`` none; and one that knows others."""

    def __init__(self, world: World) -> None:
        super().__init__(world, set_id="main", incarnations=("main",))
        self.lanes = {
            "main": QueueSet("main", ("q",), tasks=("sync",)),
            "loop": QueueSet("loop", (), tasks=("t", "ta")),
            "other": QueueSet("other", ("q",), tasks=("its",)),
        }
        self.enlist("main", "loop")
        self.enlist("other")
        for name in ("loop", "other"):
            self.join(name)

    def enlist(self, *lanes: str) -> None:
        self.world.run(announcing.enlist(self.world.keys, [self.lanes[name] for name in lanes]))

    def join(self, name: str) -> None:
        self.calls[name] = 0
        self.world.run(holding.register(self.world.keys, name, LEASE, b"", self.lanes[name]))

    def as_lane(self, name: str, *outcomes: object, want: int = 64, mode: str = "") -> list[bytes]:
        """Settle and take as one of the lanes."""
        self.calls[name] += 1
        fetch = holding.fetch(
            self.world.keys, name, self.calls[name], words(outcomes, MINUTE),  # type: ignore[arg-type]
            want=want, set_id=name, mode=mode, caps=" q=64 ",
        )  # fmt: skip
        batch = self.world.run(fetch)
        self.sound()
        return batch.messages[::2]


def passed(*ids: bytes, delay: float = 60.0, value: bytes = b"", again: bool = False) -> list[Passed]:
    return [Passed(id_, value, delay, again) for id_ in ids]


def test_what_a_lane_does_not_run_goes_to_the_lane_of_the_same_worker_that_does(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B)
    assert fleet.as_lane("main") == [A, B]

    assert fleet.as_lane("main", *passed(A, B)) == [], "not given again"
    assert fleet.as_lane("other") == []
    assert fleet.as_lane("loop") == [A, B]
    assert fleet.as_lane("loop", (A, b""), (B, b"")) == []
    assert fleet.look().counter("q", "done") == 2


def test_a_lane_is_woken_for_what_another_hands_on(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    fleet.as_lane("main")
    world.raw("DEL", world.keys["bell:loop"])

    fleet.as_lane("main", *passed(A), want=0)

    assert world.state()["bell:loop"] == [b"1"]


def test_those_that_come_later_stand_behind(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B)
    fleet.as_lane("main")
    fleet.as_lane("main", *passed(A, B), want=0)
    fleet.send(C)
    assert fleet.as_lane("main") == [], "it need not be taken to be handed on"

    assert fleet.as_lane("loop") == [A, B, C]


def test_what_was_not_started_goes_back_to_the_head_of_the_line(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B, C)
    fleet.as_lane("main")
    fleet.as_lane("main", *passed(A, B, C), want=0)
    assert fleet.as_lane("loop", want=2) == [A, B]

    world.run(leasing.close(world.keys, "loop", died=False, alone=False, running=()))
    fleet.join("loop")

    assert fleet.as_lane("loop") == [A, B, C]


def test_a_task_that_nobody_knows_is_given_to_none_until_a_worker_comes_that_does(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, task="new")
    assert fleet.as_lane("other") == [A]
    assert fleet.as_lane("other", *passed(A, delay=HOUR)) == []
    assert (fleet.as_lane("main"), fleet.as_lane("loop")) == ([], [])

    fleet.lanes["newer"] = QueueSet("newer", ("q",), tasks=("new",))
    fleet.enlist("newer")
    fleet.join("newer")

    assert fleet.as_lane("newer") == [A]


def test_it_is_shown_to_anybody_when_its_time_is_over(world: World) -> None:
    """By then its taker gives it up; what has waited for less goes back to the head, and the rest is left in peace."""
    fleet = Lanes(world)
    for id_, at in ((A, 0.0), (B, 1000.0), (C, 1500.0)):
        world.at(world.now + at)
        fleet.send(id_, task="new")
        fleet.as_lane("other")
        fleet.as_lane("other", *passed(id_, delay=10.0, value=value_of(world, id_)), want=0)

    world.at(world.now + 7500)
    assert fleet.as_lane("other", want=1) == [A]
    assert fleet.as_lane("other", (A, b""), want=2) == [B, C]
    assert fleet.as_lane("other", *passed(B, delay=1.0, again=True), *passed(C, delay=2.5, again=True)) == []

    world.at(world.now + 999)
    assert fleet.as_lane("other") == []
    world.at(world.now + 1)
    assert fleet.as_lane("other", want=1) == [B]


def value_of(world: World, id_: bytes) -> bytes:
    value: bytes = world.raw("HGET", world.keys["messages"], id_)
    return value


def test_a_worker_that_does_not_tell_what_it_runs_may_run_it(world: World) -> None:
    """One of a version before lanes told."""
    fleet = Lanes(world)
    fleet.lanes["old"] = QueueSet("old", ("q",))
    fleet.join("old")
    fleet.send(A, task="new")
    fleet.as_lane("other")
    fleet.as_lane("other", *passed(A, delay=HOUR), want=0)

    assert fleet.as_lane("old") == [A]


def test_a_worker_that_does_not_tell_is_not_given_again_what_it_has_handed_on(world: World) -> None:
    fleet = Lanes(world)
    fleet.lanes["old"] = QueueSet("old", ("q",))
    fleet.join("old")
    fleet.send(A, task="new")
    fleet.as_lane("other", want=0)
    assert fleet.as_lane("old") == [A]

    assert fleet.as_lane("old", *passed(A, delay=HOUR)) == []


def suspects(fleet: Lanes, *ids: bytes) -> None:
    """Let the process die under messages that a lane has taken."""
    assert fleet.as_lane("main") == list(ids)
    fleet.world.run(leasing.close(fleet.world.keys, "main", died=True, alone=False, running=ids))
    fleet.join("main")


def run_alone(fleet: Lanes, lane: str) -> list[bytes]:
    """Take a suspect, as a child of its own does, and settle it."""
    taken = fleet.as_lane(lane, mode="solo")
    fleet.as_lane(lane, *[(id_, b"") for id_ in taken], want=0)
    return taken


def test_suspects_are_given_to_the_lane_that_runs_them_alone(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B)
    suspects(fleet, A, B)
    for id_ in (A, B):
        assert run_alone(fleet, "main") == [], "not its own, however often it looks"
        assert world.state()["solo-bell:loop"] == [b"1"]
        assert run_alone(fleet, "loop") == [id_]


def test_a_lane_finds_its_suspects_behind_those_of_others(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B)
    fleet.send(C, D, task="sync")
    suspects(fleet, A, B, C, D)

    assert [run_alone(fleet, "main") for _ in range(3)] == [[C], [D], []]
    assert [run_alone(fleet, "loop") for _ in range(2)] == [[A], []], "the other lane is asked again, and tells"
    assert [run_alone(fleet, lane) for lane in ("main", "loop")] == [[], [B]]


def test_suspects_at_a_closed_gate_do_not_keep_others_waiting(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    fleet.send(B, task="ta")
    suspects(fleet, A, B)
    world.run(steering.pause(world.keys, "t", 0.0, "", ""))

    assert [run_alone(fleet, lane) for lane in ("main", "loop", "main", "loop")] == [[], [B], [], []]
    world.run(steering.resume(world.keys, "t"))
    assert [run_alone(fleet, lane) for lane in ("main", "loop")] == [[], [A]]


def test_a_lane_that_cannot_be_told_of_suspects_keeps_no_other_from_its_own(world: World) -> None:
    """Somebody has written to the key by which it is told."""
    fleet = Lanes(world)
    fleet.send(A)
    fleet.send(B, task="sync")
    suspects(fleet, A, B)
    world.raw("SET", world.keys["solo:loop"], "not a set")
    fleet.audited = False

    assert run_alone(fleet, "main") == [B]
    assert world.balances() == {"q": 0}
    world.raw("DEL", world.keys["solo:loop"])


def test_a_suspect_that_nobody_runs_is_given_to_whoever_serves_its_queue(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, task="gone")
    suspects(fleet, A)

    assert fleet.as_lane("main", mode="solo") == [A]


def test_a_suspect_that_was_handed_on_stays_one(world: World) -> None:
    """By a worker that did not tell what it runs."""
    fleet = Lanes(world)
    world.raw("HDEL", world.keys["runs"], "main")
    fleet.send(A)
    suspects(fleet, A)
    assert fleet.as_lane("main", mode="solo") == [A]
    fleet.enlist("main", "loop")

    assert fleet.as_lane("main", *passed(A), want=0) == []
    assert world.state()["solo-bell:loop"] == [b"1"]
    assert fleet.as_lane("loop", mode="solo") == [A]


def test_a_suspect_that_waits_for_another_lane_is_no_riddle_for_an_audit(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    suspects(fleet, A)
    fleet.as_lane("main", mode="solo")
    restore = auditing.restore(world.keys, [("q", False, "main other")])

    assert not world.run(restore)
    world.raw("DEL", world.keys["solo:loop"])
    assert world.run(restore)
    fleet.as_lane("main", mode="solo")
    assert fleet.as_lane("loop", mode="solo") == [A]


def test_the_limits_of_its_task_hold_in_its_line(world: World) -> None:
    fleet = Lanes(world)
    fleet.publish("t", "s 0 1 1", queue="own")
    fleet.send(A, B, head=more(limited=True))
    assert fleet.as_lane("main") == [A]
    fleet.as_lane("main", *passed(A), want=0)
    assert fleet.as_lane("main") == []

    assert [fleet.as_lane("loop") for _ in range(3)] == [[A], [], []]
    fleet.as_lane("loop", (A, b""), want=0)
    taken = fleet.as_lane("main")
    fleet.as_lane("main", *passed(*taken))

    assert fleet.as_lane("loop") == [B]


@pytest.mark.parametrize(
    ("task", "says"), [("t", "It waits for children that run task t"), ("new", "No live worker has")]
)
def test_it_is_said_what_it_waits_for(world: World, task: str, says: str) -> None:
    fleet = Lanes(world)
    fleet.send(A, task=task)
    fleet.as_lane("main")
    fleet.as_lane("main", *passed(A), want=0)

    assert sentence(A, world.run(looking.why(world.keys, A))).startswith(says)


def test_a_paused_queue_gives_nothing_from_its_lines(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    fleet.as_lane("main")
    fleet.as_lane("main", *passed(A), want=0)
    world.run(steering.pause(world.keys, "q", 0, "me", ""))
    assert fleet.as_lane("loop") == []

    world.run(steering.resume(world.keys, "q"))
    assert fleet.as_lane("loop") == [A]


@pytest.mark.parametrize("where", ["held", "line"])
def test_it_can_be_revoked(world: World, where: str) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    fleet.as_lane("main")
    if where == "line":
        fleet.as_lane("main", *passed(A), want=0)
    world.run(steering.revoke(world.keys, A, ""))
    if where == "held":
        fleet.as_lane("main", *passed(A), want=0)

    assert fleet.as_lane("loop") == []
    assert fleet.look().counter("q", "discarded") == 1


def test_it_is_part_of_the_backlog_that_children_are_started_for(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A, B)
    fleet.send(C, task="new")
    taken = fleet.as_lane("main")
    fleet.as_lane("main", *passed(*taken), want=0)

    assert world.run(looking.backlog(world.keys, ["q"])).pending == 2, "for the third nobody could do anything"


def test_lanes_are_told_again_of_lines_of_which_nobody_told_them(world: World) -> None:
    fleet = Lanes(world)
    fleet.send(A)
    fleet.as_lane("main")
    fleet.as_lane("main", *passed(A), want=0)
    world.raw("DEL", world.keys["ready:loop"], world.keys["runs"])

    fleet.enlist("main", "loop")

    assert fleet.as_lane("loop") == [A]
