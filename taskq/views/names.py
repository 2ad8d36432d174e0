"""Names that people type, and whether a server knows them. A typo must not look like "nothing found"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from taskq.broker.commands import looking
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology, keys_of
from taskq.errors import ConfigError
from taskq.spelling import guess


@dataclass(frozen=True, slots=True)
class Known:
    """The names that apps have had so far.

    Attributes:
        tasks: Of tasks that a worker has had, or that something was sent to.
        queues: Of queues that a task has, or that something was sent to.
    """

    tasks: frozenset[str]
    queues: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """Names of both kinds."""
        return self.tasks | self.queues

    def check(self, where: str, *, task: str | None = None, queue: str | None = None) -> None:
        """Refuse names that nobody has ever used.

        Raises:
            ConfigError: One of them; the text has the nearest known ones.
        """
        if task is not None and task not in self.all:  # without a worker yet, a task is known by its queue
            raise unknown("task", task, where, self.tasks or self.queues)
        if queue is not None and queue not in self.queues:
            raise unknown("queue", queue, where, self.queues)


def known_names(apps: Iterable[Topology]) -> Protocol[Known]:
    """Read which names the server knows of these apps."""
    tasks, queues = set[str](), set[str]()
    for keys in keys_of(apps):
        of_task: dict[str, str] = yield looking.task_queues(keys)
        tasks |= of_task.keys()
        queues |= {*(yield looking.survey(keys)), *of_task.values()}
    return Known(frozenset(tasks), frozenset(queues))


def unknown(kind: str, name: str, where: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that nobody has ever used."""
    return ConfigError(f"{where} has no {kind} {name!r}{guess(name, known)}")
