"""What commands that only look ask: where a message is, why it waits, what is in each queue, who is alive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from taskq.broker.call import Arg, Command, as_dict, as_it_is, readable
from taskq.broker.commands.steering import Pause, read_pause
from taskq.broker.keys import Keys
from taskq.broker.scripts import script


def served_queues(keys: Keys) -> Command[set[str]]:
    """Names of the queues that live workers serve."""
    return Command(None, [b"HKEYS", keys["serving"]], lambda reply: {name.decode(errors="replace") for name in reply})


def task_queues(keys: Keys) -> Command[dict[str, str]]:
    """The queue of each task that a worker has had."""

    def parse(reply: Any) -> dict[str, str]:
        return {readable(task): readable(queue) for task, queue in as_dict(reply).items()}

    return Command(None, [b"HGETALL", keys["tasks"]], parse)


class Paused(NamedTuple):
    """A queue, or a task in a queue that it shares, of which nothing is taken."""

    name: str
    is_task: bool
    pause: Pause


def pauses(keys: Keys) -> Command[list[Paused]]:
    """What is paused, and why."""

    def parse(reply: Any) -> list[Paused]:
        found = ((readable(name), read_pause(stored)) for name, stored in as_dict(reply).items())
        return [Paused(name.removeprefix("="), name[:1] == "=", pause) for name, pause in found if pause is not None]

    return Command(None, [b"HGETALL", keys["paused"]], parse)


class Broken(NamedTuple):
    """A breaker that lets nothing pass.

    Attributes:
        task: Whose it is.
        until: When it lets one message through, in seconds since the epoch; None: it has done so.
    """

    task: str
    until: float | None


def broken(keys: Keys) -> Command[list[Broken]]:
    """The breakers that are open, or have let one message through; those that are closed are left out."""

    def parse(reply: Any) -> list[Broken]:
        found = []
        for task, stored in as_dict(reply).items():
            mode, _, rest = readable(stored).partition(" ")
            time = rest.partition(" ")[0]
            if mode in ("o", "h"):
                found.append(Broken(readable(task), int(time) / 1000 if mode == "o" and time.isdecimal() else None))
        return found

    return Command(None, [b"HGETALL", keys["breakers"]], parse)


class Located(NamedTuple):
    """Where a message is.

    Attributes:
        place: result, dead, scheduled, processing, pending, or unknown.
        value: The message as it is stored; of a ``result``, the outcome.
        reason: Of a dead letter: why, a newline, and the detail.
        time: When it died, is due, or was taken; seconds since the epoch.
        worker: What is known of the incarnation that holds it.
    """

    place: str
    value: bytes = b""
    reason: bytes = b""
    time: float | None = None
    worker: bytes = b""


def locate(keys: Keys, raw_id: bytes) -> Command[Located]:
    """Say where a message is."""

    def parse(reply: Any) -> Located:
        match reply:
            case [b"dead", value, reason, time]:
                return Located("dead", value, reason, float(time) / 1000)
            case [b"scheduled", value, time]:
                return Located("scheduled", value, time=float(time) / 1000)
            case [b"processing", value, time, worker]:
                return Located("processing", value, time=float(time) / 1000, worker=worker)
            case [place, *value]:
                return Located(place.decode(), *value)
        raise ValueError(f"locate.lua has answered {reply!r:.80}")

    return Command(script("locate"), [keys.prefix, raw_id], parse)


def why(keys: Keys, raw_id: bytes) -> Command[list[Any]]:
    """Ask why a message does not run; answers as ``why.lua`` says."""
    return Command(script("why"), [keys.prefix, raw_id], as_it_is)


def dead_ids(keys: Keys, queue: str, start: int, stop: int) -> Command[list[tuple[bytes, float]]]:
    """Ids of dead letters of a queue, oldest first, with their time in seconds since the epoch."""

    def parse(reply: Any) -> list[tuple[bytes, float]]:
        pairs = reply if not reply or isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
        return [(raw_id, float(score) / 1000) for raw_id, score in pairs]

    return Command(None, [b"ZRANGE", keys["dead:" + queue], start, stop, b"WITHSCORES"], parse)


def dead_time(keys: Keys, queue: str, raw_id: bytes) -> Command[float | None]:
    """When a message became a dead letter of that queue, in seconds since the epoch; None if it is none of it."""
    return Command(None, [b"ZSCORE", keys["dead:" + queue], raw_id], lambda r: None if r is None else float(r) / 1000)


#: Counters of what has left a queue for good; ``moved`` counts what was replayed into another one, ``dangling`` ids
#: whose message somebody has deleted by hand.
GONE = ("done", "failed", "discarded", "purged", "moved", "dangling")


@dataclass(slots=True)
class QueueSurvey:
    """Counters and places of one queue. ``counters`` has the ledger: accepted, done, failed, discarded, purged ..."""

    counters: dict[str, int]
    pending: int = 0
    suspects: int = 0
    dead: int = 0
    processing: int = 0
    paused: Pause | None = None

    @property
    def scheduled(self) -> int:
        """Messages waiting for their time."""
        return self.counters.get("scheduled", 0)

    @property
    def gated(self) -> int:
        """Messages waiting at a closed gate of a limit."""
        return self.counters.get("gated", 0)

    @property
    def balance(self) -> int:
        """Accepted messages that are in no place: 0 by the conservation law."""
        gone = sum(self.counters.get(name, 0) for name in GONE)
        here = self.scheduled + self.gated + self.pending + self.suspects + self.processing + self.dead
        return self.counters.get("accepted", 0) - gone - here


def _counters(stored: dict[bytes, bytes]) -> dict[str, dict[str, int]]:
    queues: dict[str, dict[str, int]] = {}
    for key, value in stored.items():
        queue, _, name = readable(key).rpartition("|")
        queues.setdefault(queue, {})[name] = int(value) if value.lstrip(b"-").isdigit() else 0
    return queues


def _survey(reply: Any) -> dict[str, QueueSurvey]:
    counters, places, held = reply
    queues = {queue: QueueSurvey(counted) for queue, counted in _counters(as_dict(counters)).items()}
    for at in range(0, len(places), 5):
        survey = queues.setdefault(readable(places[at]), QueueSurvey({}))
        survey.pending, survey.suspects, survey.dead = places[at + 1 : at + 4]
        survey.paused = read_pause(places[at + 4])
    for queue, n in zip(held[::2], held[1::2], strict=True):
        queues.setdefault(readable(queue), QueueSurvey({})).processing = n
    return queues


def survey(keys: Keys, queues: Iterable[str] = ()) -> Command[dict[str, QueueSurvey]]:
    """The ledger and the places of every queue, at one instant; also of ``queues`` that the ledger does not name."""
    return Command(script("survey"), [keys.prefix, *queues], _survey)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in queues that are not paused, and whether any of it can run.

    Attributes:
        pending: Messages that wait, suspects included.
        oldest: How long the oldest has, in seconds.
        suspects: How many of them run alone.
        ready: Lines from which something may be taken now.
        held: Messages that incarnations hold; -1 if one of them is not registered yet.
        opens: Seconds until a gate opens by itself where some wait; None if none does soon.
    """

    pending: int
    oldest: float
    suspects: int
    ready: int = 0
    held: int = 0
    opens: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether nothing runs and nothing can, now or soon."""
        return not self.ready and self.held == 0 and self.opens is None


def backlog(
    keys: Keys, queues: Iterable[str], sets: Iterable[str] = (), incarnations: Iterable[str] = ()
) -> Command[Backlog]:
    """How much waits in some queues; for ``sets`` and ``incarnations`` also whether any of it can run."""
    return Command(script("backlog"), [keys.prefix, " ".join(sets), " ".join(incarnations), *queues], _backlog)


def _backlog(reply: Any) -> Backlog:
    pending, oldest, suspects, ready, held, opens = reply
    soon = None if int(opens) < 0 else int(opens) / 1000
    return Backlog(pending, int(oldest) / 1000, suspects, ready, held, soon)


def ages(keys: Keys, queues: Iterable[str]) -> Command[dict[str, float]]:
    """For how many seconds the next message of each queue has waited; queues where nothing waits are left out."""

    def parse(reply: Any) -> dict[str, float]:
        return {readable(queue): int(ms) / 1000 for queue, ms in zip(reply[::2], reply[1::2], strict=True)}

    return Command(script("oldest"), [keys.prefix, *queues], parse)


class Waiting(NamedTuple):
    """A message that waits: where it stands (suspects, ranked, queue), its id, and how it begins."""

    place: str
    id: bytes
    head: bytes


def peek(keys: Keys, queue: str, skip: int, limit: int) -> Command[tuple[int, list[Waiting]]]:
    """A page of what waits in a queue, at most 100, in the order of their turns; and how many there are in all."""

    def parse(reply: Any) -> tuple[int, list[Waiting]]:
        rows = (reply[i : i + 3] for i in range(1, len(reply), 3))
        return reply[0], [Waiting(place.decode(), raw_id, head) for place, raw_id, head in rows]

    return Command(script("peek"), [keys.prefix, queue, skip, limit], parse)


class Counted(NamedTuple):
    """The ledger at an earlier time (seconds since the epoch): counters by queue."""

    at: float
    counters: dict[str, dict[str, int]]


def minute(keys: Keys, number: int) -> Command[Counted | None]:
    """The ledger as it was kept last (1) or before that (2), by `keeping.keep_minute`; None if it was not."""

    def parse(reply: Any) -> Counted | None:
        stored = as_dict(reply)
        at = stored.pop(b"=", b"")
        return Counted(int(at) / 1000, _counters(stored)) if at.isdigit() else None

    return Command(None, [b"HGETALL", keys[f"minute:{number}"]], parse)


def workers(keys: Keys) -> Command[dict[bytes, bytes]]:
    """What the live incarnations are (opaque, as registered)."""
    return Command(None, [b"HGETALL", keys["workers"]], as_dict)


def lease_ends(keys: Keys, incarnations: Sequence[str]) -> Command[list[float | None]]:
    """When the leases of incarnations end, in seconds since the epoch; None for one that is not registered."""
    words: list[Arg] = [b"ZMSCORE", keys["leases"], *incarnations]
    return Command(None, words, lambda reply: [None if end is None else float(end) / 1000 for end in reply])


def count_until(keys: Keys, name: str, until: float) -> Command[int]:
    """How many members of a sorted set (``schedule``, ``dead:<queue>``) have a time up to ``until`` (Unix seconds)."""
    return Command(None, [b"ZCOUNT", keys[name], b"-inf", int(until * 1000)], int)


def last_pulse(keys: Keys) -> Command[float]:
    """When leases were last renewed or looked after, in seconds since the epoch; 0 for never."""
    return Command(None, [b"GET", keys["pulse"]], lambda reply: float(reply or 0) / 1000)


def server_time() -> Command[float]:
    """The server's clock, in seconds since the epoch."""
    return Command(None, [b"TIME"], lambda reply: int(reply[0]) + int(reply[1]) / 1e6)


def server_info() -> Command[Any]:
    """INFO, unparsed."""
    return Command(None, [b"INFO"], as_it_is)
