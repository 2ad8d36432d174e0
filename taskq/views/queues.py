"""What is in every queue, and what holds it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskq.broker.commands import looking
from taskq.broker.commands.looking import Broken, Paused, QueueSurvey
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.views.workers import workers_of

#: Queues looked at in one call; seconds over which a pace is told, at least and at most.
_SOME, _SHORTEST, _LONGEST = 500, 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a queue went lately.

    Attributes:
        seconds: Over which time: from half a minute to some minutes.
        accepted: Messages that came in that time.
        ended: Messages that left for good, or failed for good, in that time.
    """

    seconds: float
    accepted: int
    ended: int


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue.

    Attributes:
        app: The app it is of.
        name: Its name.
        partition: In which partition of the app it is; 0 where there is only one.
        survey: Its ledger, and how much is in which place.
        paused: What of it is paused: all of it, or tasks that share it.
        broken: Breakers of its tasks that let nothing pass.
        served: Whether a live worker takes from it.
        workers: Names of those that do.
        oldest: For how many seconds its next message has waited; None if nothing waits.
        pace: How fast it went lately; None if nobody has looked before.
    """

    app: str
    name: str
    partition: int
    survey: QueueSurvey
    paused: Sequence[Paused] = ()
    broken: Sequence[Broken] = ()
    served: bool = True
    workers: Sequence[str] = ()
    oldest: float | None = None
    pace: Pace | None = None

    @property
    def failed(self) -> int:
        """How many times a message failed for good, whatever became of it since."""
        return self.survey.counters.get("failed", 0) + self.survey.counters.get("died", 0)

    @property
    def waiting(self) -> int:
        """Messages that could be taken, or that wait at the limits of their tasks."""
        return self.survey.pending + self.survey.suspects + self.survey.gated


def queues_of(partitions: Topology) -> Protocol[list[Queue]]:
    """Look at every queue of an app, by name; also at those that were paused before anything was sent."""
    workers: dict[str, list[str]] = {}
    for worker in (yield from workers_of(partitions, held=False)):
        for queue in worker.queues:
            workers.setdefault(queue, []).append(worker.name)
    found: list[Queue] = []
    for keys in partitions.all:
        found += yield from _queues_in(keys, partitions, workers)
    return sorted(found, key=lambda queue: queue.name)


def _queues_in(keys: Keys, partitions: Topology, workers: Mapping[str, Sequence[str]]) -> Protocol[list[Queue]]:
    """Look at the queues of one partition; a task that is paused is so in all of them."""
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
    names = sorted({*surveys, *(name for name in (*paused, *broken) if partitions.of(name) == keys)})
    ages: dict[str, float] = {}
    for at in range(0, len(names), _SOME):
        ages |= yield looking.ages(keys, names[at : at + _SOME])
    earlier, seconds = yield from _earlier(keys)
    return [
        Queue(
            app=keys.app,
            name=name,
            partition=keys.partition,
            survey=(survey := surveys.get(name) or QueueSurvey({})),
            paused=paused.get(name, ()),
            broken=broken.get(name, ()),
            served=name in served,
            workers=workers.get(name, ()),
            oldest=ages.get(name),
            pace=_pace(survey.counters, earlier.get(name, {}), seconds) if seconds else None,
        )
        for name in names
    ]


def _earlier(keys: Keys) -> Protocol[tuple[dict[str, dict[str, int]], float]]:
    """Return the counters of a while ago, and how many seconds that is; 0 if there are none that tell anything."""
    now: float = yield looking.server_time()
    for number in (1, 2):
        kept: looking.Counted | None = yield looking.minute(keys, number)
        if kept is not None and _SHORTEST <= now - kept.at <= _LONGEST:
            return kept.counters, now - kept.at
    return {}, 0.0


def _pace(now: Mapping[str, int], earlier: Mapping[str, int], seconds: float) -> Pace:
    def more(*counters: str) -> int:
        return max(0, sum(now.get(name, 0) - earlier.get(name, 0) for name in counters))

    return Pace(seconds, more("accepted"), more("done", "failed", "died", "discarded"))
