"""What the second thread of a main lane does while a task lasts."""

from __future__ import annotations

from taskq.broker.protocol import boottime
from taskq.message.outcome import Outcome, Returned
from taskq.runs.delivery import Delivery, Taken
from taskq.worker.child.settler import Hand, look

DONE: Outcome = (b"first", b"")
BEHIND = Delivery(b"second", b"", Taken(0.0, 0.0))


def hand(lasted: float, batch: float = 0.0) -> Hand:
    """A lane whose task has run for so many seconds, in a batch that began that long ago."""
    made = Hand()
    made.started = boottime() - lasted
    made.batch_began = boottime() - max(lasted, batch)
    made.outcomes.append(DONE)
    made.buffer.append(BEHIND)
    return made


def looked(made: Hand) -> bool:
    """Look once; says whether anything was settled."""
    settled: list[bool] = []
    look(made, lambda: settled.append(True))
    return bool(settled)


def test_nothing_is_done_behind_a_task_that_has_just_begun() -> None:
    made = hand(0.0)

    assert not looked(made)
    assert (list(made.outcomes), list(made.buffer)) == ([DONE], [BEHIND])


def test_what_ended_before_a_task_that_lasts_is_settled() -> None:
    made = hand(0.010)

    assert looked(made)
    assert list(made.buffer) == [BEHIND], "it may still come to its turn soon"


def test_what_waits_behind_a_task_that_lasts_longer_is_returned() -> None:
    made = hand(0.030)

    assert looked(made)
    assert (list(made.outcomes), list(made.buffer)) == ([DONE, Returned(b"second")], [])


def test_what_waits_at_the_end_of_a_long_batch_is_returned() -> None:
    """Many tasks, none of which is slow, keep those behind them as well."""
    made = hand(0.0, batch=0.050)

    assert not looked(made)
    assert (list(made.outcomes), list(made.buffer)) == ([DONE, Returned(b"second")], [])


def test_what_waits_is_returned_when_the_lane_is_to_stop() -> None:
    made = hand(0.010)
    made.stopping = True

    assert looked(made)
    assert list(made.buffer) == []


def test_between_two_batches_the_main_thread_settles_by_itself() -> None:
    made = hand(0.030)
    made.started = 0.0

    assert not looked(made)
    assert list(made.buffer) == [BEHIND]
