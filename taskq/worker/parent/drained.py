"""What is left when a worker with ``--drain`` can do no more, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from taskq.broker.commands import looking
from taskq.broker.commands.looking import QueueSurvey
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.views.why import moment, one_line

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


def left_over(keys: Keys, plan: Plan, incarnations: Sequence[str]) -> Protocol[Left | None]:
    """Say what the worker's queues hold; None as long as some of it runs, or can run now or in a few seconds."""
    backlog = yield looking.backlog(keys, plan.queues, [queues.id for queues in plan.sets], incarnations)
    if not backlog.stuck:
        return None
    survey = yield looking.survey(keys)
    found = {queue: survey[queue] for queue in sorted(plan.queues) if queue in survey}
    lines = [
        f"{what} in queue {queue}{why}"
        for queue, there in found.items()
        for what, why in ((_waits(there), _why(there)), (_later(there), ""))
        if what
    ]
    return Left(sum(there.pending + there.gated + there.suspects for there in found.values()), lines)


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
