"""One lane's incarnation in all partitions of an app: a `Session` in each, of which one at a time is asked.

What has ended is settled in the partition that it is of. To take, the lane goes round the partitions: it stays with one
for some milliseconds of work, then the next has its turn, and one that had nothing is left out for a moment. When none
has anything it waits for the bells of all of them in one command. A fetch follows in the same write, from the partition
where it found something last: a lane whose work comes by one queue pays no more than in an app of one partition. If the
bell of another rang, that one is asked next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from taskq.broker.commands.holding import Batch, Lost
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol
from taskq.broker.topology import Topology
from taskq.message.outcome import Outcome, ids_of
from taskq.worker.child.pace import BUDGET
from taskq.worker.child.session import Session

#: Seconds for which a partition that had nothing is left out; its bell rings when it has something.
_LEFT_OUT = 0.02

#: What has ended, by the session that holds it.
Ended = dict[Session, list[Outcome]]


class Sessions:
    """Does what a `Session` does, in all partitions.

    Attributes:
        incarnation: A random id, the same in each partition; empty before `open` and after `close`.
    """

    def __init__(self, partitions: Topology, began: Callable[[str], None], new: Callable[[Keys], Session]) -> None:
        """Prepare them; ``new`` makes the session of a partition, ``began`` is called as that of a `Session`."""
        self._turn = [new(keys) for keys in partitions.all]  # who is to be asked next comes first
        self._by_bell = {session.bells[0]: session for session in self._turn}
        self._began = began
        self.incarnation = ""
        self._rung: set[Session] = set()  # whose bells have rung since they were asked
        self._left_out: dict[Session, float] = {}  # until when
        self._likely = self._turn[0]  # where something was found last
        self._stays_until = 0.0  # with that one
        self._heard: bool | None = True  # what came of the last wait: False in vain, None if the connection broke

    @property
    def bells(self) -> list[bytes]:
        """The bells of all partitions."""
        return list(self._by_bell)

    @property
    def fenced(self) -> int:
        """Outcomes the server refused because the messages were another's by then."""
        return sum(session.fenced for session in self._turn)

    @property
    def doubtful(self) -> bool:
        """Whether the connection broke since the last exchange; see `Session`."""
        return any(session.doubtful for session in self._turn)

    @doubtful.setter
    def doubtful(self, value: bool) -> None:
        for session in self._turn:
            session.doubtful = value

    def rang(self, reply: Any) -> None:
        """Take note of what came of a wait for the bells: None in vain."""
        self._heard = reply is not None
        if reply is not None:
            self._rung.add(self._by_bell[reply[0]])

    def open(self) -> Protocol[None]:
        """Begin a new incarnation. What the last one holds is given up: where it is not lost, it is here."""
        for session in self._turn:
            yield from session.give_up()
        self._rung.clear()
        self._left_out.clear()
        self.incarnation = os.urandom(8).hex()
        self._began(self.incarnation)
        for session in self._turn:
            yield from session.open(self.incarnation)

    def close(self) -> Protocol[None]:
        """End the incarnation; what it still holds goes back to its queues, uncounted."""
        for session in self._turn:
            yield from session.close()
        self.incarnation = ""

    def exchange(
        self, outcomes: Sequence[Outcome], *, want: int = 0, caps: str = "", wait: float = 0.0
    ) -> Protocol[Batch]:
        """Settle ``outcomes`` and take up to ``want`` messages, as `Session.exchange` does; without either, only ask.

        Raises:
            Lost: As there, in any partition; what is of others has been settled.
        """
        ended = self._split(outcomes)
        if wait and not self._rung:
            return (yield from self._wait(ended, want, caps, wait))
        if want:
            due = list(self._rung) if wait else (yield from self._due())
            return (yield from self._take(ended, want, caps, due))
        yield from self._settle(ended or {session: [] for session in self._turn})
        return Batch(0, 0, 0, [])

    def _split(self, outcomes: Sequence[Outcome]) -> Ended:
        """Find where each is held; all in the one that was asked last, mostly."""
        ids, ended = ids_of(outcomes), Ended()
        if outcomes and self._likely.held.issuperset(ids):
            return {self._likely: list(outcomes)}
        for outcome, raw_id in zip(outcomes, ids, strict=True):
            holder = next((session for session in self._turn if raw_id in session.held), self._likely)
            ended.setdefault(holder, []).append(outcome)
        return ended

    def _settle(self, ended: Ended) -> Protocol[None]:
        lost: Lost | None = None
        for session, some in ended.items():
            try:
                yield from session.exchange(some)
            except Lost as error:
                lost = error
        if lost is not None:
            raise lost

    def _settle_but(self, session: Session, ended: Ended) -> Protocol[list[Outcome]]:
        """Settle what is not of ``session``; answers what is, unless all is to be settled since one has lost it."""
        own = ended.pop(session, [])
        try:
            yield from self._settle(ended)
        except Lost:
            yield from self._settle({session: own})
            raise
        return own

    def _wait(self, ended: Ended, want: int, caps: str, wait: float) -> Protocol[Batch]:
        """Wait for any bell, then ask where one is likeliest to ring; where there is something to settle, at once."""
        asked = self._likely
        own = yield from self._settle_but(asked, ended)
        self._heard = None
        batch: Batch = yield from asked.exchange(
            own, want=want, caps=caps, wait=wait, bells=self.bells, heard=self.rang
        )
        if own:
            return batch
        if self._heard is None:  # with the connection went what may have been a token
            self._rung.update(self._turn)
        self._rung.discard(asked)
        if self._rung and not batch.messages:
            return (yield from self._take({}, want, caps, list(self._rung)))
        return batch

    def _due(self) -> Protocol[list[Session]]:
        """Whom to ask, in turn: who had something lately or may have by now. After a wait in vain one is enough."""
        if self._heard is False:
            self._heard = True
            return list(self._rung) or [self._likely]
        now: float = yield Now()
        due = [one for one in self._turn if one in self._rung or self._left_out.get(one, 0.0) <= now]
        due.sort(key=lambda one: (one is not self._likely or now >= self._stays_until, one not in self._rung))
        return due

    def _take(self, ended: Ended, want: int, caps: str, due: list[Session]) -> Protocol[Batch]:
        """Ask one after the other until one has something; answers an empty batch if none has."""
        now: float = yield Now()
        if not due:
            yield from self._settle(ended)
        for session in due:
            own = yield from self._settle_but(session, ended)
            ended = {}
            self._rung.discard(session)
            batch: Batch = yield from session.exchange(own, want=want, caps=caps)
            if batch.messages:
                if session is not self._likely or now >= self._stays_until:
                    self._likely, self._stays_until = session, now + BUDGET
                    self._turn.remove(session)
                    self._turn.append(session)
                return batch
            self._left_out[session] = (yield Now()) + _LEFT_OUT
        return Batch(0, 0, 0, [])
