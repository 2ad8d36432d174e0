"""Limits: what passes a gate, what waits at it and how, and what opens it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from taskq.broker.commands import auditing, holding, keeping, leasing, steering
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned, SlowDown
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import MINUTE, T0, Near, Scores, State, Taken, World, message, raw_id, serving, without

A, B, C, D, E = map(raw_id, range(1, 6))
#: Limits as `Flow.published` writes them: one each 10 s, three of them at once; two at once; the same for each key.
RATE, SLOTS, KEYED, KEYED_RATE = "s 10000.000000 3 0", "s 0.000000 1 2", "k 0.000000 1 1", "k 10000.000000 1 0"
OWN_RATE, OWN_SLOTS = "o 10000.000000 3 0", "o 0.000000 1 2"
X, Y = more(_1="x"), more(_1="y")


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world, incarnations=("inc", "other"))


def limited(*limits: str, task: str = "t", queue: str = "q") -> State:
    """A task with limits, declared."""
    return {
        "limits": {task.encode(): "\n".join(limits).encode()},
        "tasks": {task.encode(): queue.encode()},
        "marks": {queue.encode(): b"l"},
    }


def waiting(*ids: bytes, head: bytes = more(limited=True), queue: str = "q", task: str = "t") -> State:
    return {
        "messages": {id_: message(id_, queue=queue, task=task, more=head) for id_ in ids},
        f"queue:{queue}": list(ids),
        "ready:set": Scores({queue.encode(): 1.0}),
        "counters": {b"%s|accepted" % queue.encode(): b"%d" % len(ids)},
    }


def fetched(world: World, *outcomes: Outcome, want: int = 0) -> list[bytes]:
    """The first call of a seeded incarnation."""
    fleet = Fleet(world, incarnations=())
    fleet.calls["inc"] = 0
    return fleet.fetch(*outcomes, want=want, caps=" q=100 ").messages[::2]


# -- declared ----------------------------------------------------------------------------------------------------


def test_a_published_task_has_its_limits_published_and_its_queue_marked(world: World) -> None:
    fleet = Fleet(world, incarnations=())

    assert fleet.publish("t", RATE, KEYED) == 0

    assert without(world.state(), "published") == limited(RATE, KEYED)
    assert fleet.publish("t", RATE, KEYED) == 0
    assert without(world.state(), "published") == limited(RATE, KEYED)


def test_a_published_task_without_limits_marks_nothing_and_forgets_old_ones(world: World) -> None:
    fleet = Fleet(world, incarnations=())
    fleet.publish("t", RATE)
    fleet.publish("u", queue="plain")

    fleet.publish("t")

    assert without(world.state(), "published") == {"tasks": {b"t": b"q", b"u": b"plain"}, "marks": {b"q": b"l"}}


def test_a_message_with_limits_marks_the_queue_it_goes_to(world: World) -> None:
    Fleet(world, "elsewhere", incarnations=()).send(A, head=more(limited=True), queue="elsewhere")

    assert world.state()["marks"] == {b"elsewhere": b"l"}


# -- slots -------------------------------------------------------------------------------------------------------


def test_what_passes_takes_a_slot_and_what_finds_none_stands_in_a_line(world: World) -> None:
    before = world.seed(serving("inc"), limited(SLOTS), waiting(A, B, C, D))

    assert fetched(world, want=4) == [A, B]

    assert world.state() == without(before, "queue:q", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {A: Taken(T0, "q", "t#1"), B: Taken(T0, "q", "t#1")},
        "slots": {b"t#1": b"2"},
        "gated:q|t#1": [C, D],
        "gates": {b"t#1": b" q "},
        "counters": {b"q|accepted": b"4", b"q|gated": b"2"},
    }


def in_line(*ids: bytes, gate: str = "t#1", passed: tuple[bytes, ...] = (A, B), head: bytes = b"") -> State:
    """Some hold the slots of a gate, others stand in its line."""
    return {
        "messages": {id_: message(id_, more=head or more(limited=True)) for id_ in (*passed, *ids)},
        "processing:inc": {id_: b"%d q\n%s" % (T0, gate.encode()) for id_ in passed},
        "slots": {gate.encode(): b"%d" % len(passed)},
        f"gated:q|{gate}": list(ids),
        "gates": {gate.encode(): b" q "},
        "counters": {b"q|accepted": b"%d" % len(ids + passed), b"q|gated": b"%d" % len(ids)},
    }


@pytest.mark.parametrize(
    ("outcome", "counters"),
    [
        ((A, b""), {b"q|done": b"1"}),
        (Ended(A, "failed", b""), {b"q|failed": b"1"}),
        (Ended(A, "discarded", b""), {b"q|discarded": b"1"}),
    ],
)
def test_an_end_frees_the_slot_and_announces_the_line(
    world: World, outcome: Outcome, counters: dict[bytes, bytes]
) -> None:
    before = world.seed(serving("inc"), limited(SLOTS), in_line(C, D))

    fetched(world, outcome)

    assert world.state() == before | {
        "calls": {b"inc": b"1"},
        "messages": {id_: value for id_, value in before["messages"].items() if id_ != A},
        "processing:inc": {B: before["processing:inc"][B]},
        "slots": {b"t#1": b"1"},
        "ready:set": Scores({b"q|t#1": Near(T0)}),
        "bell:set": [b"1"],
        "counters": before["counters"] | counters,
    }


def test_a_freed_slot_is_taken_by_the_first_of_the_line_in_the_same_call(world: World) -> None:
    before = world.seed(serving("inc"), limited(SLOTS), in_line(C, D))

    assert fetched(world, (A, b""), want=5) == [C]

    state = world.state()
    assert state["slots"] == {b"t#1": b"2"}
    assert state["gated:q|t#1"] == [D]
    assert state["gates"] == before["gates"]
    assert state["processing:inc"] == {B: before["processing:inc"][B], C: Taken(T0, "q", "t#1")}
    assert state["counters"] == {b"q|accepted": b"4", b"q|done": b"1", b"q|gated": b"1"}
    assert "ready:set" not in state


def test_the_last_of_a_line_leaves_nothing_of_it(world: World) -> None:
    world.seed(serving("inc"), limited(SLOTS), in_line(C))

    assert fetched(world, (A, b""), (B, b""), want=5) == [C]

    state = world.state()
    assert not {"gated:q|t#1", "gates", "ready:set"} & set(state)
    assert state["counters"] == {b"q|accepted": b"3", b"q|done": b"2", b"q|gated": b"0"}


@pytest.mark.parametrize(
    "outcome",
    [(A, b"S"), Ended(A, "failed", b""), Dead(A, "failed", b"", b""), Returned(A), SlowDown(A, 0.0),
     Again(A, message(A, more=more(limited=True)), 0.0, "retried"),
     Again(A, message(A, more=more(limited=True)), 60.0, "deferred")],
)  # fmt: skip
def test_however_a_delivery_ends_its_slot_is_free(fleet: Fleet, outcome: Outcome) -> None:
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, head=more(limited=True))
    assert fleet.take(3) == [A, B]

    fleet.fetch(outcome)

    assert fleet.look().table("slots") == {b"t#1": b"1"}
    assert len(fleet.take(3)) == 1


def test_refused_outcomes_and_calls_free_nothing(world: World) -> None:
    fleet = Fleet(world, incarnations=("inc", "other"))
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, head=more(limited=True))
    fleet.take(2)
    before = world.state()

    assert fleet.fetch((A, b""), Returned(B), Ended(A, "failed", b""), inc="other").fenced == 3
    fleet.calls["inc"] -= 1
    with pytest.raises(holding.Stale):
        fleet.fetch((A, b""))

    assert without(world.state(), "calls") == without(before, "calls")


@pytest.mark.parametrize("died", [True, False])
def test_a_lost_worker_gives_its_slots_back_with_its_messages(fleet: Fleet, died: bool) -> None:
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, D, head=more(limited=True))
    assert fleet.take(4) == [A, B]

    fleet.lose("inc", died=died)

    assert fleet.look().table("slots") == {}
    assert fleet.take(4, inc="other") == [A, B]
    fleet.done(A, B, inc="other")
    assert fleet.take(4, inc="other") == [C, D]


def test_reaping_gives_slots_back(fleet: Fleet) -> None:
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, head=more(limited=True))
    assert fleet.take(2) == [A, B]
    fleet.world.raw("ZADD", fleet.world.keys["leases"], T0 - 1, "inc")
    fleet.world.raw("SET", fleet.world.keys["pulse"], T0)

    fleet.world.run(keeping.reap(fleet.world.keys, 10))

    fleet.sound()
    assert fleet.look().table("slots") == {}
    assert fleet.is_lost("inc")
    assert fleet.take(1, inc="other") == [C], "what may have run runs alone"
    fleet.done(C, inc="other")
    assert fleet.take(1, inc="other", mode="solo") == [A]


def test_what_a_sync_gives_back_frees_its_slots(fleet: Fleet) -> None:
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, head=more(limited=True))
    assert fleet.take(2) == [A, B]

    fleet.world.run(holding.sync(fleet.world.keys, "inc", 90, 89, [B]))

    fleet.sound()
    assert fleet.look().table("slots") == {b"t#1": b"1"}
    assert fleet.take(2, inc="other") == [A], "it was the first, and is the first of the line"


def test_suspects_wait_at_gates_too(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 1")
    fleet.send(A, B, head=more(limited=True))
    assert fleet.take(2) == [A]
    fleet.lose("inc", A)
    assert fleet.take(2, inc="other") == [B]
    fleet.begin("alone")

    assert fleet.take(1, inc="alone", mode="solo") == []
    assert fleet.look().table("gates") == {b"t#1": b" !q "}
    fleet.done(B, inc="other")
    assert fleet.look().table("solo:set")
    assert fleet.take(1, inc="alone", mode="solo") == [A]
    assert fleet.look().table("slots") == {b"t#1": b"1"}


# -- rates -------------------------------------------------------------------------------------------------------


def test_a_rate_lets_its_burst_pass_and_says_when_it_opens(world: World) -> None:
    before = world.seed(serving("inc"), limited(RATE), waiting(A, B, C, D, E))

    assert fetched(world, want=5) == [A, B, C]

    assert world.state() == without(before, "queue:q", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": dict.fromkeys([A, B, C], Taken(T0, "q")),
        "arrivals": Scores({b"t#1": Near(T0 + 30_000)}),
        "openings": Scores({b"t#1": Near(T0 + 10_000)}),
        "gated:q|t#1": [D, E],
        "gates": {b"t#1": b" q "},
        "alarm": [b"1"],
        "counters": {b"q|accepted": b"5", b"q|gated": b"2"},
    }


def test_a_rate_opens_by_time_for_one_after_another(fleet: Fleet) -> None:
    ids = [raw_id(i) for i in range(8)]
    fleet.publish("t", RATE)
    fleet.send(*ids, head=more(limited=True))
    assert fleet.take(8) == ids[:3]

    assert fleet.take(8) == []
    assert fleet.promote() == pytest.approx(10, abs=1)
    fleet.world.at(T0 + 9000)
    assert fleet.take(8) == []
    fleet.world.at(T0 + 10_500)
    assert fleet.take(8) == [ids[3]]
    fleet.world.at(T0 + 29_000)
    assert fleet.take(8) == [ids[4]]
    fleet.world.at(T0 + 30_500)
    assert fleet.take(8) == [ids[5]]
    fleet.world.at(T0 + 10 * MINUTE)
    assert fleet.take(8) == ids[6:]
    fleet.send(*map(raw_id, range(50, 53)), head=more(limited=True))
    assert fleet.take(8) == [raw_id(50)], "never more than the burst at once, however long it was quiet"


@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("kind", "sok")
def test_in_any_span_no_more_starts_than_the_rate_and_its_burst_allow(world: World, kind: str, burst: int) -> None:
    fleet, rng = Fleet(world), random.Random(burst)
    interval, n = 1000.0, 40
    name = "q" if kind == "o" else "t"
    fleet.publish(name, f"{kind} {interval:.6f} {burst} 0")
    now, starts = float(T0), []
    with fleet.unaudited():
        fleet.send(*(raw_id(i) for i in range(n)), head=X if kind == "k" else more(limited=True), task=name)
        while len(starts) < n:
            starts += [now] * len(fleet.take(rng.choice([1, 3, 20])))
            now += rng.choice([90, 130, 4000 if len(starts) < 10 else 70])
            fleet.world.at(now)

    for i in range(n):
        for j in range(i, n):
            assert j - i + 1 <= (starts[j] - starts[i] + 200) / interval + burst, "more than the rate allows"
    late = starts[15:]
    assert late[-1] - late[0] <= len(late) * (interval + 10) + 500, "less than the rate allows"


@pytest.mark.parametrize("per_second", [3, 7, 30, 300])
def test_a_rate_lets_one_pass_at_the_very_moment_it_said(fleet: Fleet, per_second: int) -> None:
    ids = [raw_id(i) for i in range(60)]
    fleet.world.at(T0 + 0.123456)
    fleet.publish("t", f"s {1000 / per_second:.6f} 3 0")
    fleet.send(*ids, head=more(limited=True))
    taken = fleet.take(60)
    assert taken == ids[:3]

    for _ in range(12):
        (opens,) = fleet.world.state()["openings"].values()
        fleet.world.at(opens)
        some = fleet.take(60)
        assert some, f"told to come at {opens}, and nothing passes"
        taken += some
    assert taken == ids[: len(taken)]


def test_a_clock_that_was_set_back_does_not_keep_a_rate_shut(fleet: Fleet) -> None:
    fleet.publish("t", RATE)
    fleet.world.at(T0 + 60 * MINUTE)
    fleet.send(*(raw_id(i) for i in range(5)), head=more(limited=True))
    assert fleet.take(1) == [raw_id(0)]

    fleet.world.at(T0)

    assert fleet.take(5) == []
    assert fleet.promote() == pytest.approx(10, abs=0.01)
    fleet.world.at(T0 + 10_000)
    assert fleet.take(5) == [raw_id(1)]


def test_a_clock_that_was_set_back_does_not_keep_a_line_waiting(fleet: Fleet) -> None:
    """Nothing else comes that would open the gate."""
    fleet.publish("t", "s 10000.000000 1 0")
    fleet.world.at(T0 + 60 * MINUTE)
    fleet.send(*(raw_id(i) for i in range(3)), head=more(limited=True))
    assert fleet.take(3) == [raw_id(0)]
    fleet.renew()

    fleet.world.at(T0)
    fleet.renew()

    assert fleet.promote() == pytest.approx(10, abs=0.01)
    fleet.world.at(T0 + 10_000)
    fleet.promote()
    assert fleet.take(3) == [raw_id(1)]


def test_a_clock_that_went_back_by_less_than_a_second_is_not_worth_a_walk_through_all_gates(fleet: Fleet) -> None:
    """The pulse is kept in whole ms, so even of two renewals at once the second may see one that lies ahead."""
    fleet.publish("t", "s 10000.000000 1 0")
    fleet.send(*(raw_id(i) for i in range(3)), head=more(limited=True))
    fleet.take(3)
    fleet.renew()
    before = {name: dump for name, dump in fleet.look().dump.items() if name in ("openings", "arrivals")}

    fleet.world.at(T0 - 900)
    with fleet.unaudited():
        fleet.renew()

        assert len(before) == 2
        assert {name: fleet.look().dump[name] for name in before} == before


def test_a_clock_that_was_set_back_leaves_timed_pauses_alone(fleet: Fleet) -> None:
    """They end at a time of day."""
    fleet.world.run(steering.pause(fleet.world.keys, "q", 60, "me", ""))
    fleet.renew()

    fleet.world.at(T0 - 60 * MINUTE)
    fleet.renew()

    assert fleet.look().table("openings") == {b"=q": T0 + 60_000}


def test_the_time_of_a_rate_that_is_over_is_forgotten(fleet: Fleet) -> None:
    """However many keys a rate has ever had, only those of late count."""
    fleet.publish("t", KEYED_RATE)
    fleet.send_all([sent(raw_id(i), more(_1=f"user{i}")) for i in range(30)])
    assert len(fleet.take(30)) == 30
    assert len(fleet.look().table("arrivals")) == 30

    fleet.world.at(T0 + MINUTE)
    fleet.send(raw_id(99), head=more(_1="one-more"))
    assert fleet.take() == [raw_id(99)]

    assert set(fleet.look().table("arrivals")) == {b"t#1=one-more"}


# -- the only task of a queue --------------------------------------------------------------------------------------


def test_a_limit_of_the_only_task_holds_its_queue_as_a_whole(world: World) -> None:
    before = world.seed(
        serving("inc"), limited(OWN_SLOTS, task="q"), waiting(A, B, C, task="q"), {"ready:set": Scores({b"q": 1.0})}
    )

    assert fetched(world, want=3) == [A, B]
    fleet = Fleet(world, incarnations=())
    fleet.calls["inc"] = 1
    assert fleet.take(3) == []

    assert without(world.state(), "bell:set") == without(before, "ready:set") | {
        "calls": {b"inc": b"2"},
        "queue:q": [C],
        "processing:inc": {A: Taken(T0, "q", "q#1"), B: Taken(T0, "q", "q#1")},
        "slots": {b"q#1": b"2"},
        "gates": {b"q#1": b" *q "},
    }


def test_a_freed_slot_announces_the_queue_that_waits_as_a_whole(fleet: Fleet) -> None:
    fleet.publish("q", OWN_SLOTS)
    fleet.send(A, B, C, D, head=more(limited=True), task="q")
    assert fleet.take(4) == [A, B]
    assert "ready:set" not in fleet.world.names()

    fleet.done(A)

    assert fleet.look().table("gates") == {}
    assert fleet.take(4) == [C]


def test_the_time_of_a_rate_announces_the_queue_that_waits_as_a_whole(fleet: Fleet) -> None:
    fleet.publish("q", OWN_RATE)
    fleet.send(A, B, C, D, head=more(limited=True), task="q")
    assert fleet.take(4) == [A, B, C]
    assert (fleet.look().table("gates"), fleet.promote()) == ({b"q#1": b" *q "}, pytest.approx(10, abs=1))

    fleet.world.at(T0 + 10_500)
    fleet.promote()

    assert fleet.look().table("ready:set")
    assert fleet.take(4) == [D]


def test_a_queue_that_waits_as_a_whole_is_not_taken_for_one_of_another_name(world: World) -> None:
    fleet = Fleet(world, "q", ".q")
    fleet.publish("q", OWN_SLOTS)
    fleet.publish("t", "s 0.000000 1 1")
    fleet.send(A, B, C, head=more(limited=True), task="q")
    fleet.send(D, E, head=more(limited=True), queue=".q")
    assert sorted(fleet.take(5)) == [A, B, D]
    assert fleet.take(5) == []

    fleet.done(D)
    assert fleet.take(5) == [E]
    fleet.done(A)
    assert fleet.take(5) == [C]


# -- keys and lines ------------------------------------------------------------------------------------------------


def test_each_key_has_a_gate_and_a_line_of_its_own(fleet: Fleet) -> None:
    fleet.publish("t", KEYED)
    fleet.send(A, B, head=X)
    fleet.send(C, head=Y)
    fleet.send(D, head=more(limited=True))

    assert fleet.take(4) == [A, C, D], "another key, and none, pass by"

    assert fleet.look().lines() == {("q", "t#1=x"): [B]}
    fleet.done(C, D)
    assert fleet.take(4) == []
    fleet.done(A)
    assert fleet.take(4) == [B]


def test_a_limit_of_one_task_does_not_hold_up_its_neighbours(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 1")
    fleet.send(A, B, head=more(limited=True))
    fleet.send(C, D, task="neighbour")

    assert fleet.take(4) == [A, C, D]
    fleet.done(A, C, D)
    assert fleet.take(4) == [B]


def test_who_comes_later_does_not_overtake_the_line_of_its_key(fleet: Fleet) -> None:
    fleet.publish("t", KEYED)
    fleet.send(A, B, head=X)
    assert fleet.take(2) == [A]
    fleet.done(A)
    fleet.send(C, head=X)

    assert fleet.take(3) == [B]
    fleet.done(B)
    assert fleet.take(3) == [C]


@pytest.mark.parametrize("outcome", [Returned, lambda id_: SlowDown(id_, 0.0)])
def test_what_is_returned_goes_to_the_head_of_its_line(fleet: Fleet, outcome: type[Returned]) -> None:
    fleet.publish("t", "k 0.000000 1 2")
    fleet.send(A, B, C, D, head=X)
    assert fleet.take(4) == [A, B]

    fleet.fetch(outcome(A), outcome(B))

    assert fleet.look().lines() == {("q", "t#1=x"): [A, B, C, D]}
    assert fleet.take(4) == [A, B]


def test_a_message_that_passes_one_gate_may_wait_at_the_next(fleet: Fleet) -> None:
    """And holds nothing of the first meanwhile."""
    fleet.publish("t", SLOTS, "k 0.000000 1 1")
    x = more(_2="x")
    fleet.send(A, B, head=x)
    fleet.send(C, head=more(_2="y"))

    assert fleet.take(3) == [A, C]

    assert fleet.look().table("slots") == {b"t#1": b"2", b"t#2=x": b"1", b"t#2=y": b"1"}
    assert fleet.look().lines() == {("q", "t#2=x"): [B]}
    fleet.done(A)
    assert fleet.take(3) == [B]


@pytest.mark.parametrize("n", [1, 2])
def test_those_of_two_lines_do_not_send_each_other_back_and_forth(fleet: Fleet, n: int) -> None:
    """Each waits at both gates; and whoever was first in the one or the other goes first."""
    fleet.publish("t", "s 1000.000000 1 1", "k 0.000000 1 1")
    ids = [raw_id(i) for i in range(8)]
    with fleet.unaudited():
        fleet.send(*ids, head=more(_2="x"))
        done, now = [], float(T0)
        for _ in range(100):
            for id_ in fleet.take(n):
                fleet.sound()
                done.append(id_)
                fleet.done(id_)
            now += 400
            fleet.world.at(now)
            if len(done) == len(ids):
                break

    assert done == ids


def test_lines_at_two_gates_that_are_both_open_are_emptied(fleet: Fleet) -> None:
    """Limits were lifted while some waited here and others there: each line is emptied one by one."""
    head, ids = more(_2="x"), [raw_id(i) for i in range(6)]
    fleet.world.seed(
        {
            "messages": {id_: message(id_, more=head) for id_ in ids},
            "gated:q|t#1": ids[:3],
            "gated:q|t#2=x": ids[3:],
            "gates": {b"t#1": b" q ", b"t#2=x": b" q "},
            "counters": {b"q|accepted": b"6", b"q|gated": b"6"},
            "ready:set": Scores({b"q|t#1": 1.0, b"q|t#2=x": 2.0}),
            "bell:set": [b"1"],
        },
        limited("s 0.000000 1 1", "k 0.000000 1 1"),
    )

    taken = []
    for n in range(12):
        fleet.world.at(T0 + n)  # what is ready comes in turn
        got = fleet.fetch(want=1, caps=" q=1 ").messages[::2]
        taken += got
        fleet.done(*got)

    assert sorted(taken) == ids


def test_those_of_many_keys_pass_the_gate_they_have_in_common_in_the_order_in_which_they_came(fleet: Fleet) -> None:
    """Whatever their own gates did meanwhile."""
    fleet.publish("t", SLOTS, "k 0.000000 1 1")
    for n, (id_, key) in enumerate(((A, "x"), (B, "x"), (C, "u"), (D, "w"), (E, "v"))):
        fleet.world.at(T0 + n)
        fleet.send(id_, head=more(_2=key))
    assert fleet.take(5) == [A, C]
    assert fleet.look().lines() == {("q", "t#2=x"): [B], ("q", "t#2=w"): [D], ("q", "t#2=v"): [E]}

    for done, following in ((A, B), (C, D), (B, E)):
        fleet.done(done)
        assert fleet.take(5) == [following]


def test_a_gate_of_two_queues_has_a_line_for_each(world: World) -> None:
    """A stale announcement of the one line does not make the other one forgotten."""
    fleet, second = Fleet(world, "p", "q"), Fleet(world, "p", set_id="second", incarnations=("else",))
    fleet.publish("t", "s 0.000000 1 1")
    head = more(limited=True)
    fleet.send(A, head=head)
    world.at(T0 + 1)
    fleet.send(B, queue="p", head=head)
    fleet.send(C, head=head)
    assert fleet.take(3) == [A]
    assert fleet.look().lines() == {("q", "t#1"): [C], ("p", "t#1"): [B]}
    fleet.done(A)
    assert b"p|t#1" in fleet.look().table("ready:second")

    got = fleet.take(1, most=1)
    fleet.done(*got)
    second.take(1, inc="else")

    assert sorted(got + fleet.take(1) + [*second.look().table("processing:else")]) == [B, C]


def test_workers_that_come_later_are_told_of_lines_at_open_gates(world: World) -> None:
    """A new version of the app serves one queue more; the old version's workers are gone, and their announcements."""
    fleet = Fleet(world)
    fleet.publish("t", RATE)
    fleet.send(*(raw_id(i) for i in range(5)), head=more(limited=True))
    assert len(fleet.take(5)) == 3
    fleet.done(*fleet.world.state()["processing:inc"])
    world.at(T0 + MINUTE)
    fleet.promote()
    assert set(world.state()["ready:set"]) == {b"q|t#1"}

    new = Fleet(world, "p", "q", set_id="new", incarnations=("younger",))

    assert new.take(5, inc="younger") == [raw_id(3), raw_id(4)]


def test_a_line_nobody_serves_when_its_gate_opens_is_told_to_whoever_comes(world: World) -> None:
    fleet = Fleet(world)
    fleet.publish("t", RATE)
    fleet.send(*(raw_id(i) for i in range(4)), head=more(limited=True))
    assert len(fleet.take(4)) == 3
    fleet.lose(died=False)
    for name in ("sets", "serving", "set-leases", "ready:set", "bell:set"):
        world.raw("DEL", world.keys[name])
    world.at(T0 + 2 * MINUTE)
    fleet.promote()

    fleet.begin("late")

    assert len(fleet.take(4, inc="late")) == 3
    world.at(T0 + 5 * MINUTE)
    fleet.take(4, inc="late")
    assert len(world.state()["processing:late"]) == 4


def test_one_in_the_line_of_a_limit_that_is_no_more_is_where_it_is(fleet: Fleet) -> None:
    """And not put into its queue a second time, if it is asked for meanwhile."""
    fleet.publish("t", KEYED)
    fleet.send(A, B, head=X)
    assert fleet.take(2) == [A]
    assert fleet.look().lines() == {("q", "t#1=x"): [B]}
    fleet.publish("t", SLOTS)

    assert fleet.world.run(auditing.mend(fleet.world.keys, [(B, ""), (A, "")])) == ["sound", "sound"]


# -- limits that change ----------------------------------------------------------------------------------------------


def test_a_limit_by_hand_holds_instead_of_that_of_the_code_until_it_is_taken_back(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 1")
    ids = [raw_id(i) for i in range(8)]
    fleet.send(*ids, head=more(limited=True))
    assert fleet.take(8) == ids[:1]

    assert fleet.limit("t", "s 0 1 3")
    assert fleet.take(8) == ids[1:3], "raised: whoever waits in line is told at once"
    fleet.publish("t", "s 0.000000 1 2")
    assert fleet.take(8) == [], "a worker's start does not undo it"
    assert fleet.limit("t", "-")
    fleet.done(ids[0])
    assert fleet.take(8) == [], "lowered: two run"
    fleet.done(ids[1])
    assert fleet.take(8) == [ids[3]]


def test_a_limit_of_an_unknown_task_is_refused(world: World) -> None:
    assert not Fleet(world, incarnations=()).limit("t", "s 0 1 3")
    assert world.state() == {}


def test_lifting_a_limit_lets_all_of_its_lines_pass(fleet: Fleet) -> None:
    fleet.publish("t", KEYED)
    fleet.send(A, B, C, head=X)
    fleet.send(D, E, head=Y)
    assert fleet.take(5) == [A, D]

    assert fleet.publish("t") == 2

    assert sorted(fleet.take(5)) == [B, C, E]
    assert not {"gates", "gated:q|t#1=x", "gated:q|t#1=y"} & set(fleet.world.names())


@pytest.mark.parametrize("whole", [True, False])
def test_what_took_no_slot_gives_none_back(fleet: Fleet, whole: bool) -> None:
    """A limit that is changed while some run counts those that have come since, and not others."""
    name, kind = ("q", "o") if whole else ("t", "s")
    fleet.publish(name, f"{kind} 1.000000 100 0")
    ids = [raw_id(i) for i in range(8)]
    fleet.send(*ids, head=more(limited=True), task=name)
    assert fleet.take(3) == ids[:3]
    fleet.limit(name, f"{kind} 0 1 2")
    assert fleet.take(5) == ids[3:5]

    fleet.done(*ids[:3])

    assert fleet.look().table("slots") == {f"{name}#1".encode(): b"2"}
    assert fleet.take(5) == []


def test_a_slot_taken_before_the_limit_was_lifted_is_given_back(fleet: Fleet) -> None:
    fleet.publish("t", SLOTS)
    fleet.send(A, B, C, head=more(limited=True))
    fleet.take(2)
    fleet.publish("t", RATE)
    fleet.done(A, B)

    assert fleet.look().table("slots") == {}


def test_a_quicker_rate_holds_from_now_on(fleet: Fleet) -> None:
    """Not only after the time that the slower one would have taken; the same mends a clock that was set back."""
    fleet.publish("t", "s 3600000.000000 1 0")
    ids = [raw_id(i) for i in range(6)]
    fleet.send(*ids, head=more(limited=True))
    assert fleet.take(9) == ids[:1]

    fleet.limit("t", "s 10000 1 0")

    assert fleet.take(9) == []
    assert fleet.promote() == pytest.approx(10, abs=1)
    fleet.world.at(T0 + 10_500)
    assert fleet.take(9) == [ids[1]]
    fleet.limit("t", "s 0 1 9")
    assert fleet.take(9) == ids[2:]


# -- RateLimited -----------------------------------------------------------------------------------------------------


def test_a_task_that_was_told_to_wait_shuts_its_gate_for_everyone(fleet: Fleet) -> None:
    """Also one that has no limit at all; and comes first when it opens."""
    fleet.send(A, B, C)
    assert fleet.take(1) == [A]

    fleet.fetch(SlowDown(A, 30.0))

    fleet.send(D)
    assert fleet.take(9, inc="other") == []
    assert fleet.promote() == pytest.approx(30, abs=1)
    fleet.world.at(T0 + 29_000)
    assert fleet.take(9) == []
    fleet.world.at(T0 + 30_500)
    assert fleet.take(9, inc="other") == [A, B, C, D]
    assert fleet.look().counter("q", "returned") == 1


def test_a_clock_that_was_set_back_does_not_keep_a_task_waiting_that_was_told_to(fleet: Fleet) -> None:
    fleet.world.at(T0 + 60 * MINUTE)
    fleet.send(A, B)
    fleet.take(1)
    fleet.fetch(SlowDown(A, 30.0))
    assert fleet.take(9) == []
    fleet.renew()

    fleet.world.at(T0)
    fleet.renew()

    assert fleet.promote() == pytest.approx(30, abs=1)
    assert fleet.take(9) == []
    fleet.world.at(T0 + 30_500)
    fleet.promote()
    assert fleet.take(9) == [A, B]


@pytest.mark.parametrize("limits", [(RATE,), (SLOTS,), (RATE, SLOTS), (OWN_RATE.replace("o", "s"),)])
def test_a_limited_task_that_was_told_to_wait_shuts_its_first_gate(fleet: Fleet, limits: tuple[str, ...]) -> None:
    fleet.publish("t", *limits)
    fleet.send(A, B, C, head=more(limited=True))
    assert fleet.take(1) == [A]

    fleet.fetch(SlowDown(A, 60.0))

    assert fleet.take(9) == []
    fleet.world.at(T0 + 59_000)
    assert fleet.take(9) == []
    fleet.world.at(T0 + 60_500)
    assert fleet.take(9)[:1] == [A]


def test_only_the_key_that_was_told_to_wait_waits(fleet: Fleet) -> None:
    fleet.publish("t", "k 0.000000 1 3")
    fleet.send(A, B, head=X)
    fleet.send(C, D, head=Y)
    assert fleet.take(1) == [A]

    fleet.fetch(SlowDown(A, 60.0))

    assert fleet.take(9) == [C, D]
    fleet.world.at(T0 + 60_500)
    assert fleet.take(9) == [A, B]


def test_a_suspect_that_is_told_to_wait_runs_alone_after_it(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.take()
    fleet.world.run(leasing.close(fleet.world.keys, "inc", died=True, alone=True, running=[A]))
    assert fleet.take(1, inc="other", mode="solo") == [A]

    fleet.fetch(SlowDown(A, 30.0), inc="other")

    assert fleet.take(1, inc="other") == []
    assert fleet.take(1, inc="other", mode="solo") == []
    fleet.world.at(T0 + 30_500)
    fleet.promote()
    assert fleet.take(1, inc="other", mode="solo") == [A]


@pytest.mark.parametrize("waits", [(60.0, 30.0), (30.0, 60.0)])
def test_the_shorter_of_two_waits_does_not_end_the_longer_one(fleet: Fleet, waits: tuple[float, float]) -> None:
    fleet.publish("t", "s 0.000000 1 5")
    fleet.send(A, B, head=more(limited=True))
    assert fleet.take(2) == [A, B]

    fleet.fetch(SlowDown(A, waits[0]), SlowDown(B, waits[1]))

    assert fleet.look().table("shut") == {b"t#1": T0 + 60_000}
    fleet.world.at(T0 + 30_500)
    assert fleet.take(2) == []
    fleet.world.at(T0 + 60_500)
    assert fleet.take(2) == [A, B]
    assert "shut" not in fleet.world.names()


def test_a_paused_task_that_is_told_to_wait_waits_after_its_resumption(fleet: Fleet) -> None:
    fleet.publish("t", "s 0.000000 1 5")
    fleet.send(A, B, head=more(limited=True))
    assert fleet.take(1) == [A]
    fleet.pause("t")
    fleet.fetch(SlowDown(A, 60.0))
    fleet.resume("t")

    assert fleet.take(9) == []
    fleet.world.at(T0 + 60_500)
    assert sorted(fleet.take(9)) == [A, B]


# -- any order ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_no_more_pass_than_have_slots_and_none_is_forgotten(world: World, seed: int) -> None:
    """Two workers, a keyed limit beside a common one, messages of three keys; audited after every call."""
    rng, fleet = random.Random(seed), Fleet(world, incarnations=("a", "b"))
    fleet.publish("t", "s 0.000000 1 4", "k 0.000000 1 2")
    fleet.publish("u", queue="q")
    ids = iter(raw_id(i) for i in range(1000))
    held: dict[str, list[bytes]] = {"a": [], "b": []}
    ended: Counter[bytes] = Counter()
    names = iter(f"w{i}" for i in range(100))
    for _ in range(60):
        inc = rng.choice(list(held))
        match rng.choice(["send", "send", "take", "take", "end", "end", "return", "lose", "pause", "resume"]):
            case "send":
                head = rng.choice([more(_2="x"), more(_2="y"), more(_2="z"), more(limited=True)])
                fleet.send(*(next(ids) for _ in range(rng.randint(1, 4))), head=head)
            case "take":
                caps = f" q={rng.choice([1, 2, 9])} "
                held[inc] += fleet.fetch(want=rng.randint(1, 6), inc=inc, caps=caps).messages[::2]
            case "end":
                some = held[inc][: rng.randint(0, 4)]
                held[inc] = held[inc][len(some) :]
                ended.update(some)
                fleet.done(*some, inc=inc)
            case "return":
                some = held[inc][-2:]
                held[inc] = held[inc][: -len(some)] if some else []
                fleet.fetch(*map(Returned, some), inc=inc)
            case "lose":
                fleet.lose(inc, died=False)
                del held[inc]
                held[name := next(names)] = []
                fleet.begin(name)
            case "pause":
                fleet.pause(rng.choice(["q", "t"]))
            case "resume":
                fleet.resume(rng.choice(["q", "t"]))
    fleet.resume("q")
    fleet.resume("t")
    for inc, some in held.items():
        fleet.done(*some, inc=inc)
        ended.update(some)
    while some := fleet.take(9, inc=inc):
        fleet.done(*some, inc=inc)
        ended.update(some)

    assert fleet.look().counter("q", "accepted") == len(ended)
    assert set(ended.values()) <= {1}
    assert not {"slots", "gates", "messages"} & set(world.names())
