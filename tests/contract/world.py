"""All keys of an app, to be seeded, read and compared; and the server's clock, to be moved."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any, TypeVar

from taskq.broker import call
from taskq.broker import keys as key_names
from taskq.broker.call import Command
from taskq.broker.commands import looking
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.protocol import Now, Protocol, Sleep
from taskq.broker.queue_set import QueueSet
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from tests.support import stopped, unique_name

T = TypeVar("T")
State = dict[str, Any]

#: What every test's clock shows when it begins, in ms.
T0 = 2_000_000_000_000
LEASE = 15_000
MINUTE = 60_000
SET = QueueSet("set", ("q",))


class Near(float):
    """A time that a script took from the running clock: equal within a second, also to its text."""

    def __eq__(self, other: object) -> bool:
        try:
            return abs(float(other) - float(self)) < 1000  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False

    __hash__ = float.__hash__


class Taken:
    """The value of a processing field: taken about ``at`` from ``queue``, through ``gates`` to be told of its end."""

    def __init__(self, at: float, queue: str, *gates: str, suspect: bool = False) -> None:
        self.at = Near(at)
        self.rest = "\n".join((queue, *gates))
        self.suspect = suspect

    def __repr__(self) -> str:
        return f"<Taken {'!' * self.suspect}{self.at} {self.rest!r}>"

    def __eq__(self, other: object) -> bool:
        match = re.fullmatch(rb"(!?)(\d+) (.*)", other, re.S) if isinstance(other, bytes) else None
        return bool(match) and (bool(match[1]), self.at, self.rest.encode()) == (self.suspect, match[2], match[3])

    __hash__ = None  # type: ignore[assignment]


class Scores(dict[bytes, float]):
    """The members of a sorted set."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scores) and dict.__eq__(self, other)

    __hash__ = None  # type: ignore[assignment]


def raw_id(number: int) -> bytes:
    """An id of 16 bytes that is easy to read."""
    return b"message-%08d" % number


def message(
    id_: bytes,
    queue: str = "q",
    task: str = "t",
    accepted: float = T0,
    expires: float | None = None,
    body: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """A stored message as the enqueue script leaves it."""
    head = encode_head(task, queue, more=more)
    stamps = struct.pack(">d", accepted) + (b"" if expires is None else struct.pack(">d", expires))
    flags = bytes([head[1] + (expires is not None)])
    return head[:1] + flags + stamps + head[2:] + encode_envelope(id_, {}, body)


def messages(*ids: bytes, **options: Any) -> dict[bytes, bytes]:
    """The messages hash of these ids."""
    return {id_: message(id_, **options) for id_ in ids}


def without(state: Mapping[str, Any], *gone: str) -> State:
    """``state`` without the keys ``gone``."""
    assert set(gone) <= set(state), "a key that was not there cannot go"
    return {name: value for name, value in state.items() if name not in gone}


def serving(*incarnations: str, until: float = T0 + LEASE, queues: QueueSet = SET) -> State:
    """What is on the server while these incarnations serve ``queues``."""
    return {
        "leases": Scores({inc.encode(): until for inc in incarnations}),
        "terms": Scores({inc.encode(): float(LEASE) for inc in incarnations}),
        "calls": {inc.encode(): b"0" for inc in incarnations},
        "workers": {inc.encode(): b"info" for inc in incarnations},
        "sets": {queues.id.encode(): queues.joined.encode()},
        "serving": {queue.encode(): queues.id.encode() for queue in queues.queues},
        "set-leases": Scores({queues.id.encode(): until}),
    }


def documented() -> list[tuple[re.Pattern[str], str, bool]]:
    """The table in ``taskq/broker/keys.py``: pattern of a key, its type, whether it expires."""
    rows = re.findall(r"^([a-z-]+(?::<\w+>)?) +(hash|list|sorted set|string) +(.*)$", key_names.__doc__ or "", re.M)
    return [
        (
            re.compile(re.sub(r"<\w+>", ".+", name)),
            {"sorted set": "zset"}.get(kind, kind),
            kind != "hash" and bool(re.search(r"\bexpires\b", text)),
        )
        for name, kind, text in rows
    ]


class World:
    """An app on a server, seen from outside."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url)
        self.keys = Keys(unique_name())
        self.stopped = False
        self.at(T0)

    # -- the server ---------------------------------------------------------------------------------------

    def raw(self, *words: bytes | str | int) -> Any:
        """Run a plain command."""
        return self.connection.execute(Command(None, words, lambda reply: reply))

    def run(self, command: Command[T]) -> T:
        """Run a command of `commands`."""
        return self.connection.execute(stopped(command) if self.stopped else command)

    def go_through(self, protocol: Protocol[T]) -> T:
        """Run a protocol from beginning to end, at one instant."""
        answer: Any = None
        while True:
            try:
                step = protocol.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answer = self.now / 1000 if isinstance(step, Now | Sleep) else self.run(step)

    def at(self, ms: float) -> None:
        """Set the clock of the scripts to ``ms`` since the epoch; it runs on from there, if it was not stopped."""
        self.now = ms
        seconds, micros = (0, 0) if self.stopped else self.raw("TIME")
        self.raw("SET", self.keys["clock"], repr(float(ms - int(seconds) * 1000 - int(micros) / 1000)))

    def stop_clock(self) -> None:
        """Let the clock of the scripts stand still; only `at` moves it from now on."""
        self.stopped = True
        self.at(self.now)

    # -- all keys -----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the app's keys after the prefix, but for the clock."""
        prefix = self.keys.prefix
        found = self.raw("KEYS", prefix.replace(b"{", b"[{]") + b"*")
        return sorted(name[len(prefix) :].decode() for name in found if name != self.keys["clock"])

    def seed(self, *states: Mapping[str, Any]) -> State:
        """Write keys; returns the whole state there is now."""
        for state in states:
            for name, value in state.items():
                key = self.keys[name]
                if isinstance(value, Scores):
                    self.raw("ZADD", key, *(w for member, score in value.items() for w in (repr(score), member)))
                elif isinstance(value, dict):
                    self.raw("HSET", key, *(word for pair in value.items() for word in pair))
                elif isinstance(value, list):
                    self.raw("RPUSH", key, *value)
                elif name.startswith(("result:", "producer:", "throttle:", "keeper")):
                    self.raw("SET", key, value, "PX", 3_600_000)
                else:
                    self.raw("SET", key, value)
        return self.state()

    def state(self) -> State:
        """The content of every key: hash → dict, sorted set → `Scores`, list → list, string → bytes."""
        return {name: self._read(self.keys[name]) for name in self.names()}

    def _read(self, key: bytes) -> Any:
        match self.raw("TYPE", key):
            case b"hash":
                return call.as_dict(self.raw("HGETALL", key))
            case b"zset":
                reply = self.raw("ZRANGE", key, 0, -1, "WITHSCORES")
                pairs = reply if isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
                return Scores({member: float(score) for member, score in pairs})
            case b"list":
                return self.raw("LRANGE", key, 0, -1)
            case _:
                return self.raw("GET", key)

    def dump(self) -> dict[str, bytes]:
        """Every key as the server itself would write it to disk."""
        return {name: self.raw("DUMP", self.keys[name]) for name in self.names()}

    def take_away(self, name: str) -> tuple[float, bytes | None]:
        """Delete a key; answers what brings it back."""
        kept = max(self.ttl(name), 0), self.raw("DUMP", self.keys[name])
        self.raw("DEL", self.keys[name])
        return kept

    def bring_back(self, name: str, kept: tuple[float, bytes | None]) -> None:
        """Undo `take_away`, whatever is there by now."""
        ttl, dump = kept
        self.raw("DEL", self.keys[name])
        if dump is not None:
            self.raw("RESTORE", self.keys[name], int(ttl), dump)

    def ttl(self, name: str) -> float:
        """Milliseconds until a key expires; -1 if it does not."""
        return int(self.raw("PTTL", self.keys[name]))

    def undocumented(self) -> list[str]:
        """Keys that the table of keys does not have, or has with another type or another life."""
        table, wrong = documented(), []
        for name in self.names():
            kind, expires = self.raw("TYPE", self.keys[name]).decode(), self.ttl(name) >= 0
            rows = [row for row in table if row[0].fullmatch(name)]
            if [(kind, expires)] != [(row_kind, row_expires) for _, row_kind, row_expires in rows]:
                wrong.append(f"{name} ({kind}, {'expires' if expires else 'for ever'})")
        return wrong

    def balances(self) -> dict[str, int]:
        """Per queue, accepted messages that are in no place: 0 by the conservation law."""
        return {queue: found.balance for queue, found in self.run(looking.survey(self.keys)).items()}

    def clear(self) -> None:
        """Delete the app's keys."""
        for name in [*self.names(), "clock"]:
            self.raw("DEL", self.keys[name])
        self.connection.close()
