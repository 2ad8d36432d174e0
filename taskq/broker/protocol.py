"""Exchanges of several steps, written once for threads and event loops.

A protocol is a generator: it yields commands (and pauses, and the wish to know the time) and is sent their replies, or
has their errors thrown into it. `drive` runs one on a connection, `adrive` on an event loop's. Everything that decides
(what to repeat, when to give up; see ``taskq.broker.patience``) is in protocols; everything that does I/O or reads a
clock is in the two drivers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from taskq.broker.call import Command

if TYPE_CHECKING:
    from taskq.broker.net.aio import AsyncConnection
    from taskq.broker.net.connection import Connection

T = TypeVar("T")

#: Seconds since the machine started, the same in every process of it. The clock also runs while the machine sleeps, so
#: a lease cannot outlast a suspended laptop.
boottime: Callable[[], float] = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let this many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Ask for the time by `boottime`."""


@dataclass(frozen=True, slots=True)
class Together:
    """Send scripts in one write; answered by a list: the reply to each, or the error it met."""

    commands: Sequence[Command[Any]]


Protocol = Generator[Command[Any] | Together | Sleep | Now, Any, T]


def drive(steps: Protocol[T], connection: Connection, sleep: Callable[[float], object] = time.sleep) -> T:
    """Run a protocol on a connection and return its value."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Sleep):
                    reply: Any = sleep(step.seconds)
                elif isinstance(step, Now):
                    reply = boottime()
                elif isinstance(step, Command):
                    reply = connection.execute(step)
                else:
                    reply = connection.execute_all(step.commands)
            except Exception as error:  # also of an answer that nobody can read: the steps may know what to do
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def adrive(
    steps: Protocol[T], connection: AsyncConnection, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> T:
    """Run a protocol on an event loop's connection and return its value."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Sleep):
                    reply: Any = await sleep(step.seconds)
                elif isinstance(step, Now):
                    reply = boottime()
                elif isinstance(step, Command):
                    reply = await connection.execute(step)
                else:
                    reply = await connection.execute_all(step.commands)
            except Exception as error:  # also of an answer that nobody can read: the steps may know what to do
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
