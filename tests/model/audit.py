"""One read of all keys of an app, and what must be true of them at any instant.

`SCRIPT` reads every key at once; `violations` says what is wrong with what it found, `unsound` what is wrong with a
step from one state to the next. Neither knows what the step was: what it must have done is checked where it is made.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from taskq.broker.commands.looking import GONE
from taskq.message.head import decode_head
from tests.contract.world import documented
from tests.model.flow import gates, locks

#: KEYS: the prefix; ARGV: what the clock of the scripts shows (ms). Returns that, then for each key: name, type, ms
#: until it expires, the bytes the server would write to disk, content.
SCRIPT = b"""
local P = KEYS[1]
local out = { ARGV[1] }
for _, key in ipairs(redis.call('KEYS', (string.gsub(P, '{', '[{]')) .. '*')) do
  if key ~= P .. 'clock' then
    local kind = redis.call('TYPE', key).ok
    out[#out + 1] = string.sub(key, #P + 1)
    out[#out + 1] = kind
    out[#out + 1] = redis.call('PTTL', key)
    out[#out + 1] = redis.call('DUMP', key)
    out[#out + 1] = kind == 'hash' and redis.call('HGETALL', key)
      or kind == 'zset' and redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      or kind == 'list' and redis.call('LRANGE', key, 0, -1) or redis.call('GET', key)
  end
end
return out
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What an incarnation holds of a message: the queue it came from, and whether it was taken as a suspect."""

    queue: str
    suspect: bool


class Snapshot:
    """All keys of an app at one instant."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.kinds: dict[str, str] = {}
        self.expires: dict[str, int] = {}
        self.dump: dict[str, bytes] = {}
        self.content: dict[str, Any] = {}
        self._families: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, reply: list[Any]) -> Snapshot:
        """What `SCRIPT` answered."""
        snap = cls(float(reply[0]))
        for at in range(1, len(reply), 5):
            name, kind, content = reply[at].decode(), reply[at + 1].decode(), reply[at + 4]
            if kind == "hash":
                content = dict(zip(content[::2], content[1::2], strict=True))
            elif kind == "zset":
                content = {member: float(score) for member, score in zip(content[::2], content[1::2], strict=True)}
            snap.add(name, kind, reply[at + 2], content)
            snap.dump[name] = reply[at + 3]
        return snap

    def add(self, name: str, kind: str, expires: int, content: Any) -> None:
        """Add a key; ``expires`` is in how many ms, -1 for never."""
        self.kinds[name], self.expires[name], self.content[name] = kind, expires, content
        family, _, rest = name.partition(":")
        if rest:
            self._families.setdefault(family, {})[rest] = content

    def __getitem__(self, name: str) -> Any:
        """A hash or sorted set as a dict in the server's order, a list as a list, a string as bytes."""
        return self.content[name]

    def __contains__(self, name: object) -> bool:
        return name in self.content

    def result(self, id_: bytes) -> bytes:
        """A stored result; empty if there is none."""
        return self.content.get("result:" + id_.decode(), b"")  # type: ignore[no-any-return]

    def table(self, name: str) -> dict[bytes, Any]:
        """A hash or sorted set; empty if there is none."""
        return self.content.get(name, {})  # type: ignore[no-any-return]

    def row(self, name: str) -> list[bytes]:
        """A list; empty if there is none."""
        return self.content.get(name, [])  # type: ignore[no-any-return]

    def under(self, family: str) -> dict[str, Any]:
        """The keys ``<family>:<name>``, by name."""
        return self._families.get(family, {})

    # -- messages -----------------------------------------------------------------------------------------

    def queue_of(self, id_: bytes) -> str:
        """The queue a message belongs to, by its head."""
        return _head(self["messages"][id_])[0]

    def task_of(self, id_: bytes) -> str:
        """The task of a message, by its head."""
        return _head(self["messages"][id_])[2]

    def is_paused(self, queue: str) -> bool:
        """Whether nothing is taken from a queue."""
        return queue.encode() in self.table("paused")

    def accepted(self, id_: bytes) -> float:
        """When a message was accepted."""
        return _head(self["messages"][id_])[1]

    def expired(self) -> set[bytes]:
        """Messages whose time to run is over."""
        times = ((id_, decode_head(value)[3]) for id_, value in self.table("messages").items())
        return {id_ for id_, expires in times if expires is not None and expires <= self.now}

    def in_order(self, ids: Any) -> list[bytes]:
        """Messages in the order in which they were accepted."""
        return sorted(ids, key=lambda id_: (self.accepted(id_), id_))

    def held(self, incarnation: str) -> dict[bytes, Held]:
        """What an incarnation holds."""
        found = {}
        for id_, value in self.table("processing:" + incarnation).items():
            mark, _, queue = value.split(b"\n")[0].partition(b" ")
            found[id_] = Held(queue.decode(), mark.startswith(b"!"))
        return found

    def passed(self) -> Counter[str]:
        """For each gate, how many of the messages that are held name it: those whose end frees something of it."""
        values = (value for held in self.under("processing").values() for value in held.values())
        return Counter(name.decode() for value in values for name in value.split(b"\n")[1:])

    def lines(self) -> dict[tuple[str, str], list[bytes]]:
        """The lines of those that wait for gates: by queue and line, in the order in which they are taken."""
        plain, ranked = self.under("gated"), {name: ids for name, ids in self.under("ranked").items() if "|" in name}
        found = {}
        for name in {*plain, *ranked}:
            ranks = ranked.get(name, {})
            above, below = ([id_ for id_, rank in ranks.items() if (rank < 0) == first] for first in (True, False))
            queue, _, line = name.partition("|")
            found[queue, line] = above + plain.get(name, []) + below
        return found

    def counter(self, queue: str, name: str) -> int:
        """A counter of the ledger."""
        return int(self.table("counters").get(f"{queue}|{name}".encode(), 0))

    def places(self) -> dict[bytes, list[str]]:
        """For each id that stands anywhere: where, once for each time it does."""
        found: dict[bytes, list[str]] = {}
        for family in ("queue", "ranked", "gated", "suspects", "processing", "dead"):
            for name, ids in self.under(family).items():
                for id_ in ids:
                    found.setdefault(id_, []).append(f"{family}:{name}")
        for id_ in self.table("schedule"):
            found.setdefault(id_, []).append("schedule")
        return found


@lru_cache(10_000)
def _head(value: bytes) -> tuple[str, float, str]:
    task, queue, accepted, _, _ = decode_head(value)
    return queue, accepted, task


@cache
def _rows(name: str) -> list[tuple[str, bool]]:
    return [(kind, expires) for pattern, kind, expires in documented() if pattern.fullmatch(name)]


def violations(snap: Snapshot, max_crashes: int = 3) -> list[str]:
    """Everything that is wrong with a state."""
    return [
        *_conservation(snap),
        *_ledger(snap),
        *_owners(snap),
        *_suspects(snap, max_crashes),
        *_dead_letters(snap),
        *_wake_ups(snap),
        *gates(snap),
        *locks(snap),
        *_revoked(snap),
        *_keys(snap),
    ]


def _conservation(snap: Snapshot) -> list[str]:
    places, messages = snap.places(), snap.table("messages")
    wrong = [f"{id_!r} is in {places.get(id_, [])}" for id_ in messages if len(places.get(id_, [])) != 1]
    wrong += [f"{id_!r} is in {where} without a message" for id_, where in places.items() if id_ not in messages]
    for id_, where in places.items():
        family, _, name = where[0].partition(":")
        if family == "processing":
            name = snap.held(name)[id_].queue
        name = name.partition("|")[0]
        if id_ in messages and family != "schedule" and name != snap.queue_of(id_):
            wrong.append(f"{id_!r} of queue {snap.queue_of(id_)} is in {where[0]}")
    return wrong


@cache
def _counter(field: bytes) -> tuple[str, str]:
    queue, _, name = field.decode().rpartition("|")
    return queue, name


_LEDGER = ("accepted", "scheduled", "gated", *GONE)


def _ledger(snap: Snapshot) -> list[str]:
    """Per queue: accepted = done + failed + discarded + purged + what is in a place."""
    counters: dict[str, dict[str, int]] = {}
    for field, value in snap.table("counters").items():
        queue, name = _counter(field)
        counters.setdefault(queue, {})[name] = int(value)
    here = Counter(snap.queue_of(id_) for id_ in snap.table("messages"))
    later = Counter(snap.queue_of(id_) for id_ in snap.table("schedule") if id_ in snap.table("messages"))
    gated: Counter[str] = Counter()
    for (queue, _), ids in snap.lines().items():
        gated[queue] += len(ids)
    wrong = []
    for queue in {*counters, *here}:
        accepted, scheduled, at_gates, *ends = (counters.get(queue, {}).get(name, 0) for name in _LEDGER)
        gone = sum(ends)
        if accepted != gone + here[queue]:
            wrong.append(f"queue {queue}: {accepted} accepted, {gone} ended, {here[queue]} here")
        if scheduled != later[queue]:
            wrong.append(f"queue {queue}: {scheduled} counted as scheduled, {later[queue]} are")
        if at_gates != gated[queue]:
            wrong.append(f"queue {queue}: {at_gates} counted as gated, {gated[queue]} are")
    return wrong


def _owners(snap: Snapshot) -> list[str]:
    """Only a registered incarnation holds anything, and it is registered wholly."""
    calls, leases, workers = set(snap.table("calls")), set(snap.table("leases")), set(snap.table("workers"))
    wrong = [] if calls == leases == workers else [f"half registered: {calls}, {leases}, {workers}"]
    wrong += [f"{inc} holds without a lease" for inc in snap.under("processing") if inc.encode() not in leases]
    if set(snap.table("sets")) != set(snap.table("set-leases")):
        wrong.append(f"half a set: {snap.table('sets')} with {snap.table('set-leases')}")
    serving = {(queue, s) for queue, sets in snap.table("serving").items() for s in sets.split()}
    if serving != {(queue, s) for s, queues in snap.table("sets").items() for queue in queues.split()}:
        wrong.append(f"serving {snap.table('serving')} against sets {snap.table('sets')}")
    return wrong


def _suspects(snap: Snapshot, max_crashes: int) -> list[str]:
    """A message with a counted death runs alone, and the last counted death is its end."""
    wrong, crashes = [], snap.table("crashes")
    places = snap.places() if crashes else {}
    for id_, count in crashes.items():
        where = (places.get(id_) or ["nowhere"])[0]
        alone = where == "schedule" or where.startswith("suspects:")
        if where.startswith("processing:"):
            alone = snap.held(where.partition(":")[2])[id_].suspect
        if not alone:
            wrong.append(f"{id_!r} with {count!r} counted deaths is in {where}")
        if not 0 < int(count) < max_crashes:
            wrong.append(f"{id_!r} is alive after {count!r} counted deaths of {max_crashes}")
    for inc in snap.under("processing"):
        held = snap.held(inc)
        if len(held) > 1 and any(item.suspect for item in held.values()):
            wrong.append(f"{inc} holds a suspect in company: {held}")
    return wrong


def _dead_letters(snap: Snapshot) -> list[str]:
    dead = {id_ for ids in snap.under("dead").values() for id_ in ids}
    wrong = [] if dead == set(snap.table("reasons")) else [f"dead {dead} with reasons {snap.table('reasons')}"]
    wrong += [f"{id_!r} is waited for but has ended" for id_ in snap.table("waiters") if id_ in dead]
    wrong += [f"{id_!r} is waited for but gone" for id_ in snap.table("waiters") if id_ not in snap.table("messages")]
    return wrong


def _wake_ups(snap: Snapshot) -> list[str]:
    """What can be taken is announced to every set that serves it; for the bells see `silent_bells`.

    A suspect that a lane has handed on is announced to the lanes that run its task.
    """
    wrong = []
    for queue, list_ in _takeable(snap):
        sets = snap.table("serving").get(queue.encode(), b"").decode().split()
        silent = [name for name in sets if queue.encode() not in snap.table(f"{list_}:{name}")]
        able = _able(snap, sets, _task(snap, snap.under("suspects")[queue][0])) if list_ == "solo" else []
        if not able or any(queue.encode() not in snap.table(f"solo:{name}") for name in able):
            wrong += [f"{queue} has something, {list_}:{name} does not say so" for name in silent]
    return wrong


def _able(snap: Snapshot, sets: list[str], task: str) -> list[str]:
    """Lanes that run a task, of the workers of these sets."""
    runs = snap.table("runs")
    lanes = [line.split() for name in sets for line in runs.get(name.encode(), b"").decode().splitlines()]
    return [lane for lane, *tasks in lanes if task in tasks]


def _takeable(snap: Snapshot) -> list[tuple[str, str]]:
    """Queues that have something that nothing holds up, and the list that is to name each; for lines see `gates`."""
    at_gates = {(who, gate) for gate, waiters in snap.table("gates").items() for who in waiters.decode().split()}
    as_a_whole = {who[1:] for who, _ in at_gates if who[0] == "*"}
    there = {*snap.under("queue"), *(name for name in snap.under("ranked") if "|" not in name)}
    found = [(queue, "ready") for queue in there - as_a_whole if not snap.is_paused(queue)]
    for queue, ids in snap.under("suspects").items():
        mine = _task(snap, ids[0]).encode() + b"#"  # they stand in a row, behind the gates of the first
        waits = any(who == "!" + queue and gate.startswith(mine) for who, gate in at_gates)
        if not snap.is_paused(queue) and not waits:
            found.append((queue, "solo"))
    return found


def _task(snap: Snapshot, id_: bytes) -> str:
    return snap.task_of(id_) if id_ in snap.table("messages") else ""


def _revoked(snap: Snapshot) -> list[str]:
    """A mark is that of a message that will still end by it."""
    wrong = [f"{id_!r} is marked, and gone" for id_ in snap.table("revoked") if id_ not in snap.table("messages")]
    wrong += [f"{id_!r} is marked, and dead" for id_ in snap.table("revoked") if id_ in snap.table("reasons")]
    return wrong


def silent_bells(snap: Snapshot) -> set[str]:
    """Sets that have something to take and a bell without a token."""
    return {name for name in snap.under("ready") if not snap.row("bell:" + name)}


def _keys(snap: Snapshot) -> list[str]:
    """No key that is not in the table of ``taskq/broker/keys.py``, none with another life, no bell with two tokens."""
    wrong = []
    for name, kind in snap.kinds.items():
        if _rows(name.partition(":")[0] + ":x" if ":" in name else name) != [(kind, snap.expires[name] >= 0)]:
            wrong.append(f"{name} is a {kind} that expires in {snap.expires[name]} ms")
        if name.startswith(("bell:", "solo-bell:", "alarm")) and len(snap[name]) > 1:
            wrong.append(f"{name} has {len(snap[name])} tokens")
    return wrong


def unsound(before: Snapshot, now: Snapshot) -> list[str]:
    """Everything that is wrong with a step, whichever it was: somebody was not told, or the ledger went back."""
    wrong = []
    for id_, inboxes in before.table("waiters").items():
        if id_ not in now.table("waiters"):
            word = told(id_, now.result(id_))
            missed = [name for name in inboxes.decode().split() if word not in now.row("inbox:" + name)]
            wrong += [f"{name} waits for {id_!r} for ever" for name in missed]
    for times in ("schedule", "openings"):
        first = min(now.table(times).values(), default=1e300)
        gone = set(before.table(times)) - set(now.table(times))
        if first < min(before.table(times).values(), default=1e300) and not (gone or now.row("alarm")):
            wrong.append(f"the earliest of {times} has changed in silence")
    for set_ in now.under("solo"):
        if set_ not in before.under("solo") and not now.row("solo-bell:" + set_):
            wrong.append("a suspect came in silence")
    for field, count in before.table("counters").items():
        if not field.endswith((b"|scheduled", b"|gated")) and int(now.table("counters")[field]) < int(count):
            wrong.append(f"{field!r} went back")
    return wrong


def told(id_: bytes, result: bytes) -> bytes:
    """What an inbox gets about an id."""
    return struct.pack("B", len(id_)) + id_ + result
