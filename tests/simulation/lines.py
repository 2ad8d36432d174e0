"""Lines of what was handed on, in the server in memory: a second writing of ``#t`` in the scripts' gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from taskq.message.head import decode_head
from tests.simulation.base import Base, queue_of, whole


class Lines(Base):
    """What waits for a lane, or a worker, that runs its task."""

    def enlist_(self, lanes: bytes) -> Any:
        self.hashes["homes"].setdefault(b"=", whole(self.now) if self.hashes["tasks"] else b"0")
        for line in lanes.decode().splitlines():
            name, *tasks = line.split()
            self.hashes["runs"][name.encode()] = lanes
            for task in tasks:
                self.open(f"{task}#t", anyone=False)
        return 1

    def served_by(self, queue: str, gate: str, anyone: bool = False) -> list[str]:
        """The sets of the lanes that are told of a line."""
        sets, able = self.hashes["serving"].get(queue.encode(), b"").decode().split(), []
        for name in sets:
            lanes = self.hashes["runs"].get(name.encode())
            lines = [f"{name} {gate[:-2]} "] if lanes is None else lanes.decode().splitlines()
            able += [line.split()[0] for line in lines if f" {gate[:-2]} " in line]
        return sets if anyone and not able else able

    def tell_of_line(self, queue: str, gate: str, anyone: bool = False) -> None:
        for name in self.served_by(queue, gate, anyone):
            self.scores["ready:" + name].setdefault(f"{queue}|{gate}".encode(), self.now)
            self.ring("bell:" + name)

    def mark(self, queue: str, letter: bytes) -> None:
        marks = self.hashes["marks"]
        if letter not in marks.get(queue.encode(), b""):
            marks[queue.encode()] = marks.get(queue.encode(), b"") + letter

    def line_of(self, queue: str, id_: bytes) -> str | None:
        """The gate at whose line a message has to stand, if there is one."""
        gate = decode_head(self.hashes["messages"][id_])[0] + "#t"
        return gate if b" %s " % queue.encode() in self.hashes["gates"].get(gate.encode(), b"") else None

    def open(self, gate: str, anyone: bool = True) -> None:
        for queue in self.hashes["gates"].get(gate.encode(), b"").decode().split():
            self.tell_of_line(queue, gate, anyone)

    def open_due(self) -> float | None:
        for gate in self.until("openings", self.now, 50):
            del self.scores["openings"][gate]
            self.open(gate.decode())
        first = self.first("openings")
        return first and first[1]

    def put_back(self, queue: str, ids: Sequence[bytes]) -> None:
        """What was not started goes to the head of its queue or line."""
        if b"l" not in self.hashes["marks"].get(queue.encode(), b""):
            return super().push(queue, ids, at_head=True)
        for id_ in reversed(ids):
            gate = self.line_of(queue, id_)
            if gate is None:
                super().push(queue, [id_], at_head=True)
            else:
                self._stand(queue, gate, id_, at_head=True)
                self.tell_of_line(queue, gate)
        return None

    def push(self, queue: str, ids: Sequence[bytes], *, at_head: bool = False, suspects: bool = False) -> None:
        if at_head and not suspects:
            self.put_back(queue, ids)
        else:
            super().push(queue, ids, at_head=at_head, suspects=suspects)

    def _stand(self, queue: str, gate: str, id_: bytes, at_head: bool = False) -> None:
        waiters, line = self.hashes["gates"].get(gate.encode(), b" "), self.lists[f"gated:{queue}|{gate}"]
        if b" %s " % queue.encode() not in waiters:
            self.hashes["gates"][gate.encode()] = waiters + queue.encode() + b" "
        line.insert(0 if at_head else len(line), id_)
        self.count(queue, "gated")

    def hand_on(self, set_: str, id_: bytes, taken: bytes, rest: list[bytes]) -> None:
        """A delivery ends since its task is not run here."""
        queue, opens, again = queue_of(taken), self.now + int(rest[1]), rest[2] == b"1"
        if rest[0]:
            self.hashes["messages"][id_] = rest[0]
        gate = decode_head(self.hashes["messages"][id_])[0] + "#t"
        self.count(queue, "deferred")
        if taken.startswith(b"!"):
            lanes = self.served_by(queue, gate)
            if not lanes:
                return self.schedule(queue, id_, min(opens, self.now + 60_000))
            self.lists["suspects:" + queue].insert(0, id_)
            for lane in lanes:
                self.scores["solo:" + lane].setdefault(queue.encode(), self.now)
                self.ring("solo-bell:" + lane)
            return None
        self.mark(queue, b"l")
        self._stand(queue, gate, id_, again)
        self.tell_of_line(queue, gate)
        self.scores["ready:" + set_].pop(f"{queue}|{gate}".encode(), None)
        openings = self.scores["openings"]
        openings[gate.encode()] = min(float(math.ceil(opens)), openings.get(gate.encode(), math.inf))
        if self.first("openings") == (gate.encode(), openings[gate.encode()]):
            self.ring("alarm")
        return None

    def ended(self, queue: str, id_: bytes) -> bool:
        """End a message that has expired; answers whether it has."""
        expires = decode_head(self.hashes["messages"][id_])[3]
        if expires is None or expires > self.now:
            return False
        del self.hashes["messages"][id_]
        self.hashes["crashes"].pop(id_, None)
        self.count(queue, "discarded")
        self.publish(id_, b"Xexpired", self.setting("result_ttl") or 3_600_000)
        return True

    def take_some(self, inc: bytes, queue: str, n: int, rounds: int = 10) -> list[bytes]:
        """Take up to ``n`` of a queue in which some have to stand in line, and some may have expired."""
        taken: list[bytes] = []
        for _ in range(rounds):
            ids, self.lists["queue:" + queue] = self.lists["queue:" + queue][:n], self.lists["queue:" + queue][n:]
            for id_ in ids:
                if self.ended(queue, id_):
                    continue
                gate = self.line_of(queue, id_)
                if gate is None:
                    taken += self.hold(inc, queue, id_)
                else:
                    self._stand(queue, gate, id_)
            if taken or not self.lists["queue:" + queue]:
                break
        return taken

    def take_line(self, inc: bytes, line: str, n: int) -> tuple[list[bytes], bool]:
        """Take up to ``n`` of a line; answers also whether there are more."""
        queue, _, gate = line.partition("|")
        left, taken = self.lists["gated:" + line], list[bytes]()
        while left and len(taken) < 2 * n:
            id_ = left.pop(0)
            self.count(queue, "gated", -1)
            if not self.ended(queue, id_):
                taken += self.hold(inc, queue, id_)
        if not left:
            waiters = self.hashes["gates"].pop(gate.encode(), b" ").replace(b" %s " % queue.encode(), b" ", 1)
            if waiters != b" ":
                self.hashes["gates"][gate.encode()] = waiters
        return taken, bool(left)

    def hold(self, inc: bytes, queue: str, id_: bytes, mark: bytes = b"") -> list[bytes]:
        """Let an incarnation hold a message; answers its id and value."""
        held = self.hashes["processing:" + inc.decode()]
        held[id_] = b"%s%s %s" % (mark, whole(self.now), queue.encode())
        return [id_, self.hashes["messages"][id_]]
