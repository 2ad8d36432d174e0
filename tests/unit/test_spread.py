"""What a caller is told of calls that went to several partitions, when some of them failed."""

from __future__ import annotations

from taskq import BrokerUnavailable, EnqueueUncertain
from taskq.broker.spread import _failed
from taskq.errors import BrokerRefused

ONE, TWO = ((raw_id, b"", b"") for raw_id in (b"one".ljust(16), b"two".ljust(16)))


def test_what_was_not_sent_beside_what_was_accepted_is_uncertain() -> None:
    """Else the caller would believe that nothing was accepted, and send all of it again."""
    error = _failed([(BrokerUnavailable("no answer"), [ONE])], 3)

    assert isinstance(error, EnqueueUncertain)
    assert str(error) == "no answer; 2 of 3 calls, to other partitions, were accepted"
    assert len(error.task_ids) == 1


def test_what_was_not_sent_at_all_is_unavailable_and_what_was_refused_is_refused() -> None:
    both = [(BrokerUnavailable("no answer"), [ONE]), (BrokerUnavailable("none"), [TWO])]
    assert type(_failed(both, 2)) is BrokerUnavailable
    assert type(_failed([(BrokerRefused("no right"), [ONE])], 2)) is BrokerRefused
