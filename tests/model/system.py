"""An app with a few workers, driven by hand: its commands and protocols against a real server, step by step."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from taskq.broker.call import Command
from taskq.broker.commands import announcing, leasing
from taskq.broker.commands.holding import Batch
from taskq.broker.commands.leasing import Renewal
from taskq.broker.faults import NotSent, Unanswered
from taskq.broker.keys import Keys
from taskq.broker.net.connection import Connection
from taskq.broker.producer import Numbering
from taskq.broker.protocol import Protocol, drive
from taskq.broker.queue_set import QueueSet
from taskq.config import Settings
from taskq.errors import BrokerRefused
from taskq.message import codec
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.runs.execution import Executor
from taskq.upkeep.reaper import Reaper
from taskq.worker.child.session import Session
from taskq.worker.parent.closing import Closer, Closing
from taskq.worker.seats import digest
from tests.model.audit import SCRIPT, Snapshot
from tests.support import stopped, unique_name

T = TypeVar("T")

#: Three ids, two of 16 bytes and a caller's; two queues; two sets of queues, one within the other.
IDS = (b"message-00000001", b"message-00000002", b"c")
QUEUE_OF = {IDS[0]: "q", IDS[1]: "q", IDS[2]: "p"}
#: Two tasks that share a queue, and one that has its queue for itself.
TASK_OF = {IDS[0]: "t", IDS[1]: "u", IDS[2]: "p"}
BOTH, ONE = QueueSet("both", ("p", "q")), QueueSet("one", ("q",))

#: Time goes in steps of 3 s, and no span is a multiple of that: nothing is due just at the moment of a step.
T0, STEP, LEASE, DELAY = 2_000_000_001_000, 3_000, 16_000, 10.0


def stored(id_: bytes, queue: str | None = None, task: str | None = None) -> bytes:
    """A message as a producer sends it; of those with one letter as their id, a header says so."""
    headers = {"user": codec.pack({"short": True})} if len(id_) == 1 else {}
    head = encode_head(task or TASK_OF.get(id_, "t"), queue or QUEUE_OF[id_])
    return head + encode_envelope(id_, headers, b"")


class Line:
    """A connection whose next calls meet a fault: a word each.

    ``""``: none. ``away``: cannot be made. ``before``: broke on the way there. ``late``: the same, but the call arrives
    later, see `late`. ``after``: broke on the way back. ``mended`` is called when the server refuses a call.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.faults: deque[str] = deque()
        self.late: list[Command[Any]] = []
        self.mended: Callable[[], object] = lambda: None
        self._connection = Connection(url)

    def execute(self, command: Command[T]) -> T:
        """Execute a command, or not."""
        fault = self.faults.popleft() if self.faults else ""
        if fault == "away":
            raise NotSent("away")
        if fault == "late":
            self.late.append(replace(command, bells=None, ahead=None))
        if fault in ("before", "late"):
            raise Unanswered(fault)
        try:
            reply = self._connection.execute(stopped(command))
        except BrokerRefused:
            self.mended()
            raise
        if fault == "after":
            raise Unanswered(fault)
        return reply

    def drive(self, steps: Protocol[T]) -> T:
        """Run a protocol without its pauses."""
        return drive(steps, self, sleep=lambda _: None)  # type: ignore[arg-type]

    # -- as a `Broker` ------------------------------------------------------------------------------------

    def run(self, command: Command[T]) -> T:
        """Execute a command as a parent's broker does: repeated if that is safe."""
        while True:
            try:
                return self.execute(command)
            except NotSent:
                continue
            except Unanswered:
                if not command.repeatable:
                    raise

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()


class System:
    """One app.

    Attributes:
        now: What the scripts' clock shows at the beginning of each step.
        line: The connection everything goes over.
    """

    def __init__(self, url: str, **settings: int) -> None:
        self.keys = Keys(unique_name())
        self.now = float(T0)
        self.line = Line(url)
        self.settings = {"lease": LEASE, **settings}
        self.reaper = Reaper(self.keys, "reaper", LEASE / 1000, report=lambda _, __: None)
        self.producer = Numbering(self.keys, "here", seconds=60.0)
        self._incarnations = itertools.count(1)
        self.closer = Closer(self.keys, "here", Executor({}, Settings(), "worker"))
        self.look()
        tasks = [(task, QUEUE_OF[id_], "") for id_, task in TASK_OF.items()]
        self.line.execute(announcing.publish_tasks(self.keys, tasks, self.settings))

    def look(self) -> Snapshot:
        """Read everything, a moment later."""
        self._tick()
        return Snapshot.read(self.raw(b"EVAL", SCRIPT, 1, self.keys.prefix, self.now))

    def _tick(self) -> None:
        """Let 1 ms pass; otherwise the clock goes on only as `now` is set."""
        self.now += 1
        self.raw("SET", self.keys["clock"], self.now)

    def raw(self, *words: bytes | str | int | float) -> Any:
        """Run a plain command, without faults."""
        return self.line._connection.execute(
            Command(None, [str(w) if type(w) is float else w for w in words], lambda r: r)
        )

    def session(self, queues: QueueSet = BOTH, serve: bool = True) -> Session:
        """A worker's lane that has just begun."""

        def began(_: str) -> None:
            made.incarnation = (
                f"{next(self._incarnations):016x}"  # the same in every run, so that a failure is repeatable
            )

        made = Session(self.keys, queues, b"info", LEASE, 60_000, began, alone=not serve)
        self.line.drive(made.open())
        return made

    def send(self, ids: Iterable[bytes], options: bytes = b"", queue: str | None = None) -> bytes:
        """Send messages as one producer, a moment later."""
        self._tick()
        return self.line.drive(self.producer.send([(id_, stored(id_, queue), b"c" + options) for id_ in ids]))

    def exchange(self, session: Session, outcomes: Sequence[Any] = (), want: int = 0, **more: Any) -> Batch:
        """Settle and take, however often the line breaks."""
        return self.line.drive(session.exchange(outcomes, want=want, **more))

    def crash(self, inc: str, running: Iterable[bytes], *, died: bool = True, company: int = 0) -> bool:
        """A parent closes a child that has ended, by what its slots said; ``company`` ran in other lanes of it."""
        lanes = [(inc, frozenset(map(digest, running)))]
        if company:
            lanes.append(("0" * 16, frozenset(digest(b"other%d" % i) for i in range(company))))
        return self.line.drive(self.closer.close(Closing(died, lanes, frozenset(), "its process was killed")))

    def renew(self, *incarnations: str) -> Renewal:
        """A parent renews leases."""
        return self.line.execute(leasing.renew(self.keys, LEASE, [BOTH, ONE], incarnations))

    def pass_time(self, steps: int, *renewed: str) -> None:
        """Let time pass; ``renewed`` are renewed all along."""
        for _ in range(steps):
            self.now = (self.now // STEP + 1) * STEP
            self.look()
            self.renew(*renewed)

    def end_lease(self, *others: str) -> None:
        """Let every lease end but those of ``others``."""
        self.pass_time(LEASE // STEP + 1, *others)

    def clear(self) -> None:
        """Delete everything on the server."""
        self.raw("FLUSHALL")
