"""What a task needs to reach the server: the app's settings and its broker, connected when first used.

Each app has one client; it keeps one broker and inbox per process, and one async broker and inbox per event loop. At
each use it asks the system which process this is: one that C code has forked (uWSGI's workers) calls none of Python's
hooks, and must not share its parent's sockets, numbers, ids and locks either.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  redis needs it, and it cannot be imported any more when a process ends
import os
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from taskq.address import safe_url
from taskq.calls.by_name import ByName, find_client
from taskq.config import Settings, project_dir
from taskq.tasks.hooks import Hooks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

    from taskq.broker.keys import Keys
    from taskq.broker.pool import AsyncBroker, Broker
    from taskq.broker.protocol import Protocol
    from taskq.broker.topology import Topology
    from taskq.calls.inbox import AsyncInbox, Inbox

_getpid = os.getpid


class Client(ByName):
    """The way from an app to its server.

    Attributes:
        hooks: What the app has installed around its calls.
    """

    def __init__(self, app: str, settings: Settings, home: str = "__main__") -> None:
        """Prepare a client of the app that the module ``home`` made; nothing is imported or connected yet."""
        self.app = app
        self.home = home
        self.settings = settings
        self.hooks = Hooks()
        self._partitions: Topology | None = None
        self._agreed = False  # with a server, on how many there are
        self._begin()

    def _begin(self) -> None:
        """Begin anew, in this process."""
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._inbox: Inbox | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, OnLoop] = WeakKeyDictionary()
        self._pid = _getpid()

    def __reduce__(self) -> Any:
        """Be pickled by name."""
        return find_client, (self.app, self.home)

    @property
    def partitions(self) -> Topology:
        """The app's partitions."""
        if self._partitions is None:
            from taskq.broker.topology import topology

            self._partitions = topology(self.app, self.settings.partitions)
        return self._partitions

    @property
    def keys(self) -> Keys:
        """The names of the keys in the app's first partition, or its only one."""
        return self.partitions.first

    def agree(self) -> Protocol[None]:
        """Agree with the server on how many partitions the app has, as `taskq.broker.topology.agree` says."""
        from taskq.broker.topology import agree

        yield from agree(self.partitions, safe_url(self.url), self._agreed)
        self._agreed = True

    @property
    def url(self) -> str:
        """The server's URL; starts the embedded server if there is no other."""
        if self.settings.url is not None:
            return self.settings.url
        from pathlib import Path

        from taskq.broker.net.embedded import embedded_url

        return embedded_url(Path(project_dir()))

    @property
    def broker(self) -> Broker:
        """The broker for threads."""
        if self._pid != _getpid():
            self._begin()
        if self._broker is None:
            from taskq.broker.pool import Broker

            with self._lock:
                if self._broker is None:
                    self._broker = Broker(self.url, self.partitions, self.settings.send_timeout, self.agree)
        return self._broker

    @property
    def inbox(self) -> Inbox:
        """Where this process's threads wait for results."""
        broker = self.broker
        if self._inbox is None:
            from taskq.calls.inbox import Inbox

            with self._lock:
                if self._inbox is None:
                    self._inbox = Inbox(broker)
        return self._inbox

    @property
    def abroker(self) -> AsyncBroker:
        """The broker for the running event loop."""
        return self._on_loop().broker

    @property
    def ainbox(self) -> AsyncInbox:
        """Where the running event loop's coroutines wait for results."""
        return self._on_loop().inbox

    def _on_loop(self) -> OnLoop:
        import asyncio  # whoever is here has it anyway; others need not pay for it

        if self._pid != _getpid():
            self._begin()
        loop = asyncio.get_running_loop()
        made = self._async.get(loop)
        if made is None:
            for reference in self._async.keyrefs():  # other threads may add theirs meanwhile
                other = reference()
                if other is not None and other.is_closed():
                    self._async.pop(other, None)  # what is of a loop refers to it: it would never be collected
            made = self._async[loop] = OnLoop(self)
        return made

    def close(self) -> None:
        """Close the connections of this process's threads; they are made again when they are needed."""
        if self._pid != _getpid():
            self._begin()
        if self._broker is not None:
            self._broker.close()
        if self._inbox is not None:
            self._inbox.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; they are made again when they are needed."""
        import asyncio

        made = self._async.get(asyncio.get_running_loop())
        if made is not None:
            await made.close()


class OnLoop:
    """The broker and the inbox of one event loop; closed at the latest when the loop is shut down."""

    def __init__(self, client: Client) -> None:
        """Prepare them for the running loop."""
        from taskq.broker.pool import AsyncBroker
        from taskq.calls.inbox import AsyncInbox

        self.broker = AsyncBroker(client.url, client.partitions, client.settings.send_timeout, client.agree)
        self.inbox = AsyncInbox(self.broker)
        # What `asyncio.run` ends with is to close the async generators that have begun on its loop.
        self._guard = self._until_shutdown()
        try:
            self._guard.asend(None).send(None)
        except StopIteration:  # it has begun, and waits at its yield
            pass

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.inbox.close()
        await self.broker.close()
