"""What a task needs to reach the server: the app's settings and its broker, connected when first used.

One client an app and process; it forgets its connections in a forked child, and keeps one async broker and inbox an
event loop.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from taskq.by_name import ByName, find_client
from taskq.config import Settings, project_dir

if TYPE_CHECKING:
    import asyncio

    from taskq.broker.keys import Keys
    from taskq.broker.pool import AsyncBroker, Broker
    from taskq.inbox import AsyncInbox, Inbox


class Client(ByName):
    """The way from an app to its server."""

    def __init__(self, app: str, settings: Settings, home: str) -> None:
        """Prepare a client of the app that the module ``home`` made; nothing is imported or connected yet."""
        self.app = app
        self.home = home
        self.settings = settings
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._inbox: Inbox | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncBroker, AsyncInbox]] = WeakKeyDictionary()

    def __reduce__(self) -> Any:
        """Be pickled by name."""
        return find_client, (self.app, self.home)

    @property
    def keys(self) -> Keys:
        """The names of the app's keys."""
        from taskq.broker.keys import Keys

        return Keys(self.app)

    @property
    def url(self) -> str:
        """The server's URL; starts the embedded server if there is no other."""
        if self.settings.url is not None:
            return self.settings.url
        from pathlib import Path

        from taskq.broker.embedded import embedded_url

        return embedded_url(Path(project_dir()))

    @property
    def broker(self) -> Broker:
        """The broker for threads."""
        if self._broker is None:
            from taskq.broker.pool import Broker

            with self._lock:
                if self._broker is None:
                    self._broker = Broker(self.url, self.keys, self.settings.send_timeout)
        return self._broker

    @property
    def inbox(self) -> Inbox:
        """Where this process's threads wait for results."""
        if self._inbox is None:
            from taskq.inbox import Inbox

            broker = self.broker
            with self._lock:
                if self._inbox is None:
                    self._inbox = Inbox(broker)
        return self._inbox

    @property
    def abroker(self) -> AsyncBroker:
        """The broker for the running event loop."""
        return self._on_loop()[0]

    @property
    def ainbox(self) -> AsyncInbox:
        """Where the running event loop's coroutines wait for results."""
        return self._on_loop()[1]

    def _on_loop(self) -> tuple[AsyncBroker, AsyncInbox]:
        import asyncio  # whoever is here has it anyway; others need not pay for it

        loop = asyncio.get_running_loop()
        pair = self._async.get(loop)
        if pair is None:
            from taskq.broker.pool import AsyncBroker
            from taskq.inbox import AsyncInbox

            broker = AsyncBroker(self.url, self.keys, self.settings.send_timeout)
            pair = self._async[loop] = broker, AsyncInbox(broker)
        return pair

    def close(self) -> None:
        """Close the connections of this process's threads; they are made again when they are needed."""
        if self._broker is not None:
            self._broker.close()
        if self._inbox is not None:
            self._inbox.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        import asyncio

        pair = self._async.pop(asyncio.get_running_loop(), None)
        if pair is not None:
            await pair[1].close()
            await pair[0].close()
