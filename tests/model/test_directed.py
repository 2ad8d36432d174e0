"""Schedules that once went wrong, or would: each the shortest way to the fault it stands for."""

from __future__ import annotations

import pytest

from taskq.broker.commands import holding, producing, steering
from taskq.broker.commands.holding import Lost, Stale
from taskq.broker.commands.outcomes import words
from taskq.broker.faults import Unanswered
from taskq.errors import BrokerUnavailable, EnqueueUncertain
from taskq.message.outcome import Again, Outcome, Returned
from taskq.worker.parent.closing import Closing
from taskq.worker.seats import digest
from tests.model.audit import violations
from tests.model.system import BOTH, IDS, LEASE, ONE, STEP, System, stored

A, B, C = IDS


@pytest.mark.parametrize(
    "faults", [["before", "after"], ["late", "after", "after"], ["away", "before", "after", "before"]]
)
def test_an_outcome_is_not_dropped_when_the_answer_of_the_sync_is_lost_too(system: System, faults: list[str]) -> None:
    """The call did not run, the sync said so, and nobody heard it: the sync that follows must say the same."""
    system.send([A])
    session = system.session()
    system.exchange(session, want=1)
    system.line.faults.extend(faults)

    system.exchange(session, [(A, b"")])

    after = system.look()
    assert after.counter("q", "done") == 1
    assert (after.table("messages"), after.under("processing"), violations(after)) == ({}, {}, [])


@pytest.mark.parametrize("faults", [["after"], ["after", "before"], ["after", "after"], ["after", "after", "after"]])
def test_an_outcome_takes_effect_once_when_the_answers_are_lost(system: System, faults: list[str]) -> None:
    system.send([A])
    session = system.session()
    system.exchange(session, want=1)
    system.line.faults.extend(faults)

    assert system.exchange(session, [(A, b"S")]).fenced == 0

    assert system.look().counter("q", "done") == 1


@pytest.mark.parametrize("outcome", [Again(A, stored(A)[:2] + bytes(8) + stored(A)[2:], 0, "retried"), Returned(A)])
def test_what_a_lost_call_gave_back_and_took_again_is_not_orphaned(system: System, outcome: Outcome) -> None:
    """The lane believes that it holds no more of it, and the server that it does."""
    system.send([A])
    session = system.session()
    system.exchange(session, want=1)
    system.line.faults.append("after")

    batch = system.exchange(session, [outcome], want=1)

    assert batch.messages[::2] == [A]
    assert session.held == set(system.look().held(session.incarnation)) == {A}
    assert system.look().counter("q", "returned") == (2 if isinstance(outcome, Returned) else 1)


def test_several_that_are_over_their_time_limit_at_once_all_end_as_their_policy_says(system: System) -> None:
    """Coroutines share a process: when it is killed for one, the others may be overdue as well."""
    system.send([A, B, C])
    session = system.session()
    system.exchange(session, want=3)
    overdue = frozenset(map(digest, (A, B)))

    system.line.drive(system.closer.close(Closing(False, [(session.incarnation, overdue)], overdue)))

    after = system.look()
    # Their tasks are not known here, so they wait for somebody who knows them.
    assert after.lines() == {("q", "t#t"): [A], ("q", "u#t"): [B]}
    assert (after.row("queue:q"), after.row("queue:p")) == ([], [C])


def test_a_reaper_comes_again_at_once_until_all_that_is_lost_is_recovered(system: System) -> None:
    """Its caller has leases to renew in between."""
    for _ in range(25):
        system.session()
    survivor = system.session()
    system.end_lease(survivor.incarnation)

    assert [system.line.drive(system.reaper.reap()) for _ in range(2)] == [0.0, 0.0]
    assert system.line.drive(system.reaper.reap()) > 0

    assert list(system.look().table("calls")) == [survivor.incarnation.encode()]


def test_a_reaper_comes_again_when_the_next_lease_ends(system: System) -> None:
    system.session()
    assert system.line.drive(system.reaper.reap()) == system.reaper.interval

    system.pass_time(4)

    left = (LEASE - 4 * STEP) / 1000
    assert system.line.drive(system.reaper.reap()) == pytest.approx(left, abs=0.5)


def test_a_promoter_comes_again_at_once_until_all_that_is_due_is_moved(system: System) -> None:
    """Its caller has leases to renew in between."""
    ids = [b"%016d" % n for n in range(1200)]
    system.send(ids, b" d10000", queue="q")
    system.pass_time(4)

    assert [system.line.drive(system.reaper.promote()) for _ in range(2)] == [0.0, 0.0]
    assert system.line.drive(system.reaper.promote()) > 0

    after = system.look()
    assert (len(after.row("queue:q")), after.table("schedule")) == (1200, {})


@pytest.mark.parametrize("faults", [["after"], ["before", "after"], ["late", "after", "after"], ["away", "after"]])
def test_a_send_is_repeated_under_its_number_until_it_is_answered(system: System, faults: list[str]) -> None:
    system.line.faults.extend(faults)

    assert system.send([A]) == b"+"
    assert system.look().row("queue:q") == [A]
    for late in system.line.late:
        system.line.execute(late)
    assert system.look().counter("q", "accepted") == 1


def test_a_first_try_made_elsewhere_is_repeated_under_its_number(system: System) -> None:
    """``delay()`` tries once by a path of its own, and hands over when that fails."""
    numbering = system.producer
    messages = [(A, stored(A), b"")]
    numbering.number += 1
    system.line.execute(producing.enqueue(system.keys, numbering.producer, numbering.number, messages))

    assert system.line.drive(numbering.send(messages, Unanswered("lost"))) == b"+"
    assert system.look().row("queue:q") == [A]


@pytest.mark.parametrize(
    ("faults", "error"), [(["away"], BrokerUnavailable), (["before"], EnqueueUncertain), (["after"], EnqueueUncertain)]
)
def test_giving_up_says_whether_it_may_have_been_accepted(
    system: System, faults: list[str], error: type[Exception]
) -> None:
    system.producer.seconds = -1.0
    system.line.faults.extend(faults)

    with pytest.raises(error):
        system.send([A])


def test_a_late_settle_after_redelivery_changes_nothing(system: System) -> None:
    first = system.session()
    system.send([A])
    system.exchange(first, want=1)
    system.end_lease()
    system.renew()
    system.line.drive(system.reaper.reap())
    second = system.session(serve=False)
    system.exchange(second, want=1)
    before = system.look()
    assert before.held(second.incarnation).keys() == {A}

    with pytest.raises(Lost):
        system.exchange(first, [(A, b"S")])

    assert system.look().dump == before.dump


def test_a_lease_that_ended_but_was_not_reaped_still_settles(system: System) -> None:
    session = system.session()
    system.send([A])
    system.exchange(session, want=1)
    system.end_lease()

    assert system.exchange(session, [(A, b"S")]).fenced == 0
    assert system.look().counter("q", "done") == 1


def test_a_stale_close_after_redelivery_changes_nothing(system: System) -> None:
    first = system.session()
    system.send([A])
    system.exchange(first, want=1)
    system.crash(first.incarnation, [A])
    second = system.session(serve=False)
    system.exchange(second, want=1)
    before = system.look()

    assert system.crash(first.incarnation, [A]) is False

    assert system.look().dump == before.dump


def test_a_repeated_registration_does_not_let_old_calls_in_again(system: System) -> None:
    """The answer of a registration is lost, the repeat arrives when calls were made already."""
    system.send([A])
    session = system.session()
    system.exchange(session, want=1)
    late = holding.fetch(system.keys, session.incarnation, 1, words([(A, b"S")], 1000))
    system.line.execute(holding.register(system.keys, session.incarnation, LEASE, b"info", BOTH))

    with pytest.raises(Stale):
        system.line.execute(late)


def test_a_parent_says_what_ran_and_blames_nobody_in_company(system: System) -> None:
    """Of two messages held, one ran, and so did a coroutine in another lane of the process."""
    system.send([A, B])
    session = system.session()
    system.exchange(session, want=2)

    assert system.crash(session.incarnation, [A], company=1) is True

    after = system.look()
    assert (after.row("suspects:q"), after.row("queue:q"), after.table("crashes")) == ([A], [B], {})


def test_a_parent_blames_what_had_the_process_for_itself(system: System) -> None:
    system.send([A, B])
    session = system.session()
    system.exchange(session, want=2)

    assert system.crash(session.incarnation, [A]) is True

    after = system.look()
    assert (after.row("suspects:q"), after.row("queue:q"), after.table("crashes")) == ([A], [B], {A: b"1"})


def test_a_suspect_that_is_retried_at_once_is_still_a_suspect(system: System) -> None:
    system.send([A])
    first = system.session()
    system.exchange(first, want=1)
    system.crash(first.incarnation, [A])
    second = system.session(serve=False)
    system.exchange(second, want=1)

    system.exchange(second, [Again(A, stored(A)[:2] + bytes(8) + stored(A)[2:], 0.0, "retried")])

    after = system.look()
    assert (after.row("suspects:q"), after.row("queue:q"), violations(after)) == ([A], [], [])


def test_what_a_refused_call_took_is_not_orphaned(system: System) -> None:
    """A script that an operator's key of the wrong type stops half-way has taken from the queues before it."""
    system.send([A])
    session = system.session()
    system.raw("ZADD", system.keys["ready:both"], 9e15, "p")
    system.raw("SET", system.keys["queue:p"], "not a list")
    system.line.mended = lambda: system.raw("DEL", system.keys["queue:p"])

    batch = system.exchange(session, want=3)

    assert batch.messages[::2] == [A]
    assert session.held == set(system.look().held(session.incarnation)) == {A}


def test_what_a_lost_call_took_goes_back_in_the_order_of_acceptance(system: System) -> None:
    """Ids that callers give do not rise."""
    ids = [b"z", b"a", b"m"]
    for id_ in ids:
        system.send([id_], queue="q")
    session = system.session()
    system.line.faults.append("after")

    assert system.exchange(session, want=3).messages[::2] == ids


def test_suspects_behind_many_at_a_closed_gate_come_up_when_one_of_those_is_revoked(system: System) -> None:
    """A child looks at the first few only; the others stand behind them."""
    many = [b"suspect-%02d" % n for n in range(32)]
    system.send(many, queue="q")
    system.send([B])
    first = system.session()
    system.exchange(first, want=33)
    system.crash(first.incarnation, [*many, B])
    system.line.execute(steering.pause(system.keys, "t", 0, "me", ""))
    alone = system.session(serve=False)
    assert system.exchange(alone, want=1).messages == []

    system.line.execute(steering.revoke(system.keys, many[0], ""))

    assert violations(system.look()) == []
    assert system.exchange(alone, want=1).messages[::2] == [B]


def test_a_set_of_queues_that_is_new_is_told_of_lines_that_are_open(system: System) -> None:
    """Its task was resumed while nobody was there whom it could tell."""
    system.send([B])
    system.line.execute(steering.pause(system.keys, "u", 0, "me", ""))
    before = system.session(ONE)
    assert system.exchange(before, want=1).messages == []
    system.line.execute(steering.resume(system.keys, "u"))

    after = system.session(BOTH)

    assert system.exchange(after, want=1).messages[::2] == [B]
