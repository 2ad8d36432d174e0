"""The broker as the rest of taskq sees it: sends messages and runs commands, from any thread or event loop.

`Broker` is for the threads of one process, `AsyncBroker` for one event loop. Connections are made as they are needed,
one for each call in flight, and kept. An answer has half of a call's time: a connection that was idle may have been
forgotten by whatever lies between, and then there is time left for a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from taskq.address import safe_url
from taskq.broker.call import Command
from taskq.broker.keys import Keys
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import Connection
from taskq.broker.net.url import check_url
from taskq.broker.patience import persist, persistent
from taskq.broker.producer import Message, answer_timeout
from taskq.broker.protocol import Protocol, adrive, drive
from taskq.broker.spread import Numbers, Sends, new_numbering, new_sender
from taskq.broker.topology import Topology

S = TypeVar("S")
T = TypeVar("T")


class _Pool(Generic[S]):
    """What both have: where the server is, how long a call may take, and the senders that nobody uses just now."""

    def __init__(
        self,
        url: str,
        partitions: Topology,
        send_timeout: float,
        greeting: Callable[[], Protocol[object]] | None = None,
    ) -> None:
        """Prepare a broker; nothing is connected yet. Each connection begins with the ``greeting``.

        Raises:
            ConfigError: A URL that cannot be read.
        """
        check_url(url)
        self.url = url
        self.where = safe_url(url)
        self.partitions = partitions
        self.send_timeout = send_timeout
        self._greeting = greeting
        self._idle: deque[S] = deque()

    @property
    def keys(self) -> Keys:
        """The names of the keys in the app's first partition, or its only one."""
        return self.partitions.first

    def _persist(self, command: Command[T], seconds: float | None) -> Protocol[T]:
        return persist(command, self.where, self.send_timeout if seconds == -1 else seconds)

    def _persistent(self, steps: Protocol[T], seconds: float | None) -> Protocol[T]:
        return persistent(steps, self.where, self.send_timeout if seconds == -1 else seconds)


class Broker(_Pool[Sends]):
    """The server, for threads."""

    def _sender(self) -> Sends:
        try:
            return self._idle.pop()
        except IndexError:
            connection = Connection(self.url, answer_timeout(self.send_timeout), self._greeting)
            return new_sender(self.partitions, connection, self.where, self.send_timeout)

    def send(self, raw_id: bytes, value: bytes, options: bytes = b"") -> bytes:
        """Send one message; answers a character (see ``enqueue.lua``); raises as `Numbering.send` says."""
        try:
            sender = self._idle.pop()
        except IndexError:
            sender = self._sender()
        try:
            return sender.send_one(raw_id, value, options)
        finally:
            self._idle.append(sender)

    def send_many(self, messages: Sequence[Message]) -> bytes:
        """Send messages in one round trip; answers a character a message."""
        sender = self._sender()
        try:
            return sender.send_many(messages)
        finally:
            self._idle.append(sender)

    def run(self, command: Command[T], seconds: float | None = -1) -> T:
        """Run a command, repeated as `persist` says for ``send_timeout`` seconds unless told otherwise."""
        return self.drive(self._persist(command, seconds))

    def perform(self, steps: Protocol[T], seconds: float | None = -1) -> T:
        """Run a protocol to its end, each of its commands repeated as `run` repeats one."""
        return self.drive(self._persistent(steps, seconds))

    def drive(self, steps: Protocol[T]) -> T:
        """Run a protocol to its end; it minds itself what is to be repeated."""
        sender = self._sender()
        try:
            return drive(steps, sender.connection)
        finally:
            self._idle.append(sender)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().connection.close()


#: Connections of one event loop at most; further calls wait for their turn.
_CONNECTIONS = 16


class AsyncBroker(_Pool[tuple[AsyncConnection, Numbers]]):
    """The server, for the coroutines of one event loop."""

    @cached_property
    def _room(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(_CONNECTIONS)

    def _sender(self) -> tuple[AsyncConnection, Numbers]:
        if self._idle:
            return self._idle.pop()
        connection = AsyncConnection(self.url, answer_timeout(self.send_timeout), self._greeting)
        return connection, self._numbering()

    def _numbering(self) -> Numbers:
        return new_numbering(self.partitions, self.where, self.send_timeout)

    async def send_many(self, messages: Sequence[Message]) -> bytes:
        """Send messages in one round trip; answers a character a message; raises as `Numbering.send` says."""
        async with self._room:
            connection, numbering = self._sender()
            try:
                return await adrive(numbering.send(messages), connection)
            except BaseException:
                numbering = self._numbering()  # the number of a cancelled call is in doubt
                raise
            finally:
                self._idle.append((connection, numbering))

    async def run(self, command: Command[T], seconds: float | None = -1) -> T:
        """Run a command, repeated as `persist` says for ``send_timeout`` seconds unless told otherwise."""
        return await self.drive(self._persist(command, seconds))

    async def perform(self, steps: Protocol[T], seconds: float | None = -1) -> T:
        """Run a protocol to its end, each of its commands repeated as `run` repeats one."""
        return await self.drive(self._persistent(steps, seconds))

    async def drive(self, steps: Protocol[T]) -> T:
        """Run a protocol to its end; it minds itself what is to be repeated."""
        async with self._room:
            sender = self._sender()
            try:
                return await adrive(steps, sender[0])
            finally:
                self._idle.append(sender)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop()[0].close()
