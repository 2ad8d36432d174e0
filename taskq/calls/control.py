"""Pause, resume and revoke from user code, for queues, tasks and calls; each with a twin for event loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskq.message.ids import id_from_text
from taskq.tasks.definition import Definition

if TYPE_CHECKING:
    from taskq.broker.protocol import Protocol
    from taskq.calls.client import Client


class Control:
    """The part of an app that steers. Imported when it is used, for most processes only send."""

    client: Client

    def pause(self, what: str | Definition, reason: str = "", *, seconds: float = 0.0, author: str = "") -> bool:
        """Pause a queue or a task: no worker takes anything more of it until `resume`. Running tasks go on.

        Args:
            what: A task, or the name of a queue or task. A task that has its queue for itself stands for the queue.
            reason: Why, for those who wonder later.
            seconds: How many seconds until it is resumed by itself; 0: never.
            author: Who pauses it; the user and host of this process unless given.

        Returns:
            False if it was paused already; the new reason and time replace the old ones.

        Raises:
            ConfigError: An invalid name, or an invalid number of seconds.
        """
        return self.client.broker.perform(self._pausing(what, reason, seconds, author))

    async def apause(self, what: str | Definition, reason: str = "", *, seconds: float = 0.0, author: str = "") -> bool:
        """Do what `pause` does, on an event loop."""
        return await self.client.abroker.perform(self._pausing(what, reason, seconds, author))

    def resume(self, what: str | Definition) -> bool:
        """Resume a paused queue or task; returns whether it was paused."""
        return self.client.broker.perform(self._resuming(what))

    async def aresume(self, what: str | Definition) -> bool:
        """Do what `resume` does, on an event loop."""
        return await self.client.abroker.perform(self._resuming(what))

    def revoke(self, id: str, reason: str = "") -> str:
        """Revoke a call, so that it does not run, or stops running.

        A waiting call is discarded, and callers that wait for its result are told at once. In a running one
        `TaskRevoked` is raised; if it has not ended some seconds later, its process is killed.

        Returns:
            ``revoked``, ``running`` (its worker has been told), ``dead`` (it is a dead letter: purge it instead), or
            ``unknown``: it has ended, or never was.

        Raises:
            ValueError: Not an id.
        """
        return self.client.broker.perform(revoking(self.client, id_from_text(id), reason))

    async def arevoke(self, id: str, reason: str = "") -> str:
        """Do what `revoke` does, on an event loop."""
        return await self.client.abroker.perform(revoking(self.client, id_from_text(id), reason))

    def revoke_all(
        self,
        *,
        task: str | Definition | None = None,
        queue: str | None = None,
        headers: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> int:
        """Do what `revoke` does to all calls of a task, on a queue, or with headers; what is given must all apply.

        No worker starts one of them meanwhile. Calls sent while this goes on may or may not be revoked. Dead letters
        are left alone.

        Args:
            task: A task, or its name.
            queue: The name of a queue.
            headers: Of those given to ``apply_async``: each must be there and have that value.
            reason: Why, for those who wait for a result.

        Returns:
            How many were revoked by this call.

        Raises:
            ConfigError: None of the three is given.
        """
        return self.client.broker.perform(self._revoking_all(task, queue, headers, reason))

    async def arevoke_all(
        self,
        *,
        task: str | Definition | None = None,
        queue: str | None = None,
        headers: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> int:
        """Do what `revoke_all` does, on an event loop."""
        return await self.client.abroker.perform(self._revoking_all(task, queue, headers, reason))

    def _pausing(self, what: str | Definition, reason: str, seconds: float, author: str) -> Protocol[bool]:
        from taskq.steering.pausing import pause

        return pause(self.client.partitions, _name_of(what), reason, seconds, author)

    def _resuming(self, what: str | Definition) -> Protocol[bool]:
        from taskq.steering.pausing import resume

        return resume(self.client.partitions, _name_of(what))

    def _revoking_all(
        self, task: str | Definition | None, queue: str | None, headers: Mapping[str, Any] | None, reason: str
    ) -> Protocol[int]:
        from taskq.steering.revoking import Which, revoke_all

        which = Which(None if task is None else _name_of(task), queue, headers or {})
        return revoke_all(self.client.partitions, which, reason)


def revoking(client: Client, raw_id: bytes, reason: str) -> Protocol[str]:
    """Return the steps that let a call not run, or run no longer."""
    from taskq.steering.revoking import revoke

    return revoke(client.partitions, raw_id, reason)


def _name_of(what: str | Definition) -> str:
    return what if isinstance(what, str) else what.name
