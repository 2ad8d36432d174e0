"""What tasks need and a process makes once: a client, a pool, a model. Made at the first use, closed at the end.

A process that is forked makes its own. In a worker that is each child; the end is that of the child, else that of the
process, or of the event loop for what is async.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from taskq.errors import ConfigError
from taskq.tasks import callables

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("taskq")

R = TypeVar("R")


class Made:
    """What the resources of an app have made in this process, in that order."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.lock = threading.RLock()  # one resource may need another
        self._closers: list[tuple[str, Callable[[], object]]] = []
        self._pid = os.getpid()

    def note(self, name: str, close: Callable[[], object]) -> None:
        """Remember how to close something."""
        self.forget_parent()
        if not self._closers:
            atexit.register(self.close)
        self._closers.append((name, close))

    def forget_parent(self) -> None:
        """In a process that was forked: what its parent has made is the parent's."""
        if self._pid != os.getpid():
            self.lock = threading.RLock()
            self._closers, self._pid = [], os.getpid()

    def close(self) -> None:
        """Close everything, the newest first; an error is logged with the name of the resource."""
        self.forget_parent()
        while self._closers:
            name, close = self._closers.pop()
            try:
                close()
            except Exception:
                log.exception("closing the resource %s failed", name)


class Resource(Generic[R]):
    """Something that each process makes once. Calling it returns what was made."""

    def __init__(self, make: Callable[[], Any], made: Made) -> None:
        """Prepare it; ``make`` returns it, or yields it and closes it when it goes on."""
        self._make = make
        self._made = made
        self._there: tuple[int, R] | None = None
        self.__name__ = callables.qualname(make)
        self.__doc__ = make.__doc__

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Resource {self.__name__}>"

    def __call__(self) -> R:
        """Return it; makes it at the first call in this process. Raises what making it raises, and tries again then."""
        there = self._there
        if there is not None and there[0] == os.getpid():
            return there[1]
        self._made.forget_parent()
        with self._made.lock:
            if self._there is None or self._there[0] != os.getpid():
                self._there = os.getpid(), self._new()
            return self._there[1]

    def _new(self) -> R:
        value = self._make()
        if not isinstance(value, Generator):
            return value  # type: ignore[no-any-return]
        first: R = next(value)
        self._made.note(self.__name__, lambda: self._end(value))
        return first

    def _end(self, generator: Generator[R, None, None]) -> None:
        self._there = None
        for _ in generator:
            raise ConfigError(f"the resource {self.__name__} yielded twice: yield once, then close what was yielded")


class AsyncResource(Generic[R]):
    """Something that each event loop makes once. Awaiting a call returns what was made."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Prepare it; ``make`` is a coroutine function, or an async generator that closes it when it goes on."""
        self._make = make
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[R]] = WeakKeyDictionary()
        self._guards: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self.__name__ = callables.qualname(make)
        self.__doc__ = make.__doc__

    def __repr__(self) -> str:
        """Show the name."""
        return f"<AsyncResource {self.__name__}>"

    async def __call__(self) -> R:
        """Return it; makes it at the first call on this event loop. Raises what making it raises, and tries again."""
        import asyncio

        loop = asyncio.get_running_loop()
        if (making := self._loops.get(loop)) is None:
            making = self._loops[loop] = loop.create_task(self._new(loop))
            making.add_done_callback(lambda done: self._forget_failure(loop, done))
        return await asyncio.shield(making)

    def _forget_failure(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[R]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._loops.pop(loop, None)

    async def _new(self, loop: asyncio.AbstractEventLoop) -> R:
        value = self._make()
        if not isinstance(value, AsyncIterator):
            return await value  # type: ignore[no-any-return]
        first: R = await _unwatched(value)
        guard = self._guards[loop] = self._until_shutdown(loop, value)
        await anext(guard)
        return first

    async def _until_shutdown(
        self, loop: asyncio.AbstractEventLoop, value: AsyncIterator[R]
    ) -> AsyncGenerator[None, None]:
        """Wait for the end of the loop, which closes what has begun on it (``asyncio.run`` does)."""
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            try:
                async for _ in value:
                    raise ConfigError(f"the resource {self.__name__} yielded twice: yield once, then close it")
            except Exception:
                log.exception("closing the resource %s failed", self.__name__)


def _unwatched(value: AsyncIterator[R]) -> Awaitable[R]:
    """Begin an async generator that the end of the loop does not break off: its guard lets it go on to its end."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return anext(value)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def resource_of(make: Callable[[], Any], made: Made) -> Resource[Any] | AsyncResource[Any]:
    """Return the resource that a function makes.

    Raises:
        ConfigError: Not a function without arguments.
    """
    if not callable(make) or isinstance(make, type):
        raise ConfigError(f"@app.resource goes above a function that makes something, not {make!r:.80}")
    needed = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty and p.kind < 2]
    if needed:
        name = callables.qualname(make)
        raise ConfigError(f"the resource {name} takes {', '.join(needed)}: it is made without arguments")
    if inspect.isasyncgenfunction(make) or inspect.iscoroutinefunction(make):
        return AsyncResource(make)
    return Resource(make, made)
