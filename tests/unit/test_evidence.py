"""The verdict over the books: what is missing or unexplained is found, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import replace

from taskq.broker.commands.looking import QueueSurvey
from taskq.showcase.evidence import Books, Call, Fault, Rerun, delays
from taskq.showcase.mailserver import ACCEPTED, NOT_NOW, REFUSED, Attempt, MailBook
from taskq.showcase.report import ledger
from taskq.showcase.trouble import Kind


def books(*attempts: Attempt, faults: tuple[Fault, ...] = (), dead: dict[str, str] | None = None) -> Books:
    """Three calls, a to c, to addresses of the same names, and a ledger in which all are done but the dead."""
    calls = {name: Call(name, "mails", 0.0) for name in "abc"}
    dead = dead or {}
    survey = QueueSurvey({"accepted": 3, "done": 3 - len(dead)}, dead=len(dead))
    book = MailBook()
    for attempt in sorted(attempts, key=lambda attempt: attempt.at):
        book.enter(attempt)
    return Books(calls, book, list(faults), dead, {"mails": survey})


def sent(name: str, pid: int = 1, at: float = 1.0, answer: int = ACCEPTED) -> Attempt:
    return Attempt(name, pid, at, answer)


def killed(pid: int, *held: str, at: float = 2.0) -> Fault:
    return Fault(Kind.CHILD, "", at, at, frozenset([pid]), frozenset(held))


def stopped(pid: int, *held: str, at: float = 2.0, until: float = 6.0) -> Fault:
    return Fault(Kind.STOP, "", at, until, frozenset([pid]), frozenset(held))


def away(at: float, until: float, *awaited: int) -> Fault:
    return Fault(Kind.SERVER, "", at, until, awaited=frozenset(awaited))


ALL = sent("a"), sent("b"), sent("c")


# -- what was lost -------------------------------------------------------------------------------------------------


def test_when_every_mail_arrived_once_there_is_no_problem() -> None:
    assert books(*ALL).problems == []
    assert books(*ALL).reruns == []


def test_a_mail_that_is_nowhere_is_lost() -> None:
    hole = books(sent("a"), sent("c"))

    assert hole.lost == ["b"]
    assert "1 mails are missing: b" in hole.problems


def test_a_mail_that_broke_off_has_not_arrived() -> None:
    assert books(sent("a"), sent("b", answer=0), sent("c")).lost == ["b"]


def test_a_dead_letter_that_the_mail_server_refused_is_not_lost() -> None:
    assert books(sent("a"), sent("b", answer=REFUSED), sent("c"), dead={"b": "failed"}).problems == []


def test_a_dead_letter_that_it_did_not_refuse_has_no_cause() -> None:
    assert books(sent("a"), sent("c"), dead={"b": "failed"}).problems == ["dead without a cause: b"]


def test_a_dead_letter_for_crashes_needs_as_many_faults() -> None:
    faults = [killed(pid, "b", at=pid) for pid in (2, 3, 4)]

    assert books(sent("a"), sent("c"), dead={"b": "crashed"}, faults=tuple(faults)).problems == []
    assert books(sent("a"), sent("c"), dead={"b": "crashed"}, faults=tuple(faults[:2])).problems == [
        "dead without a cause: b"
    ]


# -- what the ledger says ------------------------------------------------------------------------------------------


def test_a_ledger_that_does_not_add_up_is_a_problem() -> None:
    made = books(*ALL)
    made.queues["mails"] = QueueSurvey({"accepted": 3, "done": 2})

    assert made.problems == [
        "queue mails: the ledger is off by 1",
        "taskq says 2 are done, the mail server has 3",
    ]


def test_a_message_of_which_only_the_id_was_left_is_a_problem() -> None:
    made = books(*ALL)
    made.queues["mails"] = QueueSurvey({"accepted": 3, "done": 2, "dangling": 1})

    assert "queue mails: of 1 messages only the id was left, they were never run" in made.problems


def test_calls_that_the_ledger_does_not_know_are_a_problem() -> None:
    made = books(*ALL)
    made.calls["d"] = Call("a", "others", 0.0)

    assert "queue others: taskq says it accepted 0, but 1 calls returned" in made.problems


def test_what_has_not_ended_is_a_problem() -> None:
    made = books(sent("a"), sent("b"))
    made.queues["mails"] = QueueSurvey({"accepted": 3, "done": 2}, suspects=1)

    assert "queue mails: 1 messages had not ended when nothing moved any more" in made.problems


def test_one_done_twice_is_a_problem() -> None:
    made = books(*ALL)
    made.queues["mails"].counters["done"] = 4

    assert "taskq says 4 are done, the mail server has 3" in made.problems


def test_the_ledger_that_is_shown_adds_up() -> None:
    made = books(*ALL)
    counters = {"accepted": 40, "done": 9, "failed": 8, "discarded": 7, "purged": 6, "scheduled": 4, "retried": 90}
    made.queues["more"] = QueueSurvey(counters, pending=1, suspects=1, dead=1, processing=1)

    rows = list(ledger(made).values())

    assert rows[0] == [3, 40]
    assert [sum(column) for column in zip(*rows[1:], strict=True)] == rows[0]
    assert ledger(made)["off by"] == [0, 2]


# -- what ran again ------------------------------------------------------------------------------------------------


def test_a_run_again_after_its_process_was_killed_is_explained_by_that() -> None:
    fault = killed(1, "a")

    made = books(*ALL, sent("a", pid=2, at=3.0), faults=(fault,))

    assert made.reruns == [Rerun("a", fault, twice=True)]
    assert made.problems == []


def test_a_run_that_broke_off_made_the_mail_run_again_but_not_arrive_twice() -> None:
    fault = killed(1, "a")

    made = books(sent("a", answer=0), sent("a", pid=2, at=3.0), sent("b"), sent("c"), faults=(fault,))

    assert made.reruns == [Rerun("a", fault, twice=False)]


def test_a_run_again_without_a_fault_is_unexplained() -> None:
    made = books(*ALL, sent("a", pid=2, at=3.0))

    assert made.unexplained == ["a"]
    assert made.problems == ["1 runs have no fault to explain them: a"]


def test_a_fault_explains_nothing_that_its_process_did_not_hold() -> None:
    assert books(*ALL, sent("a", pid=2, at=3.0), faults=(killed(1, "b"),)).unexplained == ["a"]


def test_a_fault_explains_no_run_of_another_process() -> None:
    assert books(*ALL, sent("a", pid=2, at=3.0), faults=(killed(3, "a"),)).unexplained == ["a"]


def test_a_fault_explains_no_run_long_after_it() -> None:
    assert books(sent("a", at=4.0), sent("a", pid=2, at=5.0), faults=(killed(1, "a"),)).unexplained == ["a"]


def test_a_fault_explains_one_run_of_a_mail() -> None:
    runs = sent("a", pid=2, at=3.0), sent("a", pid=3, at=4.0)

    assert books(*ALL, *runs, faults=(killed(1, "a"),)).unexplained == ["a"]
    assert books(*ALL, *runs, faults=(killed(1, "a"), killed(2, "a", at=3.5))).unexplained == []


def test_what_a_stopped_process_sends_when_it_wakes_is_explained_by_the_stop() -> None:
    made = books(sent("a", pid=2, at=5.0), sent("a", pid=1, at=6.1), faults=(stopped(1, "a"),))

    assert [rerun.fault for rerun in made.reruns] == made.faults


def test_cut_connections_and_a_killed_server_explain_nothing() -> None:
    cut = Fault(Kind.CUT, "", 2.0, 2.0, awaited=frozenset([1, 2]))

    assert books(*ALL, sent("a", pid=2, at=3.0), faults=(cut, away(2.0, 2.5, 1, 2))).unexplained == ["a"]


def test_a_mail_that_was_told_to_come_again_may_come_again() -> None:
    made = books(sent("a", answer=NOT_NOW), sent("a", pid=2, at=3.0), sent("b"), sent("c"))

    assert made.reruns == []
    assert made.problems == []


# -- how long it took ----------------------------------------------------------------------------------------------


def waits(fault: Fault, *attempts: Attempt, others: tuple[Fault, ...] = ()) -> list[float]:
    made = books(*attempts, faults=(fault, *others))
    return sorted(delays(fault, made.book, made.faults, made.calls))


def test_a_held_mail_is_recovered_when_another_process_offers_it() -> None:
    fault = killed(1, "a", "b")

    assert waits(fault, sent("a"), sent("a", pid=2, at=2.5), sent("b", pid=3, at=3.0)) == [0.5, 1.0]
    assert waits(fault, sent("a"), sent("a", pid=2, at=2.5)) == [0.5, math.inf]


def test_a_stopped_process_that_goes_on_recovers_by_itself() -> None:
    fault = stopped(1, "a", until=6.0)

    assert waits(fault, sent("a")) == [4.0]
    assert waits(replace(fault, ended=math.inf), sent("a")) == [math.inf]


def test_a_mail_whose_process_was_killed_three_times_is_not_waited_for() -> None:
    first, second, third = killed(1, "a"), killed(2, "a", at=3.0), killed(3, "a", at=4.0)

    assert waits(second, *ALL, others=(first,)) == [math.inf]
    assert waits(third, *ALL, others=(first, second)) == []


def test_time_in_which_the_server_is_away_does_not_count() -> None:
    fault = killed(1, "a")

    assert waits(fault, sent("a", pid=2, at=6.0), others=(away(3.0, 4.0),)) == [2.0]
    assert waits(fault, sent("a", pid=2, at=2.5), others=(away(3.0, 4.0),)) == [0.5]
    assert waits(fault, sent("a"), others=(away(3.0, math.inf),)) == [math.inf]


def test_a_process_has_gone_on_when_it_sends_a_mail() -> None:
    assert waits(away(2.0, 3.0, 1, 2), *ALL, sent("a", pid=1, at=3.5), sent("b", pid=2, at=4.0)) == [0.5, 1.0]
    assert waits(away(2.0, 3.0, 1, 2), *ALL, sent("a", pid=1, at=3.5)) == [0.5, math.inf]
    assert waits(away(2.0, math.inf, 1), *ALL) == [math.inf]


def test_a_process_that_is_hit_before_it_went_on_is_not_waited_for() -> None:
    assert waits(away(2.0, 3.0, 1), *ALL, others=(killed(1, at=3.2),)) == []
    assert waits(away(2.0, 3.0, 1), *ALL, sent("a", at=3.1), others=(killed(1, at=3.2),)) == [3.1 - 3.0]
    assert waits(away(2.0, 3.0, 1), *ALL, sent("a", at=8.0), others=(stopped(1, at=3.2, until=7.0),)) == []


def test_the_longest_wait_leaves_out_those_that_were_told_to_come_again() -> None:
    made = books(sent("a", at=2.0), sent("a", at=9.0), sent("b", answer=NOT_NOW), sent("b", at=5.0), sent("c", at=3.0))

    assert made.longest_wait == 3.0
