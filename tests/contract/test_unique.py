"""Unique work, series of calls, and queues of a length: what is accepted, what is another's, what is refused."""

from __future__ import annotations

import pytest

from taskq.broker.commands import awaiting, holding, leasing, producing, steering
from taskq.message.outcome import Again, Dead, Ended, Outcome, Returned
from tests.contract.fleet import Fleet, more, sent
from tests.contract.world import MINUTE, T0, Near, Scores, Taken, World, message, raw_id, serving, without

A, B, C, D, E = map(raw_id, range(1, 6))
START, DONE = more(lock="s0:t|k", limited=True), more(lock="d0:t|k", limited=True)
MODES = pytest.mark.parametrize("head", [START, DONE])


def is_first(id_: bytes) -> bytes:
    """The answer to a call that is another's."""
    return b"~" + id_.hex().encode() + b"."


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world, incarnations=("inc", "other"))


# -- locks -------------------------------------------------------------------------------------------------------


@MODES
def test_the_first_takes_the_lock_and_the_next_is_the_first(world: World, head: bytes) -> None:
    fleet = Fleet(world, incarnations=())
    assert fleet.send(A, head=head) == b"+"
    before = world.state()

    assert fleet.send(B, head=head) == is_first(A)

    assert before["unique"] == {b"t|k": b"0 " + A}
    assert without(world.state(), "producer:p") == without(before, "producer:p")


@MODES
def test_in_one_call_the_first_of_several_is_accepted(fleet: Fleet, head: bytes) -> None:
    other = more(lock="d0:t|other")

    answer = fleet.send_all([sent(A, head), sent(B, head), sent(C, other), sent(D, head), sent(E)])

    assert answer == b"+" + is_first(A) + b"+" + is_first(A) + b"+"
    assert fleet.world.state()["queue:q"] == [A, C, E]


def test_the_repeat_of_a_lost_answer_is_answered_the_same(fleet: Fleet) -> None:
    command = producing.enqueue(fleet.world.keys, b"p", 1, [sent(A, DONE), sent(B, DONE)])  # type: ignore[list-item]
    answer = fleet.world.run(command)
    before = fleet.world.dump()

    assert fleet.world.run(command) == answer == b"+" + is_first(A)
    assert fleet.world.dump() == before


def test_an_id_of_any_bytes_comes_back_in_the_answer(fleet: Fleet) -> None:
    id_ = bytes(range(240, 256))
    fleet.send(id_, head=DONE)

    assert fleet.send(A, head=DONE) == is_first(id_)


def test_until_its_start_means_until_it_is_taken(world: World) -> None:
    before = world.seed(
        serving("inc"),
        {
            "messages": {A: message(A, more=START), B: message(B, more=more(lock="s0:t|other"))},
            "queue:q": [A],
            "schedule": Scores({B: float(T0 + MINUTE)}),
            "marks": {b"q": b"l"},
            "unique": {b"t|k": b"0 " + A, b"t|other": b"0 " + B},
            "counters": {b"q|accepted": b"2", b"q|scheduled": b"1"},
            "ready:set": Scores({b"q": 1.0}),
        },
    )
    fleet = Fleet(world, incarnations=())
    fleet.calls["inc"] = 0

    assert fleet.take() == [A]

    assert world.state() == without(before, "queue:q", "ready:set") | {
        "calls": {b"inc": b"1"},
        "processing:inc": {A: Taken(T0, "q")},
        "unique": {b"t|other": b"0 " + B},
    }
    assert fleet.send(raw_id(3), head=START) == b"+"


@pytest.mark.parametrize(
    "outcome", [(A, b"S"), (A, b""), Ended(A, "failed", b""), Ended(A, "discarded", b""), Dead(A, "failed", b"", b"")]
)
def test_until_it_is_done_means_until_its_end_and_leaves_no_lock(fleet: Fleet, outcome: Outcome) -> None:
    fleet.send(A, head=DONE)
    fleet.take()
    assert fleet.send(B, head=DONE) == is_first(A)
    assert fleet.world.state()["processing:inc"] == {A: Taken(T0, "q", "*t|k")}

    fleet.fetch(outcome)

    assert "unique" not in fleet.world.names()
    assert fleet.send(B, head=DONE) == b"+"


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_retry_keeps_its_lock(fleet: Fleet, delay: float) -> None:
    fleet.send(A, head=DONE)
    fleet.take()

    fleet.fetch(Again(A, message(A, more=DONE), delay, "retried"))

    assert fleet.send(B, head=DONE) == is_first(A)


@pytest.mark.parametrize("how", ["return", "stop", "sync", "crash"])
def test_work_that_goes_back_keeps_its_lock_until_it_is_done(fleet: Fleet, how: str) -> None:
    fleet.send(A, head=DONE)
    fleet.take()
    match how:
        case "return":
            fleet.fetch(Returned(A))
        case "sync":
            fleet.world.run(holding.sync(fleet.world.keys, "inc", 50, 49, []))
            fleet.sound()
        case _:
            fleet.lose("inc", A, died=how == "crash")

    assert fleet.send(B, head=DONE) == is_first(A)
    assert fleet.take(inc="other", mode="solo" if how == "crash" else "") == [A]
    fleet.done(A, inc="other")
    assert fleet.world.state().get("unique") is None


@pytest.mark.parametrize("how", ["return", "stop", "sync"])
@pytest.mark.parametrize("waits", [True, False])
def test_what_was_not_started_takes_its_lock_again_or_is_superseded(fleet: Fleet, how: str, waits: bool) -> None:
    fleet.send(A, head=START)
    fleet.take()
    if not waits:
        assert fleet.send(B, head=START) == b"+"
    fleet.world.run(awaiting.await_results(fleet.world.keys, "in", [A]))

    match how:
        case "return":
            fleet.fetch(Returned(A))
        case "stop":
            fleet.lose("inc", died=False)
        case _:
            fleet.world.run(holding.sync(fleet.world.keys, "inc", 50, 49, []))
            fleet.sound()

    snap = fleet.look()
    if waits:
        assert (snap.row("queue:q"), snap.table("unique")) == ([A], {b"t|k": b"0 " + A})
        assert fleet.send(B, head=START) == is_first(A)
    else:
        assert (snap.row("queue:q"), snap.table("unique")) == ([B], {b"t|k": b"0 " + B})
        assert snap["result:" + A.decode()] == b"Xsuperseded"
        assert snap.counter("q", "discarded") == 1
        assert snap.row("inbox:in")


def test_the_third_death_of_unique_work_frees_its_lock(fleet: Fleet) -> None:
    fleet.send(A, head=DONE)
    fleet.world.seed({"crashes": {A: b"2"}, "settings": {b"max_crashes": b"3"}})
    fleet.world.raw("DEL", fleet.world.keys["queue:q"], fleet.world.keys["ready:set"])
    fleet.world.seed({"suspects:q": [A], "solo:set": Scores({b"q": 1.0}), "solo-bell:set": [b"1"]})
    assert fleet.take(mode="solo") == [A]

    fleet.world.run(leasing.close(fleet.world.keys, "inc", died=True, alone=True, running=[A]))

    fleet.sound()
    assert set(fleet.world.state()["dead:q"]) == {A}
    assert "unique" not in fleet.world.names()


def test_a_lock_whose_message_is_gone_or_dead_holds_nobody(fleet: Fleet) -> None:
    """As an operator's hand or a restored snapshot leaves it."""
    fleet.world.seed({"unique": {b"t|k": b"0 " + A}})
    assert fleet.send(B, head=DONE) == b"+"
    fleet.take()
    fleet.fetch(Dead(B, "failed", b"", b""))
    fleet.world.seed({"unique": {b"t|k": b"0 " + B}})

    assert fleet.send(C, head=DONE) == b"+"


def test_a_lock_of_a_time_ends_with_it_at_the_latest(fleet: Fleet) -> None:
    short = more(lock="d10000:t|k", limited=True)
    fleet.send(A, head=short)
    fleet.world.at(T0 + 9000)
    assert fleet.send(B, head=short) == is_first(A)
    fleet.world.at(T0 + 10_500)

    assert fleet.send(C, head=short) == b"+"
    assert fleet.take(2) == [A, C]
    fleet.done(A)
    assert fleet.send(D, head=short) == is_first(C), "the first gave back its own lock only"


@MODES
def test_a_replayed_dead_letter_takes_its_lock_again(fleet: Fleet, head: bytes) -> None:
    fleet.send(A, head=head)
    fleet.take()
    fleet.fetch(Dead(A, "failed", b"", b""))

    assert fleet.world.run(steering.replay(fleet.world.keys, "q", A, b"")) is True

    fleet.sound()
    assert fleet.send(B, head=head) == is_first(A)


@MODES
def test_a_dead_letter_that_another_call_is_by_now_is_not_replayed(fleet: Fleet, head: bytes) -> None:
    fleet.send(A, head=head)
    fleet.take()
    fleet.fetch(Dead(A, "failed", b"", b""))
    fleet.send(B, head=head)
    before = fleet.world.dump()

    assert fleet.world.run(steering.replay(fleet.world.keys, "q", A, b"")) is None

    assert fleet.world.dump() == before


def test_a_revoked_message_gives_its_lock_back_at_once(fleet: Fleet) -> None:
    """Also where it stands until its turn comes."""
    fleet.send(*(raw_id(100 + i) for i in range(400)))
    fleet.send(*(raw_id(1000 + i) for i in range(650)))
    fleet.send(A, head=DONE)

    assert fleet.revoke(A) == "revoked"

    assert A in fleet.world.state()["queue:q"]
    assert fleet.send(B, head=DONE) == b"+"


def test_work_that_comes_back_after_the_time_of_its_lock_takes_it_no_longer(fleet: Fleet) -> None:
    short = more(lock="d10000:t|k", limited=True)
    fleet.send(A, head=short)
    fleet.take()
    fleet.world.at(T0 + 10_500)
    fleet.fetch(Returned(A))

    assert fleet.send(B, head=short) == b"+"


# -- debounce and throttle ---------------------------------------------------------------------------------------


def bounced(wait: int, longest: int = 0) -> bytes:
    return more(lock="d0:t|", debounce=f"{wait}:{longest}", limited=True)


def test_a_debounced_call_waits_and_the_next_takes_its_place_and_puts_it_off(fleet: Fleet) -> None:
    head = bounced(10_000)
    fleet.send(A, head=head)
    first = fleet.world.state()
    assert first["schedule"] == Scores({A: Near(T0 + 10_000)})
    fleet.world.at(T0 + 6000)

    assert fleet.send(B, head=head) == is_first(A)

    state = fleet.world.state()
    assert state["schedule"] == Scores({A: Near(T0 + 16_000)})
    assert list(state["messages"]) == [A]
    assert state["messages"][A][2:10] == first["messages"][A][2:10], "accepted when the first was"
    assert state["messages"][A].endswith(sent(B, head)[1][-30:]), "the arguments of the last"
    assert state["counters"] == {b"q|accepted": b"1", b"q|scheduled": b"1"}


def test_a_debounced_call_is_put_off_until_the_longest_wait_is_over(fleet: Fleet) -> None:
    head = bounced(10_000, 25_000)
    for i in range(4):
        fleet.world.at(T0 + 8000 * i)
        fleet.send(raw_id(i), head=head)

    assert fleet.world.state()["schedule"] == Scores({raw_id(0): Near(T0 + 25_000)})


def test_a_call_after_a_debounced_one_has_come_to_its_turn_begins_a_new_series(fleet: Fleet) -> None:
    head = bounced(10_000)
    fleet.send(A, head=head)
    fleet.world.at(T0 + 11_000)
    fleet.promote()
    assert fleet.send(B, head=head) == b"+"
    assert fleet.take() == [A]
    assert fleet.send(C, head=head) == is_first(B)
    fleet.done(A)

    assert fleet.send(D, head=head) == is_first(B)
    assert list(fleet.world.state()["schedule"]) == [B]


def test_several_debounced_calls_in_one_are_the_last_of_them(fleet: Fleet) -> None:
    head = bounced(10_000)

    fleet.send_all([sent(id_, head) for id_ in (A, B, C)])

    state = fleet.world.state()
    assert list(state["schedule"]) == [A]
    assert state["messages"][A].endswith(sent(C, head)[1][-30:])


def test_a_debounced_call_in_another_queue_takes_the_place_of_the_first_and_runs_from_there(world: World) -> None:
    """Accepted here, superseded there: the ledger of each queue balances after every call."""
    fleet, head = Fleet(world, "q", "urgent"), bounced(10_000)
    fleet.send(A, head=head)

    assert fleet.send(B, head=head, queue="urgent") == is_first(A)
    assert fleet.send(C, head=more(priority=5) + head, queue="urgent") == is_first(A)

    snap = fleet.look()
    assert [snap.counter("q", name) for name in ("accepted", "scheduled", "discarded")] == [1, 0, 1]
    assert [snap.counter("urgent", name) for name in ("accepted", "scheduled", "discarded")] == [1, 1, 0]
    world.at(T0 + 10_500)
    fleet.send(D, queue="urgent")
    fleet.promote()
    assert fleet.take(1) == [A], "with the priority of the last call"
    assert "unique" not in world.names()
    fleet.done(A)


def test_debounced_calls_of_one_chunk_may_name_several_queues(world: World) -> None:
    fleet, head = Fleet(world, "q", "urgent"), bounced(10_000)

    fleet.send_all([sent(A, head), sent(B, head, queue="urgent"), sent(C, head)])
    fleet.send_all([sent(id_, head, queue=queue) for id_, queue in ((D, "urgent"), (E, "q"), (raw_id(9), "urgent"))])

    snap = fleet.look()
    assert [snap.counter(queue, "scheduled") for queue in ("q", "urgent")] == [0, 1]


@pytest.mark.parametrize("how", ["retried", "crashed"])
def test_a_debounced_call_does_not_replace_one_that_has_begun(fleet: Fleet, how: str) -> None:
    """A retry of it waits for its time as well, with its attempts; and so does one under which processes died."""
    head = bounced(10_000)
    fleet.send(A, head=head)
    fleet.world.at(T0 + 10_500)
    assert fleet.take() == [A]
    if how == "retried":
        fleet.fetch(Again(A, message(A, more=head, body=b"second attempt"), 60.0, "retried"))
    else:
        fleet.world.raw("HSET", fleet.world.keys["crashes"], A, 1)
        fleet.world.run(leasing.close(fleet.world.keys, "inc", died=True, alone=True, running=[A]))
    before = fleet.world.state()

    assert fleet.send(B, head=head) == b"+"

    state = fleet.world.state()
    assert state["messages"][A] == before["messages"][A]
    assert state["schedule"].pop(B) == Near(T0 + 20_500)
    assert state["schedule"] == before["schedule"]
    assert fleet.send(C, head=head) == is_first(B)


def test_a_debounced_call_does_not_inherit_deaths_of_another(fleet: Fleet) -> None:
    """Not even of one that an earlier version left under its lock."""
    head = bounced(10_000)
    fleet.send(A, head=head)
    fleet.world.seed({"crashes": {A: b"2"}})

    assert fleet.send(B, head=head) == b"+"
    assert fleet.world.state()["unique"] == {b"t|": b"0 " + B}


def test_a_debounced_call_does_not_replace_work_that_is_unique_in_another_way(fleet: Fleet) -> None:
    """Declared so by earlier code, with the same lock."""
    fleet.send(A, head=more(lock="d0:t|", limited=True), options=b"d60000")
    before = fleet.world.state()

    assert fleet.send(B, head=bounced(10_000)) == b"+"

    assert fleet.world.state()["messages"][A] == before["messages"][A]
    assert fleet.world.state()["schedule"][A] == before["schedule"][A]


@pytest.mark.parametrize("head", [START, bounced(10_000)])
def test_work_that_is_deferred_unstarted_is_unique_again(fleet: Fleet, head: bytes) -> None:
    """Its worker did not know the task."""
    fleet.send(A, head=head)
    fleet.world.at(T0 + 10_500)
    assert fleet.take() == [A]

    fleet.fetch(Again(A, message(A, more=head), 30.0, "deferred"))

    assert fleet.send(B, head=head) == is_first(A)


def test_work_that_is_deferred_is_superseded_by_what_has_come_since(fleet: Fleet) -> None:
    fleet.send(A, head=START)
    fleet.take()
    fleet.send(B, head=START)

    fleet.fetch(Again(A, message(A, more=START), 30.0, "deferred"))

    assert list(fleet.look().table("messages")) == [B]
    assert fleet.look()["result:" + A.decode()] == b"Xsuperseded"


def test_a_throttled_call_is_the_first_until_the_time_is_over_whatever_became_of_it(fleet: Fleet) -> None:
    head = more(lock="t10000:t|")
    fleet.send(A, head=head)
    fleet.take()
    fleet.done(A)
    assert fleet.send(B, head=head) == is_first(A)
    assert 0 < fleet.world.ttl("throttle:t|") <= 10_000
    fleet.world.raw("DEL", fleet.world.keys["throttle:t|"])

    assert fleet.send(C, head=head) == b"+"


def test_a_throttled_message_that_is_returned_does_not_begin_a_new_span(fleet: Fleet) -> None:
    head = more(lock="t10000:t|", limited=True)
    fleet.send(A, head=head)
    fleet.take()
    fleet.world.raw("DEL", fleet.world.keys["throttle:t|"])
    fleet.fetch(Returned(A))

    assert fleet.send(B, head=head) == b"+"


def set_back(fleet: Fleet) -> None:
    """The clock goes back by two hours, and a renewal notices."""
    fleet.renew()
    fleet.world.at(fleet.world.now - 120 * MINUTE)
    fleet.renew()


@pytest.mark.parametrize("head", [more(lock="t10000:t|", limited=True), more(lock="d10000:t|", limited=True)])
def test_a_lock_of_a_time_lasts_as_long_though_the_clock_is_set_back(fleet: Fleet, head: bytes) -> None:
    """Neither two hours longer, nor anew; also when it is set back twice."""
    fleet.send(A, head=head)
    fleet.world.at(T0 + 3000)
    set_back(fleet)
    assert fleet.send(B, head=head) == is_first(A)
    fleet.world.at(fleet.world.now + 3000)
    set_back(fleet)
    assert fleet.send(B, head=head) == is_first(A)

    fleet.world.at(fleet.world.now + 4100)

    assert fleet.send(C, head=head) == b"+"
    assert fleet.send(D, head=head) == is_first(C)
    fleet.world.at(fleet.world.now + 10_100)
    assert fleet.send(D, head=head) == b"+"


def test_a_throttle_ends_by_the_clock_of_the_scripts(fleet: Fleet) -> None:
    head = more(lock="t10000:t|", limited=True)
    fleet.send(A, head=head)
    fleet.world.at(T0 + 10_500)

    assert fleet.send(B, head=head) == b"+"


def test_a_throttle_of_an_earlier_version_holds_until_it_expires(fleet: Fleet) -> None:
    fleet.world.seed({"throttle:t|": A})

    assert fleet.send(B, head=more(lock="t10000:t|", limited=True)) == is_first(A)


def test_a_debounced_call_waits_as_long_though_the_clock_is_set_back(fleet: Fleet) -> None:
    fleet.send(A, head=bounced(10_000))
    set_back(fleet)

    assert fleet.promote() == pytest.approx(10, abs=0.01)
    fleet.world.at(fleet.world.now + 10_100)
    assert fleet.take() == [A]


# -- length ------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_changes_nothing(world: World) -> None:
    fleet = Fleet(world, incarnations=())
    assert fleet.send(A, B, C, options=b"m2") == b"++!"
    before = world.state()

    assert fleet.send(D, options=b"m2") == b"!"
    assert fleet.send(D, head=DONE, options=b"m2") == b"!"

    assert without(world.state(), "producer:p") == without(before, "producer:p")


def test_what_waits_in_any_way_counts_and_what_runs_or_is_scheduled_does_not(fleet: Fleet) -> None:
    fleet.publish("t", "k 0.000000 1 1")
    fleet.send(A, B, head=more(_1="x"))
    fleet.send(C, head=more(priority=1))
    fleet.send(D, options=b"d60000")
    assert fleet.take(9) == [C, A], "one stands in a line now"

    assert fleet.send(E, raw_id(6), options=b"m2") == b"+!"


def test_a_call_that_is_another_finds_it_in_a_full_queue(fleet: Fleet) -> None:
    fleet.send(A, head=DONE, options=b"m1")

    assert fleet.send(B, head=DONE, options=b"m1") == is_first(A)


def test_a_debounced_call_needs_no_room_to_take_the_place_of_another(fleet: Fleet) -> None:
    fleet.send(A, head=bounced(5000), options=b"m1")
    fleet.send(B, options=b"m1")

    assert fleet.send(C, head=bounced(5000), options=b"m1") == is_first(A)
    assert fleet.world.state()["messages"][A].endswith(sent(C, bounced(5000))[1][-30:])


def test_there_is_room_again_when_one_was_taken(fleet: Fleet) -> None:
    fleet.send(A, B, options=b"m2")
    fleet.take()

    assert fleet.send(C, D, options=b"m2") == b"+!"
    assert fleet.look().counter("q", "accepted") == 3


def test_a_repeated_id_is_refused_before_anything_else(fleet: Fleet) -> None:
    fleet.send(A, head=DONE, options=b"m1")

    assert fleet.send(A, head=DONE, options=b"m1") == b"="


def test_expiry_and_lock_go_together(fleet: Fleet) -> None:
    fleet.send(A, head=DONE, options=b"x%d" % MINUTE)

    assert fleet.send(B, head=DONE, options=b"x%d" % MINUTE) == is_first(A)
    assert fleet.take() == [A]
