"""What limits hold of a task: by its code, or set by hand instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from taskq.broker import call
from taskq.broker.commands import auditing, looking
from taskq.broker.commands.fleet import Held
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import ConfigError
from taskq.spelling import guess
from taskq.tasks.limits import Limit, Published, read_published
from taskq.views.running import holders
from taskq.views.workers import workers_of

#: Fields of a hash read in one call; gates that are looked at.
_CHUNK, _MOST = 1000, 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds of a task.

    Attributes:
        task: Its name.
        queue: Its queue.
        own: Whether it has its queue for itself.
        code: What its code says.
        hand: What was set by hand instead; None: nothing was.
    """

    task: str
    queue: str
    own: bool
    code: Sequence[Published]
    hand: Sequence[Published] | None

    @property
    def holds(self) -> Sequence[Published]:
        """What is in force."""
        return self.code if self.hand is None else self.hand

    def changed(self, rate: str | None, max_concurrency: int | None, burst: int | None) -> list[Published]:
        """Return what would hold with its first limit changed; what is None stays as it is.

        Raises:
            ConfigError: A rate that cannot be read, or a burst of what has no rate.
        """
        lines = list(self.holds)
        at = next((i for i, line in enumerate(lines) if not line.is_breaker), None)
        first = Published("o" if self.own else "s", 0.0, 1, 0) if at is None else lines.pop(at)
        if rate is not None:
            asked = Limit(rate, burst=burst).published(first.kind)
            first = replace(first, interval=asked.interval, burst=asked.burst)
        elif burst is not None:
            if not first.interval:
                raise ConfigError("--burst says how much of a rate may come at once; there is none")
            first = replace(first, burst=burst)
        if max_concurrency is not None:
            first = replace(first, slots=max_concurrency)
        return [first, *lines]


def limits_of(partitions: Topology, task: str) -> Protocol[Limits]:
    """Read what holds of a task.

    Raises:
        ConfigError: No worker has had it yet; the text has the nearest names.
    """
    queues: dict[str, str] = yield looking.task_queues(partitions.first)
    if task not in queues:
        raise ConfigError(f"app {partitions.app} has no task {task}: no worker has had it yet{guess(task, queues)}")
    code, hand = yield call.hash_values(partitions.of(queues[task]), "limits", [task.encode(), b"!" + task.encode()])
    own = queues[task] == task and list(queues.values()).count(task) == 1
    return Limits(task, queues[task], own, _read(code or b""), None if hand is None else _read(hand))


@dataclass(frozen=True, slots=True)
class InUse:
    """Slots of a limit that are in use.

    Attributes:
        number: Which of the task's limits, from 1.
        key: Of which key; empty where keys are not counted apart.
        used: How many are in use.
        slots: How many there are.
        holders: The messages that hold them.
    """

    number: int
    key: str
    used: int
    slots: int
    holders: Sequence[Held]


def slots_in_use(partitions: Topology, limits: Limits) -> Protocol[list[InUse]]:
    """Look at the slots of a task's limits that are in use: those of which the most are first, at most `_MOST`."""
    slots = {n: line.slots for n, line in enumerate((one for one in limits.holds if not one.is_breaker), 1)}
    used: dict[str, int] = {}
    cursor = b"0"
    while True:
        cursor, some = yield auditing.scan_hash(partitions.of(limits.queue), "slots", cursor, _CHUNK)
        for raw_name, n in some.items():
            name = call.readable(raw_name)
            if name.startswith(f"{limits.task}#") and n.isdigit() and int(n):
                used[name] = int(n)
        if cursor == b"0":
            break
    most = sorted(used, key=lambda name: (-used[name], name))[:_MOST]
    workers = (yield from workers_of(partitions)) if most else []
    held = holders(workers, most)
    found = []
    for name in most:
        number, _, key = name.removeprefix(f"{limits.task}#").partition("=")
        if number.isdigit() and slots.get(int(number)):
            found.append(InUse(int(number), key, used[name], slots[int(number)], held[name]))
    return found


def _read(stored: bytes) -> list[Published]:
    return read_published(call.readable(stored))
