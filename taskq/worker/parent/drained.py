"""What is left when a worker with ``--drain`` can do no more, and why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from taskq.broker.commands import looking
from taskq.broker.commands.looking import Backlog, QueueSurvey
from taskq.broker.onward import carry_all
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import BrokerRefused
from taskq.views.words import moment, one_line

if TYPE_CHECKING:
    from taskq.worker.plan import Plan


class Left(NamedTuple):
    """What was not run.

    Attributes:
        waiting: Messages that wait in queues and cannot run.
        lines: What there is, a line for each queue; of messages that are scheduled for later, too.
    """

    waiting: int
    lines: list[str]


def left_over(partitions: Topology, plan: Plan, incarnations: Sequence[str]) -> Protocol[Left | None]:
    """Say what the worker's queues hold; None as long as some of it runs, or can run now or in a few seconds."""
    with suppress(BrokerRefused):  # what cannot be carried over stays the dead letter that it is
        if (yield from carry_all(partitions)):
            return None
    found: dict[str, QueueSurvey] = {}
    for keys in partitions.all * (1 if len(partitions.all) == 1 else 2):  # what ran in one may have sent to another
        backlog = yield looking.backlog(keys, plan.queues, [queues.id for queues in plan.sets], incarnations)
        if not backlog.stuck:
            return None
        survey = yield looking.survey(keys)
        found |= {queue: survey[queue] for queue in sorted(plan.queues) if queue in survey}
    lines = [
        f"{what} in queue {queue}{why}"
        for queue, there in found.items()
        for what, why in ((_waits(there), _why(there)), (_later(there), ""))
        if what
    ]
    return Left(sum(there.pending + there.gated + there.suspects for there in found.values()), lines)


def backlog_of(partitions: Topology, queues: Sequence[str]) -> Protocol[Backlog]:
    """Say how much waits in some queues, in all partitions."""
    each: list[Backlog] = []
    for keys in partitions.all:
        each.append((yield looking.backlog(keys, queues)))
    return Backlog(sum(one.pending for one in each), max(one.oldest for one in each), sum(one.suspects for one in each))


def _waits(there: QueueSurvey) -> str:
    plain = there.pending + there.gated
    parts = [f"{plain} waiting"] if plain else []
    parts += [f"{there.suspects} waiting to run alone"] if there.suspects else []
    return " and ".join(parts)


def _later(there: QueueSurvey) -> str:
    return f"{there.scheduled} scheduled for later" if there.scheduled else ""


def _why(there: QueueSurvey) -> str:
    pause = there.paused
    if pause is None:
        return ": limits or a pause of their tasks let none of them pass now (taskq why ID says which)"
    until = f"until {moment(pause.until * 1000)}" if pause.until else "until it is resumed"
    reason = f": {one_line(pause.reason)}" if pause.reason else ""
    return f", which was paused by {one_line(pause.author)} {until}{reason}"
