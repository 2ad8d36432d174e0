"""What runs, where, and since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from taskq.broker import call
from taskq.broker.commands.fleet import Held
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.errors import DecodeError
from taskq.message import codec
from taskq.message.envelope import decode
from taskq.message.head import decode_head
from taskq.tasks.showing import shown_call
from taskq.views.workers import Lane, Worker, workers_of

#: Messages read in one call, each of which may have a megabyte.
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Running:
    """A message that a worker holds: it runs, or will within milliseconds.

    Attributes:
        worker: Who holds it.
        lane: Which of its lanes does.
        held: Its id, its queue, since when it is held.
        task: The name of its task; ``?`` if it cannot be read, empty if it has ended meanwhile.
        args: Those of its arguments that its task lets be shown, as text.
    """

    worker: Worker
    lane: Lane
    held: Held
    task: str
    args: Mapping[str, str]


def running(partitions: Topology) -> Protocol[list[Running]]:
    """Look at all that workers hold, what they have held longest first."""
    workers = yield from workers_of(partitions)
    held = [(worker, lane, one) for worker in workers for lane in worker.lanes for one in lane.held]
    held.sort(key=lambda found: (found[2].since, found[2].id))
    found: list[Running] = []
    for at in range(0, len(held), _PAGE):
        some = held[at : at + _PAGE]
        values = yield from _values(partitions, [one.id for _, _, one in some])
        for (worker, lane, one), value in zip(some, values, strict=True):
            task = _task(value)
            found.append(Running(worker, lane, one, task, _shown(value, lane.info.shown.get(task, ()))))
    return found


def _values(partitions: Topology, ids: Sequence[bytes]) -> Protocol[list[bytes | None]]:
    """Read messages by their ids, in whichever partition they are."""
    found: dict[bytes, bytes | None] = {}
    for keys in partitions.all:
        left = [raw_id for raw_id in ids if found.get(raw_id) is None]
        if left:
            found |= zip(left, (yield call.hash_values(keys, "messages", left)), strict=True)
    return [found[raw_id] for raw_id in ids]


def holders(workers: Iterable[Worker], gates: Sequence[str]) -> dict[str, list[Held]]:
    """Find which messages hold slots of these gates."""
    found: dict[str, list[Held]] = {gate: [] for gate in gates}
    for lane in (lane for worker in workers for lane in worker.lanes):
        for one in lane.held:
            for gate in found.keys() & {*one.passed}:
                found[gate].append(one)
    return found


def _task(value: bytes | None) -> str:
    if value is None:
        return ""
    try:
        return decode_head(value)[0]
    except DecodeError:
        return "?"


def _shown(value: bytes | None, told: Sequence[str]) -> dict[str, str]:
    if not value or not told or not isinstance(told, list):
        return {}
    try:
        return shown_call(told, *codec.unpack_call(decode(value).body))
    except DecodeError:
        return {}
