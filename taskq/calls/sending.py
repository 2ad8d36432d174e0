"""Calls on their way: one prepared call, and sending many in few round trips."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

from taskq.calls.result import AsyncResult, Origin
from taskq.errors import ConfigError, DuplicateCall, DuplicateTaskId, QueueFull, TaskqError
from taskq.message.head import queue_of
from taskq.message.ids import id_to_text
from taskq.message.letters import (
    ACCEPTED,
    ANSWER,
    DUPLICATE,
    FULL,
    OPTION_DELAY,
    OPTION_DUE,
    OPTION_EXPIRES_AT,
    OPTION_EXPIRES_IN,
    SAME,
    UNSERVED,
)
from taskq.tasks.flow import Flow

if TYPE_CHECKING:
    from taskq.calls.client import Client

log = logging.getLogger("taskq")

#: Latest moment a message can be scheduled for, in ms since the epoch: the end of the year 9999.
_LATEST = 253_402_300_799_999
#: Messages and bytes that go in one round trip at most.
_CHUNK, _CHUNK_BYTES = 500, 4 << 20


_unserved_told: set[str] = set()


class Call:
    """A call ready to be sent: its id, its stored value and options for the enqueue script."""

    __slots__ = ("flow", "message", "origin")

    def __init__(self, message: tuple[bytes, bytes, bytes], origin: Origin, flow: Flow | None = None) -> None:
        """Hold the call; made by ``task.call`` and ``task.prepare_call``."""
        self.message = message
        self.origin = origin
        self.flow = flow

    def handle(self) -> AsyncResult[Any]:
        """Return the handle of the call's result."""
        return AsyncResult(self.message[0], self.origin)


class SpreadCalls:
    """Prepares calls that come due one after the other within so many seconds, evenly, however many there will be.

    The n-th is due at the n-th number of van der Corput's sequence, which halves the largest gap again and again.
    """

    def __init__(self, prepare: Callable[..., Call], seconds: float) -> None:
        """Begin with the first call; raises `ConfigError` for what is no number of seconds."""
        self._prepare = prepare
        self._seconds = _seconds_to_ms("spread", seconds) / 1000
        self._number = 0

    def __call__(self, item: Any) -> Call:
        """Prepare a call from what ``delay_many`` takes for one."""
        part = int(f"{self._number:032b}"[::-1], 2) / (1 << 32)
        self._number += 1
        args, kwargs = (item, {}) if type(item) is tuple else ((), item) if type(item) is dict else ((item,), {})
        return self._prepare(args, kwargs, countdown=self._seconds * part)


def send_calls(client: Client, calls: Iterable[Call]) -> list[AsyncResult[Any]]:
    """Send prepared calls in chunks; raises `DuplicateTaskId` after a chunk in which an id was refused."""
    handles: list[AsyncResult[Any]] = []
    for chunk in _chunks(calls):
        answer = client.broker.send_many([call.message for call in chunk])
        handles += _all_handles(chunk, answer if FULL not in answer else _try_again(client, chunk, answer))
    return handles


async def asend_calls(client: Client, calls: Iterable[Call] | AsyncIterable[Call]) -> list[AsyncResult[Any]]:
    """Do what `send_calls` does, on an event loop; an async generator is read as its calls are sent."""
    handles: list[AsyncResult[Any]] = []
    if isinstance(calls, AsyncIterable):
        some: list[Call] = []
        async for call in calls:
            some.append(call)
            if len(some) >= _CHUNK:
                handles += await asend_calls(client, some)
                some = []
        calls = some
    for chunk in _chunks(calls):
        answer = await client.abroker.send_many([call.message for call in chunk])
        handles += _all_handles(chunk, answer if FULL not in answer else await _atry_again(client, chunk, answer))
    return handles


def _chunks(calls: Iterable[Call]) -> Iterable[list[Call]]:
    chunk: list[Call] = []
    size = 0
    for call in calls:
        _refuse(call)
        chunk.append(call)
        size += len(call.message[1])
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def send_call(client: Client, call: Call) -> AsyncResult[Any]:
    """Send one prepared call; waits for room in its queue as long as its task says. Raises as `Task.apply_async`."""
    _refuse(call)
    answer = client.broker.send(*call.message)
    return handle_of(call, answer if answer != FULL else _try_again(client, [call], answer))


async def asend_call(client: Client, call: Call) -> AsyncResult[Any]:
    """Do what `send_call` does, on an event loop."""
    _refuse(call)
    answer = await client.abroker.send_many([call.message])
    return handle_of(call, answer if answer != FULL else await _atry_again(client, [call], answer))


def _refuse(call: Call) -> None:
    if call.origin.refused:
        raise ConfigError(call.origin.refused)


def _try_again(client: Client, chunk: list[Call], answer: bytes) -> bytes:
    """Send those again for which there was no room, as `_tries` says; returns the answers that hold in the end."""
    tries, reply = _tries(chunk, answer), None
    try:
        while True:
            seconds, calls = tries.send(reply)
            time.sleep(seconds)
            reply = client.broker.send_many([call.message for call in calls])
    except StopIteration as stop:
        return bytes(stop.value)


async def _atry_again(client: Client, chunk: list[Call], answer: bytes) -> bytes:
    """Do what `_try_again` does, on an event loop."""
    import asyncio

    tries, reply = _tries(chunk, answer), None
    try:
        while True:
            seconds, calls = tries.send(reply)
            await asyncio.sleep(seconds)
            reply = await client.abroker.send_many([call.message for call in calls])
    except StopIteration as stop:
        return bytes(stop.value)


def _tries(chunk: list[Call], answer: bytes) -> Generator[tuple[float, list[Call]], bytes | None, bytes]:
    """Say which calls to send again, and after how many seconds; each waits for room as long as its task says.

    What is sent earlier gets in earlier, so the others have all that time anew when one of them has.
    """
    answers = ANSWER.findall(answer)
    began, pause = time.monotonic(), 0.01
    while True:
        waited = time.monotonic() - began
        left = {n: _patience(chunk[n]) - waited for n, one in enumerate(answers) if one == FULL}
        places = [n for n, seconds in left.items() if seconds > 0]
        if not places:
            return b"".join(answers)
        pause = min(pause * 1.5, 0.25, max(*map(left.__getitem__, places), 0.001))
        got = ANSWER.findall((yield pause, [chunk[n] for n in places]) or b"")
        for n, one in zip(places, got, strict=True):
            answers[n] = one
        if any(one != FULL for one in got):
            began, pause = time.monotonic(), 0.01


def _patience(call: Call) -> float:
    return call.flow.full_timeout if call.flow else 0.0


def handle_of(call: Call, answer: bytes) -> AsyncResult[Any]:
    """Return the handle of a call by what the server answered; raises if it was refused."""
    if answer == DUPLICATE:
        raise DuplicateTaskId(f"task_id {id_to_text(call.message[0])!r} belongs to a message or a result that exists")
    if answer == FULL:
        most = call.flow.max_length if call.flow else None
        raise QueueFull(
            f"queue {_queue_of(call)!r} has its max_length={most} of messages waiting; nothing was enqueued"
        )
    if answer == UNSERVED:
        _warn_unserved(call)
    if answer[:1] == SAME:
        first = AsyncResult[Any](bytes.fromhex(answer[1:-1].decode()), call.origin)
        if call.flow and call.flow.on_duplicate == "raise":
            raise DuplicateCall(f"{call.origin.task}: the same work waits or runs, as {first.id}", first.id)
        return first
    return call.handle()


def _all_handles(chunk: list[Call], answer: bytes) -> list[AsyncResult[Any]]:
    if answer.count(ACCEPTED) == len(chunk):
        return [call.handle() for call in chunk]
    handles, refused = [], []
    for call, one in zip(chunk, ANSWER.findall(answer), strict=True):
        try:
            handles.append(handle_of(call, one))
        except TaskqError as error:
            refused.append(error)
    if refused:
        others = f"; {len(refused)} of {len(chunk)} calls were refused, the others accepted"
        refused[0].args = (str(refused[0]) + others, *refused[0].args[1:])
        raise refused[0]
    return handles


def _queue_of(call: Call) -> str:
    return queue_of(call.message[1]).decode()


def _warn_unserved(call: Call) -> None:
    queue = _queue_of(call)
    if queue not in _unserved_told:
        _unserved_told.add(queue)
        log.warning("no live worker serves the queue %r; start one with: taskq worker -A ... -Q %s", queue, queue)


def as_list(name: str, values: Iterable[Any] | None) -> tuple[Any, ...]:
    """Return the values of a call option that takes a list; raises `ConfigError` if it is something else."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, (Iterable, NoneType)):
        raise ConfigError(f"{name} must be a list or a tuple, not {values!r:.80}")
    return () if values is None else tuple(values)


def as_map(name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values of a call option that takes a dict; raises `ConfigError` if it is something else."""
    if not isinstance(values, (Mapping, NoneType)):
        raise ConfigError(f"{name} must be a dict, not {values!r:.80}")
    return {} if values is None else dict(values)


def when_words(countdown: float | None, eta: datetime | None) -> bytes:
    """Write when a call may run, as an option for the enqueue script; raises `ConfigError`."""
    if countdown is not None:
        if eta is not None:
            raise ConfigError("give either countdown= or eta=, not both")
        return b"%s%d" % (OPTION_DELAY, _seconds_to_ms("countdown", countdown))
    if eta is not None:
        return b"%s%d" % (OPTION_DUE, _moment_to_ms("eta", eta))
    return b""


def expiry_words(expires: float | datetime | None) -> bytes:
    """Write when a call expires, as an option for the enqueue script; raises `ConfigError`."""
    if expires is None:
        return b""
    if isinstance(expires, datetime):
        return b"%s%d" % (OPTION_EXPIRES_AT, _moment_to_ms("expires", expires))
    return b"%s%d" % (OPTION_EXPIRES_IN, _seconds_to_ms("expires", expires))


def _seconds_to_ms(name: str, seconds: Any) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds) or seconds < 0:
        raise ConfigError(f"{name} must be a number of seconds from 0, not {seconds!r}")
    if seconds * 1000 > _LATEST:
        raise ConfigError(f"{name}={seconds!r} lies beyond the year 9999")
    return round(seconds * 1000)


def _moment_to_ms(name: str, moment: Any) -> int:
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name} must be a datetime, not {moment!r}")
    if moment.tzinfo is None:
        raise ConfigError(
            f"{name}={moment!r} has no time zone, so it names another moment on each machine; "
            "use for example datetime.now(timezone.utc) + timedelta(hours=1)"
        )
    return max(0, min(_LATEST, round(moment.timestamp() * 1000)))
