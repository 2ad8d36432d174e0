"""fetch, first half: how deliveries end."""

from __future__ import annotations

import pytest

from taskq.broker.commands.holding import Batch, Lost, Stale, fetch
from taskq.broker.commands.outcomes import words
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned
from tests.contract.world import MINUTE, T0, Near, Scores, State, World, message, messages, raw_id, serving, without

A, B, C, D = map(raw_id, range(1, 5))
NAMED = b"a-name"
TTL = 3_600_000


def done(id_: bytes, result: bytes) -> Outcome:
    return id_, result


def settle(world: World, *outcomes: Outcome, number: int = 1) -> Batch:
    return world.run(fetch(world.keys, "inc", number, words(outcomes, TTL)))


def holding(*ids: bytes, taken: bytes = b"1 q", **more: object) -> State:
    """An incarnation that holds these messages, and nothing else."""
    return serving("inc") | {"messages": messages(*ids), "processing:inc": dict.fromkeys(ids, taken)} | more


def nothing_left(before: State) -> State:
    """The same when what was held has ended; call 1 was made."""
    return without(before, "messages", "processing:inc") | {"calls": {b"inc": b"1"}}


def test_a_value_of_a_task_ends_its_message_and_is_stored(world: World) -> None:
    before = world.seed(holding(A, B))

    batch = settle(world, done(A, b"Sa"), done(B, b"Sb"))

    assert (batch.now, batch.fenced, batch.crashes, batch.messages) == (Near(T0), 0, 0, [])
    assert world.state() == nothing_left(before) | {
        "counters": {b"q|done": b"2"},
        f"result:{A.decode()}": b"Sa",
        f"result:{B.decode()}": b"Sb",
    }
    assert TTL - 5000 < world.ttl(f"result:{A.decode()}") <= TTL


def test_a_value_nobody_wants_is_not_stored(world: World) -> None:
    before = world.seed(holding(A, B))

    settle(world, done(A, b""), done(B, b""))

    assert world.state() == nothing_left(before) | {"counters": {b"q|done": b"2"}}


def test_values_of_several_queues_are_counted_for_each(world: World) -> None:
    before = world.seed(holding(A, B, C, **{"processing:inc": {A: b"1 q", B: b"2 other queue", C: b"!3 q"}}))

    settle(world, done(A, b""), done(B, b"Sb"), done(C, b"Sc"))

    after = world.state()
    assert after["counters"] == {b"q|done": b"2", b"other queue|done": b"1"}
    assert set(after) == set(nothing_left(before)) | {"counters", f"result:{B.decode()}", f"result:{C.decode()}"}


def test_an_end_forgets_counted_crashes(world: World) -> None:
    before = world.seed(holding(A, B, NAMED, crashes={A: b"1", NAMED: b"2", C: b"1"}))

    settle(world, done(A, b""), done(NAMED, b""), Ended(B, "failed", b""))

    assert world.state() == nothing_left(before) | {
        "crashes": {C: b"1"},
        "counters": {b"q|done": b"2", b"q|failed": b"1"},
    }


@pytest.mark.parametrize("counter", ["failed", "discarded"])
@pytest.mark.parametrize("result", [b"", b"Fdetail"])
def test_an_end_without_a_dead_letter_is_counted_by_its_name(world: World, counter: str, result: bytes) -> None:
    before = world.seed(holding(NAMED))

    settle(world, Ended(NAMED, counter, result))

    stored = {"result:a-name": result} if result else {}
    assert world.state() == nothing_left(before) | {"counters": {b"q|%s" % counter.encode(): b"1"}} | stored


def test_a_message_given_up_is_kept_with_its_reason(world: World) -> None:
    before = world.seed(holding(A, crashes={A: b"1"}))

    settle(world, Dead(A, "failed", b"detail\nof bytes\x00", b"Fdetail"))

    assert world.state() == without(before, "processing:inc", "crashes") | {
        "calls": {b"inc": b"1"},
        "dead:q": Scores({A: Near(T0)}),
        "reasons": {A: b"failed\ndetail\nof bytes\x00"},
        "counters": {b"q|died": b"1"},
        f"result:{A.decode()}": b"Fdetail",
    }


def test_beyond_dead_max_the_oldest_dead_letters_go(world: World) -> None:
    before = world.seed(
        holding(A),
        {
            "dead:q": Scores({B: 1.0, C: 2.0}),
            "reasons": {B: b"failed\n", C: b"failed\n"},
            "settings": {b"dead_max": b"2"},
            "messages": messages(B, C),
        },
    )

    settle(world, Dead(A, "failed", b"", b""))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "messages": messages(A, C),
        "dead:q": Scores({C: 2.0, A: Near(T0)}),
        "reasons": {C: b"failed\n", A: b"failed\n"},
        "counters": {b"q|died": b"1", b"q|purged": b"1"},
    }


def test_a_retry_waits_in_the_schedule_as_its_new_value(world: World) -> None:
    before = world.seed(holding(A, schedule=Scores({D: T0 + 30_000.0})))
    again = message(A, body=b"second try")

    settle(world, Again(A, again, 60.0, "retried"))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "messages": {A: again},
        "schedule": Scores({D: T0 + 30_000.0, A: Near(T0 + MINUTE)}),
        "counters": {b"q|retried": b"1", b"q|scheduled": b"1"},
    }


def test_a_retry_that_is_the_earliest_wakes_the_keeper_of_the_time(world: World) -> None:
    world.seed(holding(A, schedule=Scores({D: T0 + 10.0 * MINUTE})))

    settle(world, Again(A, message(A), 60.0, "deferred"))

    assert world.state()["alarm"] == [b"1"]


def test_a_retry_without_delay_goes_to_the_end_of_its_queue(world: World) -> None:
    before = world.seed(holding(A, **{"queue:q": [B]}))

    settle(world, Again(A, message(A), 0.0, "retried"))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "queue:q": [B, A],
        "counters": {b"q|retried": b"1"},
    }


def test_what_was_too_early_waits_in_the_schedule_and_is_counted_as_that(world: World) -> None:
    world.seed(holding(A))

    settle(world, Again(A, message(A, body=b"again"), 60.0, "postponed"))

    state = world.state()
    assert state["counters"] == {b"q|postponed": b"1", b"q|scheduled": b"1"}
    assert state["schedule"] == Scores({A: Near(T0 + MINUTE)})


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_retry_in_another_queue_leaves_the_books_of_the_first(world: World, delay: float) -> None:
    before = world.seed(holding(A, **{"queue:p": [B]}), {"tasks": {b"t": b"q"}, "waiters": {A: b"in1"}})
    again = message(A, "p")

    settle(world, Again(A, again, delay, "retried", "p"))

    waits = (
        {"schedule": Scores({A: Near(T0 + MINUTE)}), "queue:p": [B], "alarm": [b"1"]} if delay else {"queue:p": [B, A]}
    )
    scheduled = {b"p|scheduled": b"1"} if delay else {}
    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "messages": {A: again},
        "guests": {b"p|t": b"1"},
        "counters": {b"q|retried": b"1", b"q|moved": b"1", b"p|accepted": b"1"} | scheduled,
    } | waits  # fmt: skip


def test_a_retry_in_another_queue_that_was_revoked_meanwhile_ends_in_the_first(world: World) -> None:
    world.seed(holding(A), {"revoked": {A: b""}})

    settle(world, Again(A, message(A, "p"), 0.0, "retried", "p"))

    assert world.state()["counters"] == {b"q|done": b"1"}


def test_what_is_returned_goes_to_the_head_in_its_order_uncounted(world: World) -> None:
    before = world.seed(holding(A, B, C, **{"queue:q": [D]}))

    settle(world, Returned(A), Returned(B), Returned(C))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "queue:q": [A, B, C, D],
        "counters": {b"q|returned": b"3"},
    }


def test_what_is_returned_to_an_empty_queue_rings(world: World) -> None:
    world.seed(holding(A))

    settle(world, Returned(A))

    after = world.state()
    assert after["ready:set"] == Scores({b"q": Near(T0)})
    assert after["bell:set"] == [b"1"]


def test_a_suspect_that_is_returned_is_still_a_suspect(world: World) -> None:
    before = world.seed(holding(A, taken=b"!1 q", **{"suspects:q": [B]}))

    settle(world, Returned(A))

    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "suspects:q": [A, B],
        "solo:set": Scores({b"q": Near(T0)}),
        "solo-bell:set": [b"1"],
        "counters": {b"q|returned": b"1"},
    }


ENDS = [
    done(A, b"Sa"),
    done(A, b""),
    Ended(A, "failed", b"F"),
    Dead(A, "failed", b"why", b"F"),
    Again(A, message(A, body=b"other"), 5.0, "retried"),
    Again(A, message(A, "p"), 5.0, "retried", "p"),
    Again(A, message(A, body=b"other"), 0.0, "deferred"),
    Returned(A),
]


@pytest.mark.parametrize("outcome", ENDS, ids=repr)
def test_a_presumed_dead_worker_changes_nothing_and_is_counted_as_fenced(world: World, outcome: Outcome) -> None:
    """Its message was given to another, which holds it: that one's delivery is the only one that counts."""
    before = world.seed(serving("inc", "other"), {"messages": messages(A), "processing:other": {A: b"5 q"}})

    batch = settle(world, outcome)

    assert batch.fenced == 1
    assert world.state() == before | {"calls": {b"inc": b"1", b"other": b"0"}}


def test_of_many_outcomes_only_the_fenced_ones_are_refused(world: World) -> None:
    before = world.seed(holding(A, C), {"queue:q": [B]}, {"messages": messages(B)})

    batch = settle(world, done(A, b"Sa"), done(B, b"Sb"), done(C, b"Sc"), Returned(D))

    assert batch.fenced == 2
    assert world.state() == without(before, "processing:inc") | {
        "calls": {b"inc": b"1"},
        "messages": messages(B),
        "counters": {b"q|done": b"2"},
        f"result:{A.decode()}": b"Sa",
        f"result:{C.decode()}": b"Sc",
    }


WAITED = [
    (done(A, b"Sa"), b"Sa"),
    (done(A, b""), b""),
    (Ended(A, "discarded", b"Xexpired"), b"Xexpired"),
    (Ended(A, "failed", b""), b""),
    (Dead(A, "failed", b"why", b"Fwhy"), b"Fwhy"),
    (Dead(A, "failed", b"why", b""), b""),
]


@pytest.mark.parametrize(("outcome", "told"), WAITED, ids=repr)
def test_every_end_is_told_to_all_who_wait_for_it(world: World, outcome: Outcome, told: bytes) -> None:
    world.seed(holding(A), {"waiters": {A: b"in1 in2", B: b"in1"}})

    settle(world, outcome)

    after = world.state()
    assert after["inbox:in1"] == after["inbox:in2"] == [b"\x10" + A + told]
    assert after["waiters"] == {B: b"in1"}
    assert 0 < world.ttl("inbox:in1") <= 60_000


@pytest.mark.parametrize(
    "outcome", [Again(A, message(A), 5.0, "retried"), Again(A, message(A), 0.0, "retried"), Returned(A)], ids=repr
)
def test_what_goes_on_is_not_told_to_anybody(world: World, outcome: Outcome) -> None:
    before = world.seed(holding(A), {"waiters": {A: b"in1"}})

    settle(world, outcome)

    after = world.state()
    assert after["waiters"] == before["waiters"]
    assert "inbox:in1" not in after


@pytest.mark.parametrize("outcome", ENDS, ids=repr)
def test_an_unregistered_incarnation_is_lost_and_changes_nothing(world: World, outcome: Outcome) -> None:
    world.seed(serving("other"), {"messages": messages(A), "processing:inc": {A: b"1 q"}, "queue:q": [B]})
    before = world.dump()

    with pytest.raises(Lost):
        settle(world, outcome)

    assert world.dump() == before


@pytest.mark.parametrize("number", [4, 5])
@pytest.mark.parametrize("outcome", ENDS, ids=repr)
def test_a_number_that_is_not_higher_is_stale_and_changes_nothing(world: World, outcome: Outcome, number: int) -> None:
    world.seed(holding(A, calls={b"inc": b"5"}, **{"queue:q": [B]}), {"schedule": Scores({C: 1.0})})
    before = world.dump()

    with pytest.raises(Stale):
        settle(world, outcome, number=number)

    assert world.dump() == before


def test_the_same_call_again_is_stale(world: World) -> None:
    world.seed(holding(A))
    settle(world, done(A, b"Sa"))
    before = world.dump()

    with pytest.raises(Stale):
        settle(world, done(A, b"Sa"))

    assert world.dump() == before


def test_a_batch_as_large_as_an_incarnation_may_hold_settles_in_one_call(world: World) -> None:
    ids = [raw_id(i) for i in range(128)]
    before = world.seed(holding(*ids))

    settle(world, *(done(id_, b"S%d" % i) for i, id_ in enumerate(ids)))

    assert world.state() == nothing_left(before) | {"counters": {b"q|done": b"128"}} | {
        f"result:{id_.decode()}": b"S%d" % i for i, id_ in enumerate(ids)
    }


@pytest.mark.parametrize("result", [b"", b"Sx"], ids=["ignored", "stored"])
def test_ten_thousand_that_end_together_are_settled(world: World, result: bytes) -> None:
    """As many as a lane of coroutines may run."""
    ids = [raw_id(n) for n in range(10_000)]
    world.seed(serving("inc"), {"messages": messages(*ids), "processing:inc": dict.fromkeys(ids, b"1 q")})

    batch = world.run(fetch(world.keys, "inc", 1, words([(id_, result) for id_ in ids], MINUTE)))

    assert batch.fenced == 0
    assert not {"messages", "processing:inc"} & set(world.names())
    assert world.state()["counters"] == {b"q|done": b"10000"}
