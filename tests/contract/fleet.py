"""Workers that take and settle by hand, at a time that stands still, with everything audited after each call."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from taskq.broker.commands import announcing, holding, keeping, leasing, producing, steering
from taskq.broker.commands.holding import Batch, Lost
from taskq.broker.commands.outcomes import words
from taskq.broker.queue_set import QueueSet
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.message.outcome import Outcome
from taskq.upkeep.derived import restore
from tests.contract.world import LEASE, MINUTE, World
from tests.model.audit import SCRIPT, Snapshot, violations
from tests.model.flow import over_limit


def more(
    priority: int = 0, fair: str | None = None, weight: float = 1.0, lock: str = "", debounce: str = "",
    limited: bool = False, **keys: str,
) -> bytes:  # fmt: skip
    """What the head of a call says beside its names; keys of limits as ``_1="key"``."""
    fields = [(b"p", bytes([priority + 128]))] if priority else []
    if fair is not None:
        fields.append((b"f", struct.pack(">d", weight) + fair.encode()))
    fields += [(name[1:].encode(), key.encode()) for name, key in keys.items()]
    if limited or keys:
        fields.append((b"l", b""))
    if lock:
        fields.append((b"u", lock.encode()))
    if debounce:
        fields.append((b"d", debounce.encode()))
    return b"".join(letter + bytes([len(content)]) + content for letter, content in fields)


def sent(id_: bytes, head: bytes = b"", task: str = "t", queue: str = "q", options: bytes = b"") -> tuple[bytes, ...]:
    """A message as a producer sends it."""
    return id_, encode_head(task, queue, more=head) + encode_envelope(id_, {}, b""), options


class Fleet:
    """Incarnations of one set of queues; the state is sound after every call."""

    def __init__(self, world: World, *queues: str, set_id: str = "set", incarnations: Sequence[str] = ("inc",)) -> None:
        self.world = world
        world.stop_clock()
        self.queues = QueueSet(set_id, queues or ("q",))
        self.calls: dict[str, int] = {}
        self.sends = 0
        self.audited = True
        for inc in incarnations:
            self.begin(inc)

    def begin(self, inc: str) -> None:
        """Another incarnation begins."""
        self.calls[inc] = 0
        self.world.run(holding.register(self.world.keys, inc, LEASE, b"", self.queues))
        self.sound()

    def sound(self, below_limits: bool = True) -> None:
        """Audit everything there is."""
        if not self.audited:
            return
        snap = self.look()
        wrong = violations(snap) + (over_limit(snap) if below_limits else [])
        assert not wrong, wrong
        assert set(self.world.balances().values()) <= {0}
        found = self.world.go_through(restore(self.world.keys, list(self.queues.queues)))
        assert not found, f"an audit puts right what was sound: {found}"

    @contextmanager
    def unaudited(self) -> Iterator[None]:
        """Make many calls, and audit only what is left in the end."""
        self.audited = False
        yield
        self.audited = True
        self.sound()

    def look(self) -> Snapshot:
        """Read everything there is."""
        return Snapshot.read(self.world.raw(b"EVAL", SCRIPT, 1, self.world.keys.prefix, repr(self.world.now)))

    def publish(self, task: str, *limits: str, queue: str = "q") -> int:
        """A worker publishes a task; answers how many gates may have opened by it."""
        return self.world.run(announcing.publish_tasks(self.world.keys, [(task, queue, "\n".join(limits))])).opened

    def send(self, *ids: bytes, head: bytes = b"", task: str = "t", queue: str = "q", options: bytes = b"") -> bytes:
        """Enqueue some messages of one kind."""
        return self.send_all([sent(id_, head, task, queue, options) for id_ in ids])

    def send_all(self, messages: Sequence[tuple[bytes, ...]]) -> bytes:
        """Enqueue messages, in chunks."""
        answer = b""
        for first in range(0, len(messages), 500):
            self.sends += 1
            some = messages[first : first + 500]
            answer += self.world.run(producing.enqueue(self.world.keys, b"p", self.sends, some))  # type: ignore[arg-type]
        self.sound()
        return answer

    def fetch(self, *outcomes: Outcome, want: int = 0, inc: str = "inc", mode: str = "", caps: str = "") -> Batch:
        """Settle and take, in one call."""
        self.calls[inc] += 1
        batch = self.world.run(
            holding.fetch(
                self.world.keys, inc, self.calls[inc], words(outcomes, MINUTE),
                want=want, set_id=self.queues.id, mode=mode, caps=caps,
            )
        )  # fmt: skip
        self.sound()
        return batch

    def take(self, want: int = 1, inc: str = "inc", mode: str = "", most: int = 128) -> list[bytes]:
        """Take what there is, up to ``want``; gives up after a call that brings nothing and leaves nothing ready."""
        taken: list[bytes] = []
        for _ in range(1000):
            caps = " " + " ".join(f"{queue}={most}" for queue in self.queues.queues) + " "
            got = self.fetch(want=want - len(taken), inc=inc, mode=mode, caps=caps).messages[::2]
            taken += got
            ready = ("solo:" if mode == "solo" else "ready:") + self.queues.id
            if len(taken) >= want or (not got and ready not in self.world.names()):
                return taken
        raise AssertionError("the queues are ready for ever, and give nothing")

    def done(self, *ids: bytes, inc: str = "inc") -> None:
        """End some deliveries well."""
        assert self.fetch(*((id_, b"") for id_ in ids), inc=inc).fenced == 0

    def lose(self, inc: str = "inc", *running: bytes, died: bool = True) -> None:
        """An incarnation's process ends."""
        self.world.run(leasing.close(self.world.keys, inc, died=died, alone=False, running=running))
        self.sound()

    def is_lost(self, inc: str) -> bool:
        """Whether an incarnation's calls are refused."""
        try:
            self.fetch(inc=inc)
        except Lost:
            return True
        return False

    def renew(self) -> None:
        """A parent renews the leases of all."""
        self.world.run(leasing.renew(self.world.keys, LEASE, [self.queues], list(self.calls)))
        self.sound()

    def promote(self) -> float | None:
        """Let a parent look after what is due; answers in how many seconds it is to come again."""
        waits = self.world.run(keeping.promote(self.world.keys, "parent", 100, MINUTE)).wait
        self.sound()
        return waits

    def pause(self, name: str, seconds: float = 0.0) -> bool:
        """Pause a queue or task."""
        was = self.world.run(steering.pause(self.world.keys, name, seconds, "me", "why"))
        self.sound()
        return was

    def resume(self, name: str) -> bool:
        """Resume a queue or task."""
        was = self.world.run(steering.resume(self.world.keys, name))
        self.sound()
        return was

    def limit(self, task: str, text: str) -> bool:
        """Set the limits of a task by hand."""
        known = self.world.run(steering.limit(self.world.keys, task, text))
        self.sound(below_limits=False)
        return known

    def revoke(self, id_: bytes) -> str:
        """Revoke a message."""
        how = self.world.run(steering.revoke(self.world.keys, id_, "why"))
        self.sound()
        return how
