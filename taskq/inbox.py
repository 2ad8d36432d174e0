"""Waiting for results: one connection a process (and event loop), however many wait.

Whoever waits leaves word with the server, which puts the result into the process's inbox when there is one. Of the
waiting threads one reads the inbox for all (there is no listener thread): when its own result comes it hands over to
the next. What is awaited is read again every few seconds and after every reconnect, so a lost push costs seconds, not
for ever.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from taskq.broker import commands
from taskq.broker.aio import AsyncConnection
from taskq.broker.connection import Connection
from taskq.broker.faults import NotSent, Passing, Unanswered, backoff
from taskq.broker.pool import AsyncBroker, Broker

#: Seconds after which what is awaited is read again.
_REREAD = 5.0
_CHUNK = 500

#: What the server says of an id: its result, a list with the reason of its dead letter, 0 (unknown), 1 (alive).
Answer = Any


def _pushed(data: bytes) -> tuple[bytes, bytes]:
    """Split what a script put into an inbox: a length byte, the id, the result."""
    end = 1 + data[0]
    return data[1:end], data[end:]


class _Waiting:
    """Which ids are awaited, and what has come for them."""

    def __init__(self) -> None:
        self.name = os.urandom(8).hex()
        self.ids: Counter[bytes] = Counter()
        self.arrived: dict[bytes, Answer] = {}

    def put(self, pairs: Iterable[tuple[bytes, Answer]]) -> None:
        self.arrived.update((raw_id, answer) for raw_id, answer in pairs if raw_id in self.ids)

    def leave(self, raw_id: bytes) -> None:
        self.ids[raw_id] -= 1
        if self.ids[raw_id] <= 0:
            del self.ids[raw_id]
            self.arrived.pop(raw_id, None)

    def open_chunks(self) -> list[list[bytes]]:
        ids = [raw_id for raw_id in self.ids if raw_id not in self.arrived]
        return [ids[i : i + _CHUNK] for i in range(0, len(ids), _CHUNK)]


class Inbox:
    """Where the threads of a process wait."""

    def __init__(self, broker: Broker) -> None:
        """Prepare an inbox; it connects when somebody waits."""
        self._broker = broker
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _reset(self) -> None:
        self._waiting = _Waiting()
        self._changed = threading.Condition()
        self._led = False
        self._connection = Connection(self._broker.url)

    def look(self, raw_ids: list[bytes]) -> list[Answer]:
        """Read what is there now."""
        return self._broker.run(commands.await_results(self._broker.keys, "", raw_ids))

    def close(self) -> None:
        """Close the connection, unless somebody waits on it."""
        with self._changed:
            if not self._led:
                self._connection.close()

    def wait(self, raw_id: bytes, timeout: float | None) -> Answer:
        """Wait until the message has ended; answers 1 when ``timeout`` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._waiting.ids[raw_id] += 1
        try:
            ask = commands.await_results(self._broker.keys, self._waiting.name, [raw_id])
            answer = self._broker.run(ask, timeout if timeout and timeout > self._broker.send_timeout else -1)[0]
            while answer == 1:
                left = _REREAD if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return 1
                answer = self._wait_once(raw_id, left)
            return answer
        finally:
            with self._changed:
                self._waiting.leave(raw_id)

    def _wait_once(self, raw_id: bytes, left: float) -> Answer:
        """Wait for a change: as the one who reads for all, or for that one. Answers 1 if nothing came."""
        with self._changed:
            if raw_id in self._waiting.arrived:
                return self._waiting.arrived[raw_id]
            if self._led:
                self._changed.wait(left)
                return self._waiting.arrived.get(raw_id, 1)
            self._led = True
        try:
            self._lead(raw_id, time.monotonic() + left)
        finally:
            with self._changed:
                self._led = False
                self._changed.notify_all()
        return self._waiting.arrived.get(raw_id, 1)

    def _lead(self, raw_id: bytes, deadline: float) -> None:
        """Read the inbox for everybody until one's own result is there or the time is over."""
        attempt, reread_at = 0, time.monotonic() + _REREAD
        while raw_id not in self._waiting.arrived and (now := time.monotonic()) < deadline:
            try:
                if now >= reread_at:
                    self._reread()
                    reread_at = now + _REREAD
                    continue
                self._take(min(deadline, reread_at) - now)
                attempt = 0
            except (NotSent, Unanswered, Passing):  # a push may have been lost with the connection
                time.sleep(min(backoff(attempt, 1.0), max(0.0, deadline - time.monotonic())))
                attempt += 1
                reread_at = 0.0

    def _take(self, seconds: float) -> None:
        keys, name = self._broker.keys, self._waiting.name
        pushed: list[bytes] = self._connection.execute(commands.take_inbox(keys, name, seconds))
        if not pushed:
            return
        if len(self._waiting.ids) > 1:
            pushed += self._connection.execute(commands.drain_inbox(keys, name))
        with self._changed:
            self._waiting.put([_pushed(data) for data in pushed])
            self._changed.notify_all()

    def _reread(self) -> None:
        with self._changed:
            chunks = self._waiting.open_chunks()
        for chunk in chunks:
            answers = self._connection.execute(commands.await_results(self._broker.keys, self._waiting.name, chunk))
            with self._changed:
                self._waiting.put((i, a) for i, a in zip(chunk, answers, strict=True) if a != 1)
                self._changed.notify_all()


class AsyncInbox:
    """Where the coroutines of an event loop wait; a task of the loop reads while anybody does."""

    def __init__(self, broker: AsyncBroker) -> None:
        """Prepare an inbox; it connects when somebody waits."""
        self._broker = broker
        self._waiting = _Waiting()
        self._futures: dict[bytes, list[asyncio.Future[Answer]]] = {}
        self._connection = AsyncConnection(broker.url)
        self._reader: asyncio.Task[None] | None = None

    async def look(self, raw_ids: list[bytes]) -> list[Answer]:
        """Read what is there now."""
        return await self._broker.run(commands.await_results(self._broker.keys, "", raw_ids))

    async def wait(self, raw_id: bytes, timeout: float | None) -> Answer:
        """Wait until the message has ended; answers 1 when ``timeout`` seconds have passed."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.ids[raw_id] += 1
        self._futures.setdefault(raw_id, []).append(future)
        try:
            async with asyncio.timeout(timeout):
                ask = commands.await_results(self._broker.keys, self._waiting.name, [raw_id])
                answer = (await self._broker.run(ask))[0]
                if answer != 1:
                    return answer
                if self._reader is None or self._reader.done():
                    self._reader = asyncio.create_task(self._read())
                return await future
        except TimeoutError:
            return 1
        finally:
            self._waiting.leave(raw_id)
            self._futures[raw_id].remove(future)
            if not self._futures[raw_id]:
                del self._futures[raw_id]

    async def _read(self) -> None:
        loop, attempt = asyncio.get_running_loop(), 0
        reread_at = loop.time() + _REREAD
        while self._futures:
            try:
                if loop.time() >= reread_at:
                    await self._reread()
                    reread_at = loop.time() + _REREAD
                keys, name = self._broker.keys, self._waiting.name
                wait = max(0.001, reread_at - loop.time())
                pushed: list[bytes] = await self._connection.execute(commands.take_inbox(keys, name, wait))
                if pushed and len(self._futures) > 1:
                    pushed += await self._connection.execute(commands.drain_inbox(keys, name))
                self._hand_out([_pushed(data) for data in pushed])
                attempt = 0
            except (NotSent, Unanswered, Passing):
                await asyncio.sleep(backoff(attempt, 1.0))
                attempt += 1
                reread_at = 0.0
        await self._connection.close()

    async def _reread(self) -> None:
        for chunk in self._waiting.open_chunks():
            ask = commands.await_results(self._broker.keys, self._waiting.name, chunk)
            answers = await self._connection.execute(ask)
            self._hand_out((i, a) for i, a in zip(chunk, answers, strict=True) if a != 1)

    def _hand_out(self, pairs: Iterable[tuple[bytes, Answer]]) -> None:
        for raw_id, answer in pairs:
            for future in self._futures.get(raw_id, ()):
                if not future.done():
                    future.set_result(answer)

    async def close(self) -> None:
        """Stop reading and close the connection."""
        while self._reader is not None and not self._reader.done():
            self._reader.cancel()  # again, if it came at a moment when it was swallowed
            await asyncio.wait([self._reader], timeout=0.05)
        await self._connection.close()
