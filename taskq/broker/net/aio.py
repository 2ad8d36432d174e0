"""The async twin of `taskq.broker.net.connection`: one connection to the server on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from taskq.broker.faults import NotSent, Passing, Unanswered
from taskq.broker.net.connection import (
    ANSWER_TIMEOUT,
    LACKS_SCRIPT,
    LOOK_AGAIN,
    NO_SCRIPT,
    connect_error,
    pack,
    pack_command,
    pack_script,
    pack_wait,
    read_error,
    revive,
)
from taskq.broker.net.url import new_async_connection
from taskq.broker.protocol import adrive
from taskq.errors import BrokerRefused

if TYPE_CHECKING:
    from taskq.broker.call import Command
    from taskq.broker.protocol import Protocol

T = TypeVar("T")


class AsyncConnection:
    """A connection for one coroutine at a time; made when first used, and again after it broke."""

    def __init__(
        self, url: str, timeout: float = ANSWER_TIMEOUT, greeting: Callable[[], Protocol[object]] | None = None
    ) -> None:
        """Prepare a connection to ``url``; the arguments are those of the sync one."""
        self.url = url
        self.timeout = timeout
        self._greeting = greeting
        self._raw = new_async_connection(url)

    async def execute(self, command: Command[T]) -> T:
        """Execute a command and return its parsed reply."""
        script = command.script
        within = self.timeout + command.block if command.within is None else command.within
        if script is None:
            return command.parse(await self.roundtrip(pack(command.args), within))
        packed = pack_wait(command) + pack_script(script, command.args)
        reply = await self.roundtrip(packed, within, command.heard if command.bells else None)
        if reply is NO_SCRIPT:
            reply = await self.roundtrip(pack_script(script, command.args, whole=True), within)
        return command.parse(reply)

    async def execute_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Execute scripts that are sent in one write, as `taskq.broker.net.connection.Connection.execute_all`."""
        if not self._raw.is_connected:
            await self._connect(self.timeout)
        packed = [pack_command(command) for command in commands]
        answers: list[Any] = []
        for n, command in enumerate(commands):
            try:
                if not self._raw.is_connected:
                    raise Unanswered("the connection broke before this answer")
                reply = await self.roundtrip(packed[n] if n else b"".join(packed), self.timeout, sent=n > 0)
                answers.append(Passing(LACKS_SCRIPT) if reply is NO_SCRIPT else command.parse(reply))
            except (Unanswered, Passing, BrokerRefused) as error:
                answers.append(error)
        return answers

    async def roundtrip(
        self, packed: bytes, within: float, heard: Callable[[Any], object] | None = None, sent: bool = False
    ) -> Any:
        """Send a packed command and return its raw reply, as `taskq.broker.net.connection.Connection.roundtrip`."""
        if not self._raw.is_connected:
            await self._connect(within)
        try:
            async with asyncio.timeout(within):
                if not sent:
                    await self._send(packed)
                if heard is not None:
                    heard(await self._read_wait())
                return await self._raw.read_response()
        except (RedisError, OSError) as error:
            answer = read_error(error, self.url, packed)
            if answer is NO_SCRIPT:
                return answer
            if isinstance(answer, LOOK_AGAIN):
                await self.close()
            raise answer from None
        except BaseException:  # cancelled between a command and its reply: the next reply would be this one's
            await self.close()
            raise

    async def _send(self, packed: bytes) -> None:
        try:
            await self._raw.send_packed_command(packed, check_health=False)
        except RuntimeError as error:  # uvloop's word for a transport that has closed
            raise OSError(str(error)) from None

    async def _read_wait(self) -> Any:
        try:
            return await self._raw.read_response()
        except ResponseError as error:
            raise RedisError(str(error)) from None

    async def _connect(self, within: float) -> None:
        try:
            try:
                async with asyncio.timeout(within):
                    await self._raw.connect()
            except (RedisError, OSError):
                if not await asyncio.to_thread(revive, self.url):
                    raise
                async with asyncio.timeout(within):
                    await self._raw.connect()
        except (RedisError, OSError) as error:
            await self.close()
            raise connect_error(error, self.url) from None
        except BaseException:  # cancelled in the midst of the handshake
            await self.close()
            raise
        if self._greeting is not None:
            await self._greet(self._greeting())

    async def _greet(self, steps: Protocol[object]) -> None:
        try:
            await adrive(steps, self)
        except BaseException as error:
            await self.close()
            if isinstance(error, Unanswered):
                raise NotSent(str(error)) from None
            raise

    async def close(self) -> None:
        """Drop the connection; the next command makes a new one."""
        try:
            await self._raw.disconnect(nowait=True)
        except Exception:  # a connection that cannot even be closed is simply forgotten
            self._raw = new_async_connection(self.url)
