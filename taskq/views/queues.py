"""What there is in every queue, and what holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taskq.broker.commands import looking
from taskq.broker.commands.looking import Broken, Paused, QueueSurvey
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue.

    Attributes:
        app: The app it is of.
        name: Its name.
        survey: Its ledger, and how much is in which place.
        paused: What of it is paused: all of it, or tasks that share it.
        broken: Breakers of its tasks that let nothing pass.
        served: Whether a live worker takes from it.
    """

    app: str
    name: str
    survey: QueueSurvey
    paused: Sequence[Paused] = ()
    broken: Sequence[Broken] = ()
    served: bool = True

    @property
    def failed(self) -> int:
        """How many times a message failed for good, whatever became of it since."""
        return self.survey.counters.get("failed", 0) + self.survey.counters.get("died", 0)

    @property
    def waiting(self) -> int:
        """Messages that could be taken, or that wait at the limits of their tasks."""
        return self.survey.pending + self.survey.suspects + self.survey.gated


def queues_of(keys: Keys) -> Protocol[list[Queue]]:
    """Look at every queue of an app, by name; also at those that were paused before anything was sent."""
    homes: dict[str, str] = yield looking.task_queues(keys)
    paused: dict[str, list[Paused]] = {}
    for pause in (yield looking.pauses(keys)):
        queue = homes.get(pause.name, pause.name) if pause.is_task else pause.name
        paused.setdefault(queue, []).append(pause)
    broken: dict[str, list[Broken]] = {}
    for breaker in (yield looking.broken(keys)):
        broken.setdefault(homes.get(breaker.task, breaker.task), []).append(breaker)
    surveys: dict[str, QueueSurvey] = yield looking.survey(keys)
    served: set[str] = yield looking.served_queues(keys)
    return [
        Queue(
            keys.app,
            name,
            surveys.get(name) or QueueSurvey({}),
            paused.get(name, ()),
            broken.get(name, ()),
            name in served,
        )
        for name in sorted({*surveys, *paused, *broken})
    ]
