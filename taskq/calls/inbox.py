"""Waiting for results: one connection per process (and event loop), however many wait.

A caller that waits asks the server to put the result, once there is one, into the inbox of its process. One of the
waiting threads reads the inbox for all (there is no listener thread): when its own result comes it hands over to the
next. What is awaited is read again every few seconds and after every reconnect, so a lost push costs seconds, not for
ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from taskq.broker.call import Command
from taskq.broker.commands import awaiting
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import ANSWER_TIMEOUT, Connection
from taskq.broker.patience import persist
from taskq.broker.pool import AsyncBroker, Broker
from taskq.broker.protocol import Now, Protocol, Sleep, adrive, boottime, drive
from taskq.broker.topology import Topology
from taskq.errors import BrokerRefused, TaskqError
from taskq.message.ids import id_to_text

log = logging.getLogger("taskq")

T = TypeVar("T")

#: Seconds after which what is awaited is read again.
_REREAD = 5.0
#: Seconds that the server has at least for an answer, however soon the wait is over.
_PATIENCE = 0.4
#: Seconds that it has at most, beyond the time of a block.
_ANSWER_TIMEOUT = ANSWER_TIMEOUT / 2
#: Seconds after which a connection that nobody waited on is made anew: something between may have forgotten it.
_IDLE = 1.0
_CHUNK = 500

#: What the server says of an id: its result, a list with the reason of its dead letter, 0 (unknown), 1 (alive).
Answer = Any


def _by(deadline: float, now: float, command: Command[T]) -> Command[T]:
    """Return a command whose answer is not waited for long after a deadline, and leaves time for a second try."""
    left = deadline - now if command.block else (deadline - now) / 2
    within = max(left, command.block + _PATIENCE)
    return command if within >= command.block + _ANSWER_TIMEOUT else replace(command, within=within)


def _ask(broker: Broker | AsyncBroker, inbox: str, raw_id: bytes, timeout: float | None) -> Protocol[Answer]:
    """Read a result, or leave word for it, for somebody who waits ``timeout`` seconds.

    Who waits without a time-out also waits for a server that cannot write for now, but not for one that is not there.
    """
    answer: Answer = 0
    for keys in broker.partitions.places(raw_id):
        command = awaiting.await_results(keys, inbox, [raw_id])
        if timeout is None:
            [answer] = yield from persist(command, broker.where, broker.send_timeout, patient=True)
        else:
            now = yield Now()
            command = _by(now + timeout, now, command)
            [answer] = yield from persist(command, broker.where, max(timeout, 2.5 * _PATIENCE))
        if answer != 0:
            break
    return answer


def _pushed(data: bytes) -> tuple[bytes, bytes]:
    """Split what a script put into an inbox: a length byte, the id, the result."""
    end = 1 + data[0]
    return data[1:end], data[end:]


class Waiting:
    """Which ids are awaited, what has come for them, and how the inbox is read.

    Attributes:
        name: The inbox.
        ids: How many callers await each id.
        arrived: What has come.
    """

    def __init__(self, partitions: Topology, came: Callable[[Iterable[tuple[bytes, Answer]]], None]) -> None:
        """Await nothing yet; ``came`` is told of answers, in the thread or loop that reads."""
        self.name = os.urandom(8).hex()
        self.ids: Counter[bytes] = Counter()
        self.arrived: dict[bytes, Answer] = {}
        self._told = False
        self._partitions = partitions
        self._came = came
        self._reread_at = 0.0  # by `boottime`; for all, whoever reads

    def put(self, pairs: Iterable[tuple[bytes, Answer]]) -> None:
        """Keep answers for those who wait."""
        self.arrived.update((raw_id, answer) for raw_id, answer in pairs if raw_id in self.ids)

    def leave(self, raw_id: bytes) -> None:
        """One that waited for it does so no more."""
        self.ids[raw_id] -= 1
        if self.ids[raw_id] <= 0:
            del self.ids[raw_id]
            self.arrived.pop(raw_id, None)

    def listen(self, wanted: Callable[[], object], deadline: float = math.inf) -> Protocol[None]:
        """Read the inbox for everybody while ``wanted()``, until ``deadline`` (by `boottime`) at most."""
        attempt, next_read = 0, (yield Now()) + _REREAD
        self._reread_at = next_read if len(self.ids) <= 1 else min(self._reread_at, next_read)
        while wanted() and (now := (yield Now())) < deadline:
            try:
                if now >= self._reread_at:
                    yield from self._reread(deadline)
                    self._reread_at = now + _REREAD
                    continue
                wait = awaiting.take_inbox(self._partitions, self.name, min(deadline, self._reread_at) - now)
                [*came_by, data] = (yield _by(deadline, now, wait)) or [b""]
                pushed = [data] if came_by else []
                if came_by and len(self.ids) > 1:
                    pushed += yield awaiting.drain_inbox(came_by[0])
                self._came([_pushed(data) for data in pushed])
                attempt = 0
            except (NotSent, Unanswered, Passing):  # a push may have been lost with the connection
                yield Sleep(min(backoff(attempt, 1.0), max(0.0, deadline - (yield Now()))))
                attempt += 1
                self._reread_at = 0.0

    def _reread(self, deadline: float) -> Protocol[None]:
        ids = [raw_id for raw_id in list(self.ids) if raw_id not in self.arrived]
        for chunk in (ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK)):
            gone = chunk
            for keys in self._partitions.all:  # one that is unknown there may be in the next
                if not gone:
                    break
                answers = yield _by(deadline, (yield Now()), awaiting.await_results(keys, self.name, gone))
                told = list(zip(gone, answers, strict=True))
                self._came([(raw_id, answer) for raw_id, answer in told if answer not in (0, 1)])
                gone = [raw_id for raw_id, answer in told if answer == 0]
            self._came([(raw_id, 0) for raw_id in gone])
        if ids:
            yield from self._tell_if_in_vain(ids[0], deadline)

    def _tell_if_in_vain(self, raw_id: bytes, deadline: float) -> Protocol[None]:
        """Say once if no worker can run what is awaited: else whoever forgot to start one waits in silence."""
        if self._told:
            return
        from taskq.views.finding import ask_why
        from taskq.views.why import unserved

        try:
            within = max((deadline - (yield Now())) / 2, _PATIENCE)
            reply = yield from ask_why(self._partitions, raw_id, min(within, _ANSWER_TIMEOUT))
        except BrokerRefused:  # a word of advice must not end the wait
            return
        if text := unserved(raw_id, reply):
            self._told = True
            log.warning("the result of %s is waited for in vain so far: %s", id_to_text(raw_id), text)


class Inbox:
    """Where the threads of a process wait."""

    def __init__(self, broker: Broker) -> None:
        """Prepare an inbox; it connects when somebody waits."""
        self._broker = broker
        self._waiting = Waiting(broker.partitions, self._hand_out)
        self._changed = threading.Condition()
        self._led = False
        self._connection = Connection(broker.url, _ANSWER_TIMEOUT)
        self._used_at = 0.0

    def close(self) -> None:
        """Close the connection, unless somebody waits on it."""
        with self._changed:
            if not self._led:
                self._connection.close()

    def wait(self, raw_id: bytes, timeout: float | None) -> Answer:
        """Wait until the message has ended; answers 1 when ``timeout`` seconds have passed."""
        deadline = math.inf if timeout is None else boottime() + timeout
        with self._changed:
            self._waiting.ids[raw_id] += 1
        try:
            answer = self._broker.drive(_ask(self._broker, self._waiting.name, raw_id, timeout))
            while answer == 1:
                if boottime() >= deadline:
                    return 1
                answer = self._wait_once(raw_id, deadline)
            return answer
        finally:
            with self._changed:
                self._waiting.leave(raw_id)

    def _wait_once(self, raw_id: bytes, deadline: float) -> Answer:
        """Wait for a change: as the one who reads for all, or for that one. Answers 1 if nothing came."""
        with self._changed:
            if raw_id in self._waiting.arrived:
                return self._waiting.arrived[raw_id]
            if self._led:
                self._changed.wait(min(deadline - boottime(), _REREAD))
                return self._waiting.arrived.get(raw_id, 1)
            self._led = True
        try:
            if boottime() - self._used_at > _IDLE:
                self._connection.close()
            drive(self._waiting.listen(lambda: raw_id not in self._waiting.arrived, deadline), self._connection)
        finally:
            with self._changed:
                self._led = False
                self._used_at = boottime()
                self._changed.notify_all()
        return self._waiting.arrived.get(raw_id, 1)

    def _hand_out(self, pairs: Iterable[tuple[bytes, Answer]]) -> None:
        with self._changed:
            self._waiting.put(pairs)
            self._changed.notify_all()


class AsyncInbox:
    """Where the coroutines of an event loop wait; a task of the loop reads while anybody does."""

    def __init__(self, broker: AsyncBroker) -> None:
        """Prepare an inbox; it connects when somebody waits."""
        self._broker = broker
        self._waiting = Waiting(broker.partitions, self._hand_out)
        self._futures: dict[bytes, list[asyncio.Future[Answer]]] = {}
        self._connection = AsyncConnection(broker.url, _ANSWER_TIMEOUT)
        self._reader: asyncio.Task[None] | None = None

    async def wait(self, raw_id: bytes, timeout: float | None) -> Answer:
        """Wait until the message has ended; answers 1 when ``timeout`` seconds have passed."""
        self._waiting.ids[raw_id] += 1
        try:
            async with asyncio.timeout(timeout):
                while (answer := await self._wait_once(raw_id, timeout)) == 1:
                    pass  # the reader has ended: ask again
            return answer
        except TimeoutError:
            return 1
        finally:
            self._waiting.leave(raw_id)

    async def _wait_once(self, raw_id: bytes, timeout: float | None) -> Answer:
        """Ask, and wait for the answer if there is none yet; answers 1 if nobody reads the inbox any more."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(raw_id, []).append(future)
        try:
            answer = await self._broker.drive(_ask(self._broker, self._waiting.name, raw_id, timeout))
            if answer != 1:
                return answer
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
                self._reader.add_done_callback(self._read_ended)
            answer = await future
            if isinstance(answer, Exception):
                raise type(answer)(*answer.args) if isinstance(answer, TaskqError) else answer  # each has its own
            return answer
        finally:
            self._futures[raw_id].remove(future)
            if not self._futures[raw_id]:
                del self._futures[raw_id]

    async def _read(self) -> None:
        await adrive(self._waiting.listen(lambda: self._futures), self._connection)
        await self._connection.close()

    def _read_ended(self, reader: asyncio.Task[None]) -> None:
        """Tell whoever still waits what ended the reading, or (1) to ask again."""
        self._reader = None
        error = None if reader.cancelled() else reader.exception()
        self._hand_out([(raw_id, 1 if error is None else error) for raw_id in self._futures])

    def _hand_out(self, pairs: Iterable[tuple[bytes, Answer]]) -> None:
        for raw_id, answer in pairs:
            for future in self._futures.get(raw_id, ()):
                if not future.done():
                    future.set_result(answer)

    async def close(self) -> None:
        """Stop reading and close the connection; who waits meanwhile asks again, and has it made anew."""
        reader = self._reader
        while reader is not None and not reader.done():
            reader.cancel()  # again, if it came at a moment when it was swallowed
            await asyncio.wait([reader], timeout=0.05)
        if self._reader in (None, reader):
            await self._connection.close()
