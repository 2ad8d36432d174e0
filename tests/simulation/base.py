"""What the scripts of the model share, as `taskq/broker/lua/lib` is what the scripts share: keys, places, ends.

Plain dicts and lists, and a clock that only the simulation moves. What no worker and no producer can bring about (a
message without a body, a head that cannot be read) is left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import Any

from taskq.message.head import decode_head
from taskq.message.letters import FLAG_AT_MOST_ONCE
from tests.model.audit import Snapshot, told


def whole(number: float) -> bytes:
    """A number as scripts write it."""
    return b"%d" % round(number)


def queue_of(taken: bytes) -> str:
    """The queue of a processing field."""
    return taken.split(b" ", 1)[1].decode()


class Base:
    """One app on a server of its own.

    Attributes:
        now: The server's clock, in ms.
        hashes, scores, lists, strings: Keys by name, without the prefix. What is empty does not exist.
        expires: When a key expires, by that clock.
    """

    def __init__(self, prefix: bytes) -> None:
        self.now = 0.0
        self.hashes: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self.scores: dict[str, dict[bytes, float]] = defaultdict(dict)
        self.lists: dict[str, list[bytes]] = defaultdict(list)
        self.strings: dict[str, bytes] = {}
        self.expires: dict[str, float] = {}
        self._tables: list[tuple[str, dict[str, Any]]] = [
            ("hash", self.hashes), ("zset", self.scores), ("list", self.lists), ("string", self.strings)
        ]  # fmt: skip
        self._prefix = len(prefix)
        self._counts: Counter[bytes] = Counter()

    def expire(self) -> list[str]:
        """Let go what has expired by now; answers the names."""
        gone = [name for name, end in self.expires.items() if end <= self.now]
        for name in gone:
            self.delete(name)
        return gone

    def look(self) -> Snapshot:
        """All keys."""
        snap = Snapshot(self.now)
        for kind, keys in self._tables:
            for name, content in keys.items():
                if content:
                    left = round(self.expires[name] - self.now) if name in self.expires else -1
                    snap.add(name, kind, left, content if kind == "string" else content.copy())
        return snap

    def differs(self, snap: Snapshot, but: Container[str]) -> bool:
        """Whether keys have changed since a look at them, but for some."""
        then, n = snap.content, 0
        for _, keys in self._tables:
            for name, content in keys.items():
                if content:
                    n += 1
                    if name not in but and content != then.get(name):
                        return True
        return n != len(then)

    def delete(self, name: str) -> int:
        self.expires.pop(name, None)
        return int(any(keys.pop(name, None) for _, keys in self._tables))

    # -- what scripts share -------------------------------------------------------------------------------

    def count(self, queue: str, what: str, n: int = 1) -> None:
        self._counts[f"{queue}|{what}".encode()] += n

    def write_counts(self) -> None:
        counters = self.hashes["counters"]
        for field, n in self._counts.items():
            if n:
                counters[field] = whole(int(counters.get(field, 0)) + n)
        self._counts.clear()

    def setting(self, name: str, task: str = "") -> int | None:
        settings = self.hashes["settings"]
        value = settings.get(f"{name}:{task}".encode()) if task else None
        value = value or settings.get(name.encode())
        return None if value is None else int(value)

    def first(self, name: str) -> tuple[bytes, float] | None:
        """The first member of a sorted set."""
        ranked = self.scores[name]
        if not ranked:
            return None
        member = min(ranked, key=lambda member: (ranked[member], member))
        return member, ranked[member]

    def until(self, name: str, end: float, limit: int) -> list[bytes]:
        """The first members of a sorted set, up to a score."""
        ranked = self.scores[name]
        return sorted((m for m, score in ranked.items() if score <= end), key=lambda m: (ranked[m], m))[:limit]

    def pop(self, name: str) -> str | None:
        first = self.first(name)
        if first is None:
            return None
        del self.scores[name][first[0]]
        return first[0].decode()

    def ring(self, bell: str) -> None:
        self.lists[bell] = self.lists[bell] or [b"1"]

    def announce(self, queue: str, ready: str = "ready", bell: str = "bell") -> None:
        for set_ in self.hashes["serving"].get(queue.encode(), b"").decode().split():
            self.scores[f"{ready}:{set_}"].setdefault(queue.encode(), self.now)
            self.ring(f"{bell}:{set_}")

    def push(self, queue: str, ids: Sequence[bytes], *, at_head: bool = False, suspects: bool = False) -> None:
        """Put ids into a queue or among its suspects; a queue that was not empty has been announced."""
        waiting = self.lists[("suspects:" if suspects else "queue:") + queue]
        if suspects:
            self.announce(queue, "solo", "solo-bell")
        elif not waiting:
            self.announce(queue)
        waiting[slice(0, 0) if at_head else slice(len(waiting), None)] = ids

    def schedule(self, queue: str, id_: bytes, due: float, of_day: bool = False) -> None:
        self.scores["schedule"][id_] = due = round(due) + of_day / 2
        self.count(queue, "scheduled")
        if self.first("schedule") == (id_, due):
            self.ring("alarm")

    def promote(self, limit: int) -> tuple[int, float | None]:
        opens = self.open_due()
        first = self.first("schedule")
        if first is None or first[1] > self.now:
            return 0, min((time for time in (first and first[1], opens) if time is not None), default=None)
        ids = self.until("schedule", math.ceil(self.now), limit)
        for id_ in ids:
            del self.scores["schedule"][id_]
            queue = decode_head(self.hashes["messages"][id_])[1]
            self.push(queue, [id_], suspects=id_ in self.hashes["crashes"])
            self.count(queue, "scheduled", -1)
        first = self.first("schedule")
        return len(ids), min((time for time in (first and first[1], opens) if time is not None), default=None)

    def open_due(self) -> float | None:
        """Open the gates whose time has come; answers when the next one opens."""
        return None

    def publish(self, id_: bytes, result: bytes, ttl: float) -> None:
        """Store a result, and hand it to whoever waits."""
        if result:
            self.strings["result:" + id_.decode()] = result
            self.expires["result:" + id_.decode()] = self.now + ttl
        for inbox in self.hashes["waiters"].pop(id_, b"").decode().split():
            self.lists["inbox:" + inbox].append(told(id_, result))
            self.expires["inbox:" + inbox] = self.now + 60_000

    def drop(self, queue: str, ids: Iterable[bytes]) -> int:
        """Dead letters go for good."""
        here = [id_ for id_ in ids if self.scores["dead:" + queue].pop(id_, None) is not None]
        for id_ in here:
            del self.hashes["messages"][id_], self.hashes["reasons"][id_]
        self.count(queue, "purged", len(here))
        return len(here)

    def bury(self, queue: str, id_: bytes, reason: bytes, detail: bytes) -> None:
        dead = self.scores["dead:" + queue]
        self.hashes["crashes"].pop(id_, None)
        dead[id_] = float(round(self.now))
        self.hashes["reasons"][id_] = reason + b"\n" + detail
        self.count(queue, "died")
        most = self.setting("dead_max")
        excess = len(dead) - (100_000 if most is None else most)
        self.drop(queue, self.until("dead:" + queue, math.inf, min(max(excess, 0), 100)))

    def pulse(self, lease: int) -> tuple[float, float]:
        last = float(self.strings.get("pulse", 0))
        if last - self.now >= 1000:
            self.set_back(float(round(last - self.now)))
        terms = self.scores["terms"]
        shortest, longest = min(terms.values(), default=lease), max(terms.values(), default=lease)
        for ends, known in ((self.scores["leases"], terms), (self.scores["set-leases"], {})):
            for who, end in ends.items():
                length = known.get(who, lease if known is terms else longest)
                back, silent = last - self.now >= 1000, self.now - last > length / 2
                if (back and end > round(self.now + length)) or (silent and end <= round(self.now + length / 2)):
                    ends[who] = float(round(self.now + length))
        self.strings["pulse"] = whole(self.now)
        return shortest, longest

    def set_back(self, by: float) -> None:
        """The clock went back: what is due some seconds from then on is due earlier, an eta is not."""
        self.strings["set-back"] = whole(by + float(self.strings.get("set-back", 0)))
        self.delete("keeper")
        if "audited" in self.expires:
            self.expires["audited"] -= by
        schedule = self.scores["schedule"]
        schedule.update({id_: due - by for id_, due in schedule.items() if due % 1 == 0})
        self.ring("alarm")

    def in_order(self, ids: Iterable[bytes]) -> list[bytes]:
        return sorted(ids, key=lambda id_: (decode_head(self.hashes["messages"][id_])[2], id_))

    def recover(self, inc: bytes, running: set[bytes] | None, died: bool, alone: bool, cause: bytes) -> list[bytes]:
        """An incarnation is gone, and what it held goes to where it belongs."""
        held = self.hashes.pop("processing:" + inc.decode(), {})
        running = set(held) if running is None else running & set(held)
        counted = len(running) == 1 and (alone or len(held) == 1)
        for table in (self.hashes["calls"], self.hashes["workers"], self.scores["leases"], self.scores["terms"]):
            table.pop(inc, None)
        moves: list[bytes] = []
        heads: dict[tuple[str, str], list[bytes]] = {}
        for id_ in self.in_order(held):
            queue, task = queue_of(held[id_]), decode_head(self.hashes["messages"][id_])[0]
            place = "suspect" if held[id_].startswith(b"!") else "queue"
            if id_ in running and self.hashes["messages"][id_][1] & FLAG_AT_MOST_ONCE:
                place = self._give_up(queue, id_, b"abandoned", b"", cause)
            elif id_ in running and died:
                place = self._blame(queue, task, id_, counted, cause)
            if place in ("queue", "suspect"):
                heads.setdefault((place, queue), []).append(id_)
            self.count(queue, "recovered")
            if id_ in running and died and counted:
                self.count(queue, "crashes")
            moves += [id_, queue.encode(), place.encode()]
        for (place, queue), ids in heads.items():
            self.push(queue, ids, at_head=True, suspects=place == "suspect")
        return moves

    def _blame(self, queue: str, task: str, id_: bytes, counted: bool, cause: bytes) -> str:
        """A process died under a message: where that goes."""
        accepted, window = decode_head(self.hashes["messages"][id_])[2], self.setting("discard_after", task)
        if window is not None and self.now - accepted > window:
            return self._give_up(queue, id_, b"discarded: older than discard_after", b"", cause)
        if not counted:
            return "suspect"
        crashes = int(self.hashes["crashes"].get(id_, 0)) + 1
        self.hashes["crashes"][id_] = whole(crashes)
        if crashes >= (self.setting("max_crashes") or 3):
            return self._give_up(queue, id_, b"crashed", cause and b"F" + cause, cause)
        if crashes > 1:
            self.schedule(queue, id_, self.now + 1000 * 2 ** (crashes - 2))
            return "scheduled"
        return "suspect"

    def _give_up(self, queue: str, id_: bytes, reason: bytes, result: bytes, cause: bytes) -> str:
        self.bury(queue, id_, reason, cause)
        self.publish(id_, result or b"D" + reason, self.setting("result_ttl") or 3_600_000)
        return "dead"

    def next_end(self) -> float | None:
        first = self.first("leases")
        return None if first is None else max(0.0, first[1] - self.now)
