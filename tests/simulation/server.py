"""The server in memory: what each script does, written a second time from what its head promises.

Replies are what the real server would send, to the byte; so are the keys. A method a script, named after it and with an
underscore; plain commands are in `_PLAIN`.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

from taskq.broker.call import Command
from taskq.broker.faults import refused
from taskq.message.head import decode_head
from taskq.message.letters import FLAG_AT_MOST_ONCE, FLAG_EXPIRES
from tests.simulation.base import Base, queue_of, whole
from tests.simulation.lines import Lines

Reply = Any


#: Names that wait for their turn stand at this score and more, see ``lib/shares.lua``.
_LATER = 1e13


class Shares:
    """Whose turn it is among the queues of a set that share the time alike, in one fetch."""

    def __init__(self, server: Base, set_: str, order: str) -> None:
        self.set = set_
        self.order = order
        self._server = server
        self._ready = server.scores["ready:" + set_]
        self._lowest: float | None = None
        self._at: dict[str, float] = {}

    def turn(self, queue: str) -> tuple[float, float]:
        """The score of a queue that waits for its turn, and that from which on it is its turn."""
        spent = self._server.hashes["spent:" + self.set]
        if queue not in self._at:
            if self._lowest is None:
                last = max(self._ready.values(), default=0.0) - _LATER
                self._lowest = float(spent[b"*"]) if b"*" in spent else max(0.0, last)
            self._at[queue] = max(float(spent.get(queue.encode(), 0)), self._lowest)
        assert self._lowest is not None
        due = float(f"{_LATER + self._at[queue]:.3f}")
        return due, due - 0.01 if self._at[queue] > self._lowest else 0.0

    def next(self) -> str:
        """Take out the queue whose turn it is."""
        while True:
            name, score = min(self._ready.items(), key=lambda item: (item[1], item[0]))
            del self._ready[name]
            queue = name.decode()
            due, first = self.turn(queue.partition("|")[0]) if self.order else (0.0, 0.0)
            if score >= first:
                return queue
            self._ready[name] = due

    def charge(self, queue: str, ms: float) -> None:
        """Note that messages were taken that will last so long."""
        assert self._lowest is not None
        self._lowest = max(self._lowest, self._at[queue])
        self._at[queue] += ms
        spent = self._server.hashes["spent:" + self.set]
        spent[b"*"], spent[queue.encode()] = b"%.3f" % self._lowest, b"%.3f" % self._at[queue]


class Model(Lines):
    """One app on a server of its own."""

    def execute(self, command: Command[Any]) -> Reply:
        """Execute a command and return its raw reply; raises what the connection would."""
        words = [word if type(word) is bytes else str(word).encode() for word in command.args]
        if command.script is None:
            return _PLAIN[words[0]](self, words[1][self._prefix :].decode(), *words[2:])
        script: Callable[..., Reply] = getattr(self, command.script.name + "_")
        reply = script(*words[1:])
        self.write_counts()
        return reply

    # -- producers ----------------------------------------------------------------------------------------

    def enqueue_(self, producer: bytes, number: bytes, *messages: bytes) -> Reply:
        key = "producer:" + producer.decode()
        if key in self.strings:
            last, answers, first = self.strings[key].split(b" ", 2)
            if (int(last), first) == (int(number), messages[0]):
                return answers
            if int(last) >= int(number):
                raise refused(Exception("TASKQ producer sequence went back"))
        calls = zip(messages[::3], messages[1::3], messages[2::3], strict=True)
        answers = b"".join([self._accept(*call) for call in calls])
        self.strings[key] = b"%d %s %s" % (int(number), answers, messages[0])
        self.expires[key] = self.now + 3_600_000
        return answers

    def _accept(self, id_: bytes, value: bytes, options: bytes) -> bytes:
        if id_ in self.hashes["messages"] or "result:" + id_.decode() in self.strings:
            return b"="
        value = value[:2] + struct.pack(">d", self.now) + value[2:]
        queue, due, of_day, answer, elsewhere = decode_head(value)[1], self.now, False, b"+", False
        for word in options.decode().split():
            n = float(word[1:] or 0)
            match word[0]:
                case "w":
                    elsewhere = True
                    answer = b"+" if queue.encode() in self.hashes["serving"] else b"-"
                case "d" | "a":
                    due, of_day = n + self.now * (word[0] == "d"), word[0] == "a"
                case "x" | "e":
                    stamp = struct.pack(">d", n + self.now * (word[0] == "x"))
                    value = b"%c%c%s%s%s" % (value[0], value[1] + FLAG_EXPIRES, value[2:10], stamp, value[10:])
        self.hashes["messages"][id_] = value
        self.count(queue, "accepted")
        if elsewhere:
            self.hashes["guests"][f"{queue}|{decode_head(value)[0]}".encode()] = b"1"
            if value[1] & FLAG_AT_MOST_ONCE:
                self.mark(queue, b"o")
        if due > self.now:
            self.schedule(queue, id_, due, of_day)
        else:
            self.push(queue, [id_])
        return answer

    # -- incarnations -------------------------------------------------------------------------------------

    def register_(self, inc: bytes, lease: bytes, info: bytes, set_: bytes, queues: bytes, _announced: bytes) -> Reply:
        end = float(round(self.now + int(lease)))
        self.scores["leases"][inc] = end
        self.scores["terms"][inc] = float(lease)
        self.hashes["calls"].setdefault(inc, b"0")
        self.hashes["workers"][inc] = info
        if set_:
            is_new = self._serve(set_, queues, end)
            self._tell_what_waits(queues)
            if is_new:
                self._tell_of_lines(queues)
        return 1

    def _serve(self, set_: bytes, queues: bytes, end: float) -> bool:
        ends, serving = self.scores["set-leases"], self.hashes["serving"]
        ends[set_] = max(end, ends.get(set_, 0.0))
        missing = set_ not in self.hashes["sets"]
        self.hashes["sets"].setdefault(set_, queues)
        for queue in queues.split():
            if set_ not in serving.get(queue, b"").split():
                serving[queue] = serving[queue] + b" " + set_ if queue in serving else set_
                missing = True
        return missing

    def _tell_what_waits(self, queues: bytes) -> None:
        for name in queues.decode().split():
            if self.lists["queue:" + name]:
                self.announce(name)
            if self.lists["suspects:" + name]:
                self.announce(name, "solo", "solo-bell")

    def _tell_of_lines(self, queues: bytes) -> None:
        for gate, waiters in list(self.hashes["gates"].items()):
            for queue in set(waiters.split()) & set(queues.split()):
                self.tell_of_line(queue.decode(), gate.decode())

    def renew_(self, lease: bytes, sets: bytes, _announced: bytes, *incarnations: bytes) -> Reply:
        shortest, _ = self.pulse(int(lease))
        end = float(round(self.now + int(lease)))
        lost, unknown, healed, suspects, unheard = [], [], [], 0, 0
        for inc, info in zip(incarnations[::2], incarnations[1::2], strict=True):
            leased = inc in self.scores["leases"]
            if not leased and inc not in self.hashes["calls"]:
                lost.append(inc)
                continue
            self.scores["leases"][inc], self.scores["terms"][inc] = end, float(lease)
            leased &= inc in self.hashes["calls"]
            self.hashes["calls"].setdefault(inc, b"0")
            if info:
                self.hashes["workers"][inc] = info
            unknown += [inc] if inc not in self.hashes["workers"] else []
            healed += [] if leased else [b"incarnation " + inc]
        for line in sets.splitlines():
            set_, queues = line.split(b" ", 1)
            if self._serve(set_, queues, end):
                healed.append(b"set " + set_)
                self._tell_what_waits(queues)
                self._tell_of_lines(queues)
            unheard |= self._remind(set_.decode(), queues.decode().split())
            suspects |= bool(self.scores["solo:" + set_.decode()])
        next_end = self.next_end()
        again = int(lease) if next_end is None else next_end
        if shortest < int(lease):
            again = min(again, shortest / 3)
        return [whole(again), int(suspects), [], 0, unknown, healed, unheard, *lost]

    def _remind(self, set_: str, queues: list[str]) -> bool:
        """Put back names that are missing and ring; answers whether something was ready and the bell silent."""
        ready = self.scores["ready:" + set_]
        unheard = bool(ready) and not self.lists["bell:" + set_]
        for name in queues:
            if self.lists["queue:" + name]:
                ready.setdefault(name.encode(), self.now)
            if self.lists["suspects:" + name] and not self.hashes["marks"].keys() & {name.encode(), b"*"}:
                self.scores["solo:" + set_].setdefault(name.encode(), self.now)
        if ready:
            self.ring("bell:" + set_)
        return unheard

    def close_(self, inc: bytes, how: bytes, alone: bytes, cause: bytes, *running: bytes) -> Reply:
        if inc not in self.hashes["calls"]:
            return []
        return self.recover(inc, set(running), how == b"died", alone == b"1", cause)

    def reap_(self, limit: bytes, dry: bytes) -> Reply:
        lease = self.setting("lease") or 15_000
        out: list[Any] = []
        if dry == b"1":
            for inc in self.until("leases", round(self.now), int(limit)):
                held = self.hashes["processing:" + inc.decode()]
                moves = [w for id_ in self.in_order(held) for w in (id_, queue_of(held[id_]).encode(), b"held")]
                out += [inc, len(moves) // 3, *moves]
            return [self._reap_next(), *out]
        shortest, longest = self.pulse(lease)
        for inc in self.until("leases", round(self.now), int(limit)):
            moves = self.recover(inc, None, True, False, b"")
            out += [inc, len(moves) // 3, *moves]
        for set_ in self.until("set-leases", round(self.now - longest), 20):
            self._forget_set(set_)
        return [self._reap_next(shortest / 3 if shortest < lease else math.inf), *out]

    def _reap_next(self, at_most: float = math.inf) -> bytes | int:
        next_end = self.next_end()
        return -1 if next_end is None else whole(min(next_end, at_most))

    def _forget_set(self, set_: bytes) -> None:
        serving = self.hashes["serving"]
        for queue in self.hashes["sets"].pop(set_, b"").split():
            others = [other for other in serving.pop(queue, b"").split() if other != set_]
            if others:
                serving[queue] = b" ".join(others)
        self.hashes["runs"].pop(set_, None)
        del self.scores["set-leases"][set_]
        for family in ("ready", "bell", "solo", "solo-bell", "spent"):
            self.delete(f"{family}:{set_.decode()}")

    def sync_(self, inc: bytes, number: bytes, lost: bytes, *known: bytes) -> Reply:
        last = float(self.hashes["calls"].get(inc, -1))
        if last < 0:
            return [b"lost"]
        if int(number) <= last:
            return [b"stale"]
        executed = last >= int(lost) and last.is_integer()
        self.hashes["calls"][inc] = number + (b"" if executed else b".5")
        held = self.hashes["processing:" + inc.decode()]
        unknown = [id_ for id_ in held if id_ not in known]
        heads: dict[str, list[bytes]] = {}
        for id_ in unknown:
            taken = held.pop(id_)
            self.count(queue_of(taken), "returned")
            if taken.startswith(b"!"):
                self.push(queue_of(taken), [id_], at_head=True, suspects=True)
            else:
                heads.setdefault(queue_of(taken), []).append(id_)
        for queue, ids in heads.items():
            self.push(queue, self.in_order(ids), at_head=True)
        return [int(executed), *(id_ for id_ in known if id_ not in held)]

    # -- settling and taking ------------------------------------------------------------------------------

    def fetch_(
        self,
        inc: bytes,
        number: bytes,
        want: bytes,
        set_: bytes,
        mode: bytes,
        caps: bytes,
        order: bytes,
        *groups: bytes,
    ) -> Reply:
        calls = self.hashes["calls"]
        if inc not in calls:
            return [b"lost"]
        if int(number) <= float(calls[inc]) or (mode == b"next" and int(number) != float(calls[inc]) + 1):
            return [b"stale"]
        calls[inc] = number
        fenced = self._settle(self.hashes["processing:" + inc.decode()], list(groups), set_.decode())
        self.promote(100)
        if int(want) and mode == b"solo":
            taken, crashes = self._take_suspect(inc, set_.decode())
        else:
            taken, crashes = [], 0
            if int(want):
                taken = self._take(inc, int(want), Shares(self, set_.decode(), order.decode()), caps.decode())
        if set_ and mode != b"solo" and self.scores["ready:" + set_.decode()]:
            self.ring("bell:" + set_.decode())
        return [whole(self.now), fenced, crashes, *taken]

    def _settle(self, held: dict[bytes, bytes], groups: list[bytes], set_: str) -> int:
        """Read groups of outcomes as ``fetch.lua`` lists them; answers how many were of messages not held."""
        fenced = 0
        while groups:
            if groups[0] == b"done":
                ids, ttl, n = [groups[1][i : i + 16] for i in range(0, len(groups[1]), 16)], groups[2], int(groups[3])
                results, groups = groups[4 : 4 + n] or [b""] * len(ids), groups[4 + n :]
                todo = [(b"end", id_, b"done", result, ttl) for id_, result in zip(ids, results, strict=True)]
            else:
                width = {b"end": 5, b"dead": 6, b"schedule": 5, b"return": 2, b"pass": 5}[groups[0]]
                todo, groups = [tuple(groups[:width])], groups[width:]  # type: ignore[list-item]
            for kind, id_, *rest in todo:
                taken = held.pop(id_, None)
                if taken is None:
                    fenced += 1
                elif kind == b"pass":
                    self.hand_on(set_, id_, taken, rest)
                else:
                    self._end(kind, id_, taken, rest)
        return fenced

    def _end(self, kind: bytes, id_: bytes, taken: bytes, rest: list[bytes]) -> None:
        queue = queue_of(taken)
        if kind == b"return":
            self.count(queue, "returned")
            self.push(queue, [id_], at_head=True, suspects=taken.startswith(b"!"))
        elif kind == b"schedule":
            self.hashes["messages"][id_] = rest[0]
            self.count(queue, rest[2].decode())
            if int(rest[1]) > 0:
                self.schedule(queue, id_, self.now + int(rest[1]))
            else:
                self.push(queue, [id_], suspects=id_ in self.hashes["crashes"])
        elif kind == b"dead":
            self.bury(queue, id_, rest[0], rest[1])
            self.publish(id_, rest[2], int(rest[3]))
        else:
            self.count(queue, rest[0].decode())
            del self.hashes["messages"][id_]
            self.hashes["crashes"].pop(id_, None)
            self.publish(id_, rest[1], int(rest[2]))

    def _move(self, inc: bytes, name: str, queue: str, n: int, mark: bytes) -> list[bytes]:
        """Take up to ``n`` ids of a list; answers ids and values in turn."""
        ids, self.lists[name] = self.lists[name][:n], self.lists[name][n:]
        return [word for id_ in ids for word in self.hold(inc, queue, id_, mark)]

    def _take_suspect(self, inc: bytes, set_: str) -> tuple[list[bytes], int]:
        while queue := self.pop("solo:" + set_):
            suspects = self.lists["suspects:" + queue]
            if suspects and self.ended(queue, suspects[0]):
                suspects.pop(0)
                if suspects:
                    self.announce(queue, "solo", "solo-bell")
                continue
            taken = self._move(inc, "suspects:" + queue, queue, 1, b"!")
            if taken and self.lists["suspects:" + queue]:
                self.announce(queue, "solo", "solo-bell")
            if taken:
                return taken, int(self.hashes["crashes"].get(taken[0], 0))
        return [], 0

    def _take(self, inc: bytes, want: int, shares: Shares, caps: str) -> list[bytes]:
        ready = self.scores["ready:" + shares.set]
        many = caps.startswith("*")
        pace = {name: told.partition("/") for name, told in (word.split("=") for word in caps.strip("*").split())}
        out: list[bytes] = []
        budget, left = 1.0, float(want)
        for turns in range(len(ready), 0, -1):
            line = shares.next()
            queue = line.partition("|")[0]
            told, _, ms = pace.get(queue, ("1" if caps else str(want), "", ""))
            most = int(told)
            if many and told != "0":
                most = want if shares.order == "" else math.ceil(left / turns)
            n, taken, more, alone = 0, [], True, False
            if most > 0:
                n = int(min(left, most if many else max(1, math.floor(most * budget))))
            elif not out:
                n = 1
            else:
                alone = True
            if n:
                if line != queue or queue.encode() in self.hashes["marks"]:
                    taken, more, alone = self._take_with_care(inc, line, n, bool(out))
                else:
                    taken = self._move(inc, "queue:" + queue, queue, n, b"")
                    more = len(taken) == 2 * n and bool(self.lists["queue:" + queue])
                alone = alone and most > 0
                left -= len(taken) / 2 if most else want * len(taken) / 2
                budget -= len(taken) / 2 / most if most and not many else 0
            out += taken
            if shares.order and taken:
                shares.charge(queue, len(taken) / 2 * float(ms or 10))
            if more:
                ready[line.encode()] = shares.turn(queue)[0] if shares.order else self.now * bool(taken or not alone)
            if alone or left <= 0 or budget < 0.01:
                break
        return out

    def _take_with_care(self, inc: bytes, line: str, n: int, any_taken: bool) -> tuple[list[bytes], bool, bool]:
        """Take up to ``n`` of a line, or of a queue with marks; what runs at most once is taken alone."""
        queue, taken = line.partition("|")[0], list[bytes]()
        careful = b"o" in self.hashes["marks"].get(queue.encode(), b"")
        if line != queue:
            if careful and any_taken:
                return taken, True, True
            taken, more = self.take_line(inc, line, 1 if careful else n)
            return taken, more, careful and bool(taken)
        if not careful:
            taken = self.take_some(inc, queue, n)
            return taken, bool(self.lists["queue:" + queue]), False
        for _ in range(n):
            ids = self.lists["queue:" + queue]
            if not ids:
                break
            if self.ended(queue, ids[0]):
                ids.pop(0)
                continue
            once = bool(self.hashes["messages"][ids[0]][1] & FLAG_AT_MOST_ONCE)
            if once and (taken or any_taken):
                Base.push(self, queue, [ids.pop(0)], at_head=True)
                return taken, True, True
            got = self.take_some(inc, queue, 1, rounds=1)
            taken += got
            if once and got:
                return taken, bool(self.lists["queue:" + queue]), True
        return taken, bool(self.lists["queue:" + queue]), False

    # -- time ---------------------------------------------------------------------------------------------

    def promote_(self, who: bytes, limit: bytes, keep: bytes, _skip: bytes) -> Reply:
        moved, due = self.promote(int(limit))
        keeper, until = self.strings.get("keeper", b" 0").split(b" ")
        if due is None:
            if keeper == who:
                self.delete("keeper")
            return [moved, -1, whole(self.now), 0]
        wait = min(max(due - self.now, 0.0), float(keep))
        if keeper not in (b"", who) and self.now - 100 < int(until) <= due:
            return [moved, whole(math.ceil(wait + 500)), whole(self.now), 0]
        self.strings["keeper"] = b"%s %s" % (who, whole(self.now + wait))
        self.expires["keeper"] = self.now + round(wait + 1000)
        return [moved, whole(math.ceil(wait)), whole(self.now), 0]

    def retire_(self, limit: bytes, *queues: bytes) -> Reply:
        ttl = self.setting("dead_ttl")
        if ttl is None:
            return 0
        old = {q: self.until("dead:" + q, round(self.now - ttl), int(limit)) for q in map(bytes.decode, queues)}
        return sum(self.drop(queue, ids) for queue, ids in old.items())

    # -- those who look on --------------------------------------------------------------------------------

    def await_(self, inbox: bytes, *ids: bytes) -> Reply:
        out: list[Any] = []
        for id_ in ids:
            if (result := self.strings.get("result:" + id_.decode())) is not None:
                out.append(result)
            elif id_ in self.hashes["reasons"]:
                out.append([self.hashes["reasons"][id_]])
            else:
                out.append(int(id_ in self.hashes["messages"]))
            if out[-1] == 1 and inbox:
                names = self.hashes["waiters"].get(id_, b"").split()
                self.hashes["waiters"][id_] = b" ".join(names if inbox in names else [*names, inbox])
        return out

    def locate_(self, id_: bytes) -> Reply:
        if (result := self.strings.get("result:" + id_.decode())) is not None:
            return [b"result", result]
        value = self.hashes["messages"].get(id_)
        if value is None:
            return [b"unknown"]
        if id_ in self.hashes["reasons"]:
            died = self.scores["dead:" + decode_head(value)[1]][id_]
            return [b"dead", value, self.hashes["reasons"][id_], whole(died)]
        if id_ in self.scores["schedule"]:
            return [b"scheduled", value, whole(self.scores["schedule"][id_])]
        for inc in self.until("leases", math.inf, 1000):
            taken = self.hashes["processing:" + inc.decode()].get(id_)
            if taken is not None:
                return [b"processing", value, taken.split()[0].lstrip(b"!"), self.hashes["workers"].get(inc, b"")]
        return [b"pending", value]

    def survey_(self) -> Reply:
        counters = self.hashes["counters"]
        places: list[Any] = []
        for queue in dict.fromkeys(field.decode().rpartition("|")[0] for field in counters):
            waiting = len(self.lists["queue:" + queue]), len(self.lists["suspects:" + queue])
            if any(waiting) or self.scores["dead:" + queue]:
                places += [queue.encode(), *waiting, len(self.scores["dead:" + queue]), b""]
        held = Counter(
            queue_of(taken).encode()
            for inc in self.until("leases", math.inf, 1 << 30)
            for taken in self.hashes["processing:" + inc.decode()].values()
        )
        return [[w for pair in counters.items() for w in pair], places, [w for pair in held.items() for w in pair]]

    # -- plain commands -----------------------------------------------------------------------------------

    def _set(self, name: str, value: bytes, _px: bytes, ms: bytes) -> Reply:
        self.strings[name], self.expires[name] = value, self.now + int(ms)
        return b"OK"

    def _hset(self, name: str, *pairs: bytes) -> Reply:
        self.hashes[name].update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(pairs) // 2

    def _lpop(self, name: str, n: bytes = b"") -> Reply:
        count = int(n or 1)
        popped, self.lists[name] = self.lists[name][:count], self.lists[name][count:]
        if not self.lists[name]:
            self.delete(name)
        return (popped or None) if n else (popped[0] if popped else None)


_PLAIN: dict[bytes, Callable[..., Reply]] = {
    b"SET": Model._set,
    b"HSET": Model._hset,
    b"LPOP": Model._lpop,
    b"DEL": Model.delete,
    b"HKEYS": lambda model, name: list(model.hashes[name]),
}
