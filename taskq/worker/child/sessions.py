"""One lane's incarnation in all partitions of an app: a `Session` in each, of which one at a time is asked.

What has ended is settled in the partition that it is of. To take, the lane goes round the partitions: it stays with one
for some milliseconds of work, then the next has its turn, and one that had nothing is left out for a moment. When none
has anything it waits for the bells of all of them in one command. A fetch follows in the same write, from the first
that has something by then (``fetch_any.lua``): a message that comes alone takes no more round trips than in an app of
one partition.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from taskq.broker.call import Command
from taskq.broker.commands import several
from taskq.broker.commands.holding import Batch, Lost, Stale
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.keys import Keys
from taskq.broker.protocol import Now, Protocol, Sleep
from taskq.broker.topology import Topology
from taskq.errors import BrokerRefused
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
        self._ahead: tuple[list[Session], Command[tuple[int, Batch]]] | None = None  # whom the wait under way asks
        self._stays_until = 0.0  # with that one
        self._in_vain = False  # whether a wait was, since somebody was asked

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
        self._in_vain = reply is None
        if reply is not None:
            self._rung.add(self._by_bell[reply[0]])

    def open(self) -> Protocol[None]:
        """Begin a new incarnation. What the last one holds is given up: where it is not lost, it is here."""
        for session in self._turn:
            yield from session.give_up()
        self._ahead = None
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
        if self._ahead is not None and (ended or self._rung or not wait):  # it may take what nobody waits for
            self._forget_wait()
        if wait and not self._rung:
            return (yield from self._wait(ended, want, caps, wait))
        if want:
            return (yield from self._take(ended, want, caps))
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
        """Wait for any bell, then take where there is something; where something is settled, only begin to wait."""
        likely, settles = self._likely, bool(ended)
        own = yield from self._settle_but(likely, ended)
        if settles and not own:
            return Batch(0, 0, 0, [])
        if own:
            whom = list(self._turn)
            begin = partial(self._fetch_any, whom, want, caps, wait)
            batch: Batch = yield from likely.exchange(own, then=lambda number: begin((likely.keys, number)))
            ahead = likely.sent_along()
            if ahead is None:
                self._forget_wait()
            else:
                self._ahead = whom, ahead
            return batch
        if self.doubtful:
            self._forget_wait()
            return (yield from self._take({}, want, caps))
        if self._ahead is None:
            whom = list(self._turn)
            self._ahead = whom, self._fetch_any(whom, want, caps, wait)
        (whom, command), self._ahead = self._ahead, None
        try:
            which, batch = yield command
        except (NotSent, Unanswered, Passing, Stale, BrokerRefused):
            self._forget_wait()
            yield Sleep(backoff(0, 1.0))
            return Batch(0, 0, 0, [])
        found = whom[which]
        found.held.update(batch.messages[::2])
        self._rung.discard(found)
        if batch.messages:
            self._found_in(found, (yield Now()))
        elif self._rung:
            return (yield from self._take({}, want, caps))
        return batch

    def _fetch_any(
        self, whom: list[Session], want: int, caps: str, wait: float, after: tuple[Keys, int] | None = None
    ) -> Command[tuple[int, Batch]]:
        return several.fetch_any(
            [(session.keys, session.next_number()) for session in whom], self.incarnation, want=want,
            queues=self._turn[0].queues, caps=caps, wait=wait, bells=self.bells, heard=self.rang, after=after,
        )  # fmt: skip

    def _forget_wait(self) -> None:
        """A wait was broken off, and with it went what may have been a token, or messages: each is asked again."""
        self._ahead = None
        self.doubtful = True
        self._rung.update(self._turn)

    def _found_in(self, session: Session, now: float) -> None:
        """Stay with a partition for a while; then all others have their turn before it."""
        if session is not self._likely or now >= self._stays_until:
            self._likely, self._stays_until = session, now + BUDGET
            self._turn.remove(session)
            self._turn.append(session)

    def _due(self, now: float) -> list[Session]:
        """Whom to ask, in turn: who had something lately or may have by now. After a wait in vain one is enough."""
        if self._in_vain:
            self._in_vain = False
            return list(self._rung) or [self._turn[0]]
        due = [one for one in self._turn if one in self._rung or self._left_out.get(one, 0.0) <= now]
        due.sort(key=lambda one: (one is not self._likely or now >= self._stays_until, one not in self._rung))
        return due

    def _take(self, ended: Ended, want: int, caps: str) -> Protocol[Batch]:
        """Go round until some partition has something; answers an empty batch if none has."""
        now: float = yield Now()
        due = self._due(now)
        if not due:
            yield from self._settle(ended)
        for session in due:
            own = yield from self._settle_but(session, ended)
            ended = {}
            self._rung.discard(session)
            batch: Batch = yield from session.exchange(own, want=want, caps=caps)
            if batch.messages:
                self._found_in(session, now)
                return batch
            self._left_out[session] = (yield Now()) + _LEFT_OUT
        return Batch(0, 0, 0, [])
