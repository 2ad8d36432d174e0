"""survey and the ledger; settings, apps, small reads."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.commands import looking
from taskq.broker.commands.announcing import announce_app, known_apps, publish_tasks, read_settings
from taskq.broker.commands.awaiting import wait_bell
from taskq.broker.commands.holding import fetch, register, sync
from taskq.broker.commands.keeping import promote, reap, retire
from taskq.broker.commands.leasing import close, held_ids
from taskq.broker.commands.looking import (
    Backlog,
    QueueSurvey,
    count_until,
    last_pulse,
    lease_ends,
    server_info,
    server_time,
)
from taskq.broker.commands.outcomes import words
from taskq.broker.commands.producing import enqueue
from taskq.broker.commands.steering import purge, replay
from taskq.broker.queue_set import QueueSet
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned
from tests.contract.world import LEASE, MINUTE, SET, T0, Scores, World, message, messages, raw_id, serving

A, B, C, D = map(raw_id, range(1, 5))


def test_a_survey_shows_every_queue_with_its_counters_and_places(world: World) -> None:
    world.seed(
        serving("inc", "other"),
        {
            "counters": {b"q|accepted": b"9", b"q|done": b"2", b"q|scheduled": b"1", b"a.b:c|accepted": b"1"},
            "queue:q": [A, B],
            "suspects:q": [C],
            "dead:q": Scores({D: 1.0}),
            "processing:inc": {b"x": b"5 q", b"y": b"!6 a.b:c"},
            "processing:other": {b"z": b"7 q"},
        },
    )
    before = world.dump()

    found = world.run(looking.survey(world.keys))

    assert found == {
        "q": QueueSurvey({"accepted": 9, "done": 2, "scheduled": 1}, pending=2, suspects=1, dead=1, processing=2),
        "a.b:c": QueueSurvey({"accepted": 1}, processing=1),
    }
    assert (found["q"].scheduled, found["q"].balance) == (1, 0)
    assert world.dump() == before


def test_a_backlog_is_what_waits_in_some_queues_and_for_how_long(world: World) -> None:
    world.seed(
        {
            "messages": messages(A, accepted=T0 - 5000.0) | messages(B, C, accepted=T0 - 9000.0),
            "queue:q": [A, B],
            "queue:p": [C],
            "queue:dangling": [D],
        }
    )
    before = world.dump()

    assert world.run(looking.backlog(world.keys, ["q"])) == Backlog(2, pytest.approx(5, abs=1), 0)
    assert world.run(looking.backlog(world.keys, ["q", "p", "empty", "dangling"])) == Backlog(
        4, pytest.approx(9, abs=1), 0
    )
    assert world.run(looking.backlog(world.keys, ["empty"])) == Backlog(0, 0, 0)
    assert world.dump() == before


@pytest.mark.parametrize(
    ("state", "stuck"),
    [
        ({}, True),
        ({"queue:q": [A]}, True),  # its limits let nothing pass
        ({"ready:set": Scores({b"q": 1.0})}, False),
        ({"solo:set": Scores({b"q": 1.0})}, False),
        ({"processing:inc": {B: b"1 q"}}, False),
        ({"gates": {b"t#0": b"q"}, "openings": Scores({b"t#0": T0 + 4000})}, False),
        ({"gates": {b"t#0": b"q"}, "openings": Scores({b"t#0": T0 + 6000})}, True),
        ({"gates": {b"t#0": b"other"}, "openings": Scores({b"t#0": T0 + 4000})}, True),
    ],
    ids=["nothing", "limited", "ready", "alone", "running", "opens soon", "opens late", "another's gate"],
)
def test_nothing_can_run_if_nothing_runs_is_ready_or_opens_soon(
    world: World, state: dict[str, Any], stuck: bool
) -> None:
    world.seed(serving("inc"), {"messages": messages(A, B)}, state)

    assert world.run(looking.backlog(world.keys, ["q"], [SET.id], ["inc"])).stuck is stuck
    assert not world.run(looking.backlog(world.keys, ["q"], [SET.id], ["inc", "not registered yet"])).stuck


def test_an_unused_app_has_nothing_to_survey(world: World) -> None:
    assert world.run(looking.survey(world.keys)) == {}


def test_the_balance_tells_of_what_is_lost_and_of_what_is_doubled() -> None:
    assert QueueSurvey({"accepted": 3, "done": 1}, pending=1).balance == 1
    assert QueueSurvey({"accepted": 1, "failed": 1}, pending=1).balance == -1
    assert QueueSurvey({"accepted": 4, "done": 1, "failed": 1, "discarded": 1, "purged": 1}).balance == 0


class Story:
    """Calls one after another, with the ledger balanced after each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = 0
        self.calls = 0

    def check(self) -> None:
        balances = self.world.balances()
        assert balances == dict.fromkeys(balances, 0)
        state = self.world.state()
        places = [id_ for name, ids in state.items() if name.startswith(("queue:", "suspects:")) for id_ in ids]
        for name in [name for name in state if name.startswith(("processing:", "dead:"))] + ["schedule"]:
            places += state.get(name, [])
        assert sorted(places) == sorted(state.get("messages", []))  # each in exactly one place

    def enqueue(self, *ids: bytes, options: bytes = b"", queue: str = "q") -> None:
        self.number += 1
        sent = [(id_, encode_head("t", queue) + encode_envelope(id_, {}, b""), options) for id_ in ids]
        self.world.run(enqueue(self.world.keys, b"p", self.number, sent))
        self.check()

    def fetch(self, *outcomes: Outcome, want: int = 0, inc: str = "inc", mode: str = "") -> list[bytes]:
        self.calls += 1
        groups = words(outcomes, MINUTE)
        batch = self.world.run(fetch(self.world.keys, inc, self.calls, groups, want=want, set_id="set", mode=mode))
        self.check()
        return batch.messages[::2]


def test_at_any_instant_accepted_is_what_ended_and_what_is_in_a_place(world: World) -> None:
    """The conservation law, along a story that goes through every move there is."""
    story, keys = Story(world), world.keys
    a, b, c, d, e, f, g, h = map(raw_id, range(8))
    world.run(register(keys, "inc", LEASE, b"", SET))

    story.enqueue(a, b, c, d, e)
    story.enqueue(f, g, options=b"d60000")
    story.enqueue(a, options=b"c")  # a duplicate is not accepted
    story.enqueue(h, queue="other")
    assert story.fetch(want=128) == [a, b, c, d, e]
    story.fetch((a, b"Sx"), Ended(b, "failed", b""), Ended(c, "discarded", b""))
    story.fetch(Dead(d, "failed", b"", b""), Again(e, message(e), 30.0, "retried"))
    world.at(T0 + 2 * MINUTE)
    assert story.fetch(want=128) == [e, f, g]
    story.fetch(Returned(e), Again(f, message(f), 0.0, "deferred"))
    world.run(sync(keys, "inc", 90, 89, []))  # g goes back
    story.check()
    story.calls = 100
    assert sorted(story.fetch(want=128)) == [e, f, g]
    world.run(close(keys, "inc", died=True, alone=True, running=[e]))
    story.check()
    world.run(register(keys, "two", LEASE, b"", SET))
    assert story.fetch(want=1, inc="two", mode="solo") == [e]
    world.run(reap(keys, 10))
    world.at(T0 + 2 * MINUTE + LEASE / 3)
    world.run(reap(keys, 10))
    world.at(T0 + 2 * MINUTE + 2 * LEASE / 3)
    world.run(reap(keys, 10))
    world.at(T0 + 2 * MINUTE + LEASE + 1500)
    assert list(world.run(reap(keys, 10)).moves) == ["two"]  # the second death of e: scheduled
    story.check()
    world.at(T0 + 3 * MINUTE)
    assert world.run(promote(keys, "me", 100, 1000)).moved == 1
    story.check()
    assert world.run(replay(keys, "q", d, b""))
    story.check()
    world.run(register(keys, "three", LEASE, b"", SET))
    assert sorted(story.fetch(want=128, inc="three")) == [d, f, g]
    story.fetch(*(Dead(id_, "failed", b"", b"") for id_ in (d, f, g)), inc="three")
    assert world.run(purge(keys, "q", [d])) == 1
    story.check()
    world.seed({"settings": {b"dead_ttl": b"1000"}})
    world.at(T0 + 60 * MINUTE)
    assert world.run(retire(keys, 100, ["q"])) == 2
    story.check()

    left = world.run(looking.survey(keys))
    assert left["q"].counters["accepted"] == 7
    assert (left["q"].suspects, left["other"].pending) == (1, 1)


def test_settings_are_published_and_removed(world: World) -> None:
    world.run(publish_tasks(world.keys, (), {"lease": 15000, "discard_after": None, "discard_after:t": 5}))
    world.run(publish_tasks(world.keys, (), {"lease": 20000, "discard_after:t": None}))

    assert world.state()["settings"] == {b"lease": b"20000"}
    assert world.run(read_settings(world.keys)) == {b"lease": b"20000"}


def test_an_app_is_listed_from_its_announcement_on(world: World) -> None:
    assert world.keys.app not in world.run(known_apps())

    world.run(announce_app(world.keys))
    world.run(announce_app(world.keys))

    assert world.run(known_apps()).count(world.keys.app) == 1
    world.raw("SREM", b"tq:apps", world.keys.app)


def test_a_bell_is_waited_for_and_its_token_taken(world: World) -> None:
    before = world.seed({"bell:set": [b"1"], "queue:q": [A]})

    rang = world.run(wait_bell(world.keys, ["alarm", "bell:set"], 1))
    again = world.run(wait_bell(world.keys, ["alarm", "bell:set"], 0.001))

    assert rang == [world.keys["bell:set"], b"1"]
    assert again is None
    assert world.state() == {"queue:q": before["queue:q"]}


def test_small_reads_say_what_is_there(world: World) -> None:
    world.seed(
        serving("inc", queues=QueueSet("set", ("q",))),
        {"processing:inc": {A: b"1 q", B: b"1 q"}, "schedule": Scores({C: 5000.0, D: 7000.0}), "pulse": b"12500"},
        {"messages": messages(A, B, C, D)},
    )

    assert sorted(world.run(held_ids(world.keys, "inc"))) == [A, B]
    assert world.run(held_ids(world.keys, "none")) == []
    assert world.run(lease_ends(world.keys, ["none", "inc"])) == [None, (T0 + LEASE) / 1000]
    assert world.run(count_until(world.keys, "schedule", 5.0)) == 1
    assert world.run(count_until(world.keys, "schedule", 7.0)) == 2
    assert world.run(last_pulse(world.keys)) == 12.5
    assert world.run(server_time()) > 1.7e9
    assert b"redis_version" in world.run(server_info())
