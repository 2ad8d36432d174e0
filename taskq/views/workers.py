"""What workers tell the server about themselves, and how it is read: who they are, how they are, what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from taskq.errors import ConfigError
from taskq.spelling import guess
from taskq.views.told import read, write

if TYPE_CHECKING:
    from taskq.broker.commands.fleet import Held
    from taskq.broker.protocol import Protocol
    from taskq.broker.topology import Topology


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What an incarnation is: told once, when it registers.

    Attributes:
        worker: Name of the worker.
        id: A random id that tells the worker from others of its name; empty in earlier versions.
        host: Where it runs.
        pid: Of the process that runs the tasks.
        child: The number of that process in its worker; -1 if that is not known.
        lane: Which lane of that process it is: main, loop or thread.
        format: The version of the messages that it writes.
        queues: What it takes from.
        tasks: The tasks that it has, with the fingerprints of their signatures.
        shown: Of tasks whose arguments may be shown: which (see `taskq.tasks.showing`).
    """

    worker: str = "?"
    id: str = ""
    host: str = "?"
    pid: int = 0
    child: int = -1
    lane: str = ""
    format: int = 0
    queues: Sequence[str] = ()
    tasks: Mapping[str, bytes] = field(default_factory=dict)
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def stored(self) -> bytes:
        """Write it for the server."""
        return write(self)

    @classmethod
    def read(cls, stored: bytes) -> WorkerInfo:
        """Read what a worker wrote, perhaps one of another version; what cannot be read is as if it were not said."""
        return read(cls, stored, _INFO)


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker is: told by its parent every few seconds.

    Attributes:
        name: Its name; empty if the report cannot be read.
        host: Where it runs.
        pid: Of its parent process.
        version: Of taskq.
        state: ``busy`` or ``idle``; ``quiet``: it takes no more; ``stopping``.
        up: For how many seconds it has been running.
        memory: Resident memory of its parent process, in bytes; 0 where that cannot be told.
        children: Of each child its number, pid, resident memory in bytes, and for how many seconds it runs.
    """

    name: str = ""
    host: str = "?"
    pid: int = 0
    version: str = ""
    state: str = ""
    up: int = 0
    memory: int = 0
    children: Sequence[Sequence[int]] = ()

    def stored(self) -> bytes:
        """Write it for the server."""
        return write(self)

    @classmethod
    def read(cls, stored: bytes) -> Report:
        """Read what a worker wrote, as `WorkerInfo.read` does."""
        told = read(cls, stored, _REPORT)
        return replace(told, children=[child for child in told.children if _is_child(child)])


_INFO = {
    **dict.fromkeys(("worker", "id", "host", "lane"), str),
    **dict.fromkeys(("pid", "child", "format"), int),
    **{"queues": list, "tasks": dict, "shown": dict},
}
_REPORT = {
    **dict.fromkeys(("name", "host", "version", "state"), str),
    **dict.fromkeys(("pid", "up", "memory"), int),
    "children": list,
}


def _is_child(told: Any) -> bool:
    return isinstance(told, list) and len(told) == 4 and all(isinstance(number, int) for number in told)


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane of a child: an incarnation.

    Attributes:
        incarnation: Its id.
        info: What it says of itself.
        lease_ends: When its lease ends, in seconds since the epoch.
        held: What it holds: what it runs, and for some milliseconds what it will run next.
    """

    incarnation: str
    info: WorkerInfo
    lease_ends: float
    held: Sequence[Held] = ()


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker.

    Attributes:
        app: The app whose tasks it runs.
        id: A random one; empty for one of a version that had none.
        report: How it is; None if it has not said so for a while.
        lanes: Those of its children, by number and lane.
    """

    app: str
    id: str
    report: Report | None
    lanes: Sequence[Lane] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.report.name if self.report else self.lanes[0].info.worker

    @property
    def host(self) -> str:
        """Where it runs."""
        return self.report.host if self.report else self.lanes[0].info.host

    @property
    def queues(self) -> list[str]:
        """What it takes from."""
        return sorted({str(queue) for lane in self.lanes for queue in lane.info.queues})

    @property
    def lease_ends(self) -> float | None:
        """When the first lease of its lanes ends, in seconds since the epoch; None if it has no lane."""
        return min((lane.lease_ends for lane in self.lanes), default=None)

    @property
    def memory(self) -> int | None:
        """Resident memory of all its processes, in bytes (what they share is counted each time); None if unknown."""
        if self.report is None or not self.report.memory:
            return None
        return self.report.memory + sum(memory for _, _, memory, _ in self.report.children)


def workers_of(partitions: Topology, *, held: bool = True) -> Protocol[list[Worker]]:
    """Look at every worker of an app, by name; with what their lanes hold."""
    from taskq.broker.commands import fleet, looking

    now: float = yield looking.server_time()
    ends: dict[str, float] = yield fleet.report_ends(partitions.first)
    told: dict[str, bytes] = yield fleet.reports(partitions.first)
    reports = {name: Report.read(text) for name, text in told.items() if ends.get(name, 0.0) > now}
    reports = {name: report for name, report in reports.items() if report.name}  # and can be read
    infos: dict[bytes, bytes] = {}
    leases: dict[str, float] = {}
    holds: dict[str, list[Held]] = {}
    for keys in partitions.all:  # a lane has the same name in each
        infos |= yield looking.workers(keys)
        for incarnation, lease_ends in (yield fleet.leases(keys)).items():
            leases[incarnation] = min(lease_ends, leases.get(incarnation, lease_ends))
            if held:
                holds.setdefault(incarnation, []).extend((yield fleet.held(keys, incarnation)))
    lanes: dict[str, list[Lane]] = {name: [] for name in reports}
    for incarnation, lease_ends in leases.items():
        info = WorkerInfo.read(infos.get(incarnation.encode(), b""))
        lane = Lane(incarnation, info, lease_ends, holds.get(incarnation, ()))
        lanes.setdefault(info.id or f"{info.worker} {info.host}", []).append(lane)
    found = [
        Worker(
            partitions.app, name if name in reports or some[0].info.id else "", reports.get(name),
            sorted(some, key=lambda lane: (lane.info.child, lane.info.lane, lane.incarnation)),
        )
        for name, some in lanes.items()
    ]  # fmt: skip
    return sorted(found, key=lambda worker: (worker.name, worker.id))


def named(workers: Sequence[Worker], name: str, where: str) -> list[Worker]:
    """Return those of that name: one, unless several were given the same.

    Raises:
        ConfigError: There is none; the text has the nearest names.
    """
    found = [worker for worker in workers if worker.name == name]
    if not found:
        raise ConfigError(f"{where} has no live worker {name!r}{guess(name, {worker.name for worker in workers})}")
    return found
