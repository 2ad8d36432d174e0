"""Names on the command line: what a server knows of them. A typo must not read as all-clear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskq.errors import ConfigError
from taskq.spelling import guess

if TYPE_CHECKING:
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker


@dataclass(frozen=True, slots=True)
class Known:
    """The names that apps have had so far.

    Attributes:
        tasks: Of tasks that a worker has had, or that something was sent to.
        queues: Of queues that a task has, or that something was sent to.
    """

    tasks: frozenset[str]
    queues: frozenset[str]

    @classmethod
    def at(cls, broker: Broker, apps: Iterable[Keys]) -> Known:
        """Read what the server knows."""
        from taskq.broker import call
        from taskq.broker.commands import looking

        tasks, queues = set[str](), set[str]()
        for keys in apps:
            of_task = broker.run(call.whole_hash(keys, "tasks"))
            sent = set(broker.run(looking.survey(keys)))
            tasks |= {name.decode(errors="replace") for name in of_task}
            queues |= sent | {name.decode(errors="replace") for name in of_task.values()}
        return cls(frozenset(tasks), frozenset(queues))

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


def unknown(kind: str, name: str, where: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that nobody has ever used."""
    return ConfigError(f"{where} has no {kind} {name!r}{guess(name, known)}")
