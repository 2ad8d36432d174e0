"""What a worker is to do: which queues on which lane, how many children, how long to wait at the end."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from taskq.broker.queue_set import QueueSet
from taskq.config import Settings, check_name
from taskq.errors import ConfigError
from taskq.message.head import VERSION
from taskq.tasks.definition import Definition
from taskq.views.workers import WorkerInfo
from taskq.worker.seats import CAPACITY


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a worker.

    Attributes:
        app_path: What ``-A`` was, for children that are not forked.
        name: The worker's name, ``<app>.<host>:<pid>`` unless given.
        concurrency: Number of children.
        async_slots: Coroutines a child runs at once.
        grace: Seconds that running tasks get to end after a SIGTERM.
        drain: End when the queues are empty.
        main: What the main threads of the children serve (sync tasks).
        loop: What their event loops serve (``async def`` tasks).
        thread: What their threads serve (sync tasks with ``pool="thread"``, or all of them with ``--threads``).
        threads: Threads a child has for them.
        max_tasks: Messages after which a child is replaced; 0 for no limit.
        max_memory: Resident memory in bytes after which a child is replaced; 0 for no limit.
        max_concurrency: The most children there may be, if their number follows the work (``--autoscale``).
        start_method: How children are made: ``fork``, ``forkserver`` or ``spawn``.
        level: Log level of the children, as `logging` names it; empty for what the app's module says.
        tasks: Fingerprint of each task's signature, for the server to know.
        timed: Whether any task has a ``time_limit``.
        announced: Since when the worker's announcement is in force, in ms by the server's clock; None before.
        shown: Which arguments of which tasks may be shown (see `taskq.tasks.showing`).
        version: That of taskq.
        id: A random id that tells the worker from others of its name.
    """

    app_path: str
    name: str
    concurrency: int
    async_slots: int
    grace: float
    drain: bool
    main: QueueSet
    loop: QueueSet
    thread: QueueSet
    threads: int = 10
    max_tasks: int = 0
    max_memory: int = 0
    max_concurrency: int = 0
    start_method: str = "fork"
    level: str = ""
    tasks: dict[str, bytes] = field(default_factory=dict)
    timed: bool = False
    announced: int | None = None
    shown: dict[str, list[str]] = field(default_factory=dict)
    version: str = ""
    id: str = field(default_factory=lambda: os.urandom(8).hex())

    @property
    def sets(self) -> list[QueueSet]:
        """What the lanes that there are serve."""
        return [queues for queues in (self.main, self.loop, self.thread) if queues.id]

    @property
    def capacities(self) -> list[int]:
        """How many messages each lane of a child can hold: main, loop, thread."""
        return [CAPACITY, self.async_slots, self.threads]

    @property
    def queues(self) -> list[str]:
        """All queues served."""
        return [name for queues in self.sets for name in queues.queues]

    def info(self, child: int, queues: QueueSet, pid: int | None = None) -> bytes:
        """Write what the server is told of an incarnation of this process or ``pid``: who it is, what it can run."""
        return WorkerInfo(
            worker=self.name,
            id=self.id,
            host=socket.gethostname(),
            pid=pid or os.getpid(),
            child=child,
            lane=next((lane for lane in ("main", "loop", "thread") if getattr(self, lane) is queues), ""),
            format=VERSION,
            queues=list(queues.queues),
            tasks=self.tasks,
            shown=self.shown,
        ).stored()


def lanes_of(
    tasks: Mapping[str, Definition],
    only: Iterable[str] = (),
    all_in_threads: bool = False,
    weights: Mapping[str, int] | None = None,
    strict: bool = False,
) -> dict[str, QueueSet]:
    """Say which queues go on which lane.

    Args:
        tasks: The app's tasks.
        only: Queues to serve instead of those of all tasks (``-Q``); may name others than the tasks' own.
        all_in_threads: Run every sync task in threads (``--threads``).
        weights: How much of each queue is taken beside the others.
        strict: Take what has the highest weight first, always.

    Returns:
        The sets ``main``, ``loop`` and ``thread`` of a `Plan`. A lane takes from the queues of its tasks; from one that
        lanes share, or of no task, one of them takes and hands on what the others run. That is the one that is never
        held up by a task: the loop, then the threads; for a queue of no task, where anything may come, the main lane.
    """
    queues = {check_name("queue", name) for name in only} or {task.queue for task in tasks.values()}
    runs: dict[str, set[str]] = {"main": set(), "loop": set(), "thread": set()}
    serves: dict[str, set[str]] = {"main": set(), "loop": set(), "thread": set()}
    lanes_at: dict[str, set[str]] = {}
    for task in tasks.values():
        lane = "loop" if task.is_async else "thread" if all_in_threads or task.pool == "thread" else "main"
        runs[lane].add(task.name)
        lanes_at.setdefault(task.queue, set()).add(lane)
    somewhere = next((lane for lane in ("main", "thread", "loop") if runs[lane]), "main")
    for queue in queues:
        lanes = lanes_at.get(queue, {somewhere})
        serves[next(lane for lane in ("loop", "thread", "main") if lane in lanes)].add(queue)
    return {
        lane: QueueSet.of(serves[lane], weights, strict, runs[lane], queues)
        if serves[lane] or (queues and runs[lane])
        else QueueSet("", ())
        for lane in runs
    }


def read_weights(text: str, known: Collection[str], strict: bool) -> tuple[list[str], dict[str, int]]:
    """Read ``-Q``: names with weights, as in ``critical:6,default:2``; with ``strict`` the first named is the highest.

    Raises:
        ConfigError: A weight beside ``strict``, or one that is not from 1 to 1000.
    """
    names, weights = [], {}
    for word in filter(None, text.split(",")):
        name, colon, weight = word.rpartition(":")
        if word in known or not colon or not weight.isdigit():
            names.append(word)
        elif strict or not 1 <= int(weight) <= 1000:
            raise ConfigError(f"-Q {word}: a weight is a whole number from 1 to 1000, and there is none with --strict")
        else:
            names.append(name)
            weights[name] = int(weight)
    if strict:
        weights = {name: len(names) - n for n, name in enumerate(names)}
    return names, weights


def publications(tasks: Mapping[str, Definition]) -> list[tuple[str, str, str]]:
    """Return each task with its queue and limits, as they are published for scripts."""
    sharing = Counter(task.queue for task in tasks.values())
    return [
        (task.name, task.queue, task.flow.published(own=task.queue == task.name and sharing[task.queue] == 1))
        for task in tasks.values()
    ]


def settings_for_scripts(settings: Settings, tasks: Mapping[str, Definition]) -> dict[str, int | None]:
    """Return the windows and limits that scripts and a reaper without the app go by; durations in ms."""
    published: dict[str, int | None] = {
        "lease": settings.lease_ms,
        "result_ttl": int(settings.result_ttl * 1000),
        "dead_ttl": int(settings.dead_ttl * 1000),
        "dead_max": settings.dead_max,
        "max_crashes": settings.max_crashes,
        "discard_after": None if settings.discard_after is None else int(settings.discard_after * 1000),
    }
    for task in tasks.values():
        window = task.discard_after
        published[f"discard_after:{task.name}"] = None if window is None else int(window * 1000)
    return published
