"""Which partition of an app has what: the one place where it is decided, and where names of keys are made.

A queue, with all that is in it, belongs to one partition, by a hash of its name; so do the periodic entries that send
to it, the limits and locks of its tasks as far as they hold there. What is told of an app as a whole (its settings, its
tasks, pauses of tasks) is told to all partitions; how many there are, and how each worker is, to the first.

The id of a message names its partition (see ``envelope.py``) unless its caller chose it, who may also choose a UUID. So
whoever looks for an id asks the partition it names, if any, and then the others.

An app of one partition is that partition: there is nothing to choose, and it costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from taskq.broker.call import Command
from taskq.broker.keys import Keys
from taskq.broker.protocol import Protocol
from taskq.broker.scripts import script
from taskq.errors import BrokerRefused, ConfigError
from taskq.message.ids import id_partition
from taskq.spelling import count

#: The field of the first partition's settings that says how many there are.
_COUNT = b"partitions"


@dataclass(frozen=True)
class Partitions:
    """The partitions of an app that has several.

    Attributes:
        app: Its name.
        count: How many there are.
    """

    app: str
    count: int

    @cached_property
    def all(self) -> tuple[Keys, ...]:
        """The partitions of the app."""
        return tuple(Keys(self.app, n) for n in range(self.count))

    @property
    def first(self) -> Keys:
        """The partition that has what is of the app as a whole."""
        return self.all[0]

    def of(self, queue: str) -> Keys:
        """Return the partition of a queue."""
        return self.all[zlib.crc32(queue.encode()) % self.count]

    def places(self, raw_id: bytes) -> tuple[Keys, ...]:
        """Return the partitions where a message of that id may be, the likeliest first."""
        named = id_partition(raw_id)
        if named is None or named >= self.count:
            return self.all
        return (self.all[named], *self.all[:named], *self.all[named + 1 :])


#: An app's partitions.
Topology = Keys | Partitions


def topology(app: str, count: int = 1) -> Topology:
    """Return the partitions of an app of so many."""
    return Keys(app) if count == 1 else Partitions(app, count)


def keys_of(apps: Iterable[Topology]) -> list[Keys]:
    """Return all partitions of some apps."""
    return [keys for app in apps for keys in app.all]


def read_topology(app: str) -> Protocol[Topology]:
    """Read of an app how many partitions it has."""
    return topology(app, _number((yield _stored(Keys(app)))))


def agree(app: Topology, where: str, again: bool = False) -> Protocol[None]:
    """Agree with the server (``where``, for people) on how many partitions an app has; whoever is first says so.

    With ``again`` this process has agreed before: what the server has lost since is said again.

    Raises:
        ConfigError: There is another number by now, and the app has something on the server that would be lost by it.
    """
    wanted = len(app.all)
    while True:
        try:
            stored: bytes | None = yield _stored(app.first)
        except BrokerRefused:  # somebody has spoilt the key, or the user lacks the right: what needs it says so
            return
        there = _number(stored)
        if there == wanted:
            return
        if not (again and stored is None):
            yield from _refuse_if_used(topology(app.app, there), wanted, where)
        if (yield claim(app.first, wanted, stored or b"")):
            return


def _limits_by_hand(fields: list[bytes]) -> int:
    return sum(field.startswith(b"!") for field in fields)


#: What another number of partitions would lose, or let hold no longer: work, and what somebody has set to last. What
#: goes out of date by itself does not count: rates, breakers, locks for a time, results of what has ended.
_KEPT: tuple[tuple[str, str, str, Callable[[Any], int]], ...] = (
    ("messages", "HLEN", "message", int),
    ("periodic", "HLEN", "periodic entry", int),
    ("paused", "HLEN", "pause", int),
    ("limits", "HKEYS", "task with limits set by hand", _limits_by_hand),
    ("leases", "ZCARD", "lane of a worker", int),
)


def _refuse_if_used(app: Topology, wanted: int, where: str) -> Protocol[None]:
    for keys in app.all:
        for name, what, word, parse in _KEPT:
            number: int = yield Command(None, [what, keys[name]], parse)
            if number:
                raise ConfigError(
                    f"app {app.app} has {count(len(app.all), 'partition')} at {where}, and this process was told "
                    f"{wanted} (by TaskQ(partitions=...), TASKQ_PARTITIONS or [tool.taskq]). The number cannot be "
                    f"changed while anything is there, such as {number} x {word}: say partitions={len(app.all)}, or "
                    "stop the workers, let the queues run empty, purge or replay the dead letters, and remove periodic "
                    "entries, pauses and limits set by hand first"
                )


def _number(stored: bytes | None) -> int:
    return int(stored) if stored and stored.isdigit() and int(stored) else 1


def _stored(keys: Keys) -> Command[bytes | None]:
    return Command(None, [b"HGET", keys["settings"], _COUNT], lambda reply: reply)


def claim(keys: Keys, wanted: int, stored: bytes) -> Command[bool]:
    """Say how many partitions there are instead of what is ``stored``; answers whether nobody was quicker."""
    return Command(script("claim"), [keys.prefix, wanted, stored], bool)
