"""The handle of one call: its state, its value, its error."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar, cast

from taskq import celery_names
from taskq.calls.control import revoking
from taskq.calls.reading import Ended, dead, outcome
from taskq.celery_names import no_attribute
from taskq.errors import (
    BrokerError,
    ResultTimeout,
    TaskError,
    TaskqError,
    UnknownResult,
    WouldDeadlock,
)
from taskq.message.ids import id_time, id_to_text
from taskq.runs.delivery import current
from taskq.views.messages import Status, status_of

if TYPE_CHECKING:
    from taskq.broker.commands.looking import Located
    from taskq.broker.protocol import Protocol
    from taskq.calls.client import Client

R = TypeVar("R")


#: Seconds that the server has to say why a call has not ended, when the time of who waited for it is over.
_TO_SAY_WHY = 0.4
TERMINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


class Origin(NamedTuple):
    """What the handles of a task's calls have in common: the way to the server, and how to read the result.

    Attributes:
        client: The way to the server.
        task: Name of the task, if it is known.
        convert: Turns a decoded result into what the task's annotation says.
        ignored: Whether results are dropped.
        refused: Why calls must not be sent, if they must not.
    """

    client: Client
    task: str = ""
    convert: Callable[[Any], Any] | None = None
    ignored: bool = False
    refused: str = ""


class AsyncResult(Generic[R]):
    """The result of a call, now or later. Cheap: it asks the server only when it is asked."""

    __slots__ = ("_ended", "_origin", "_raw_id")

    def __init__(self, raw_id: bytes, origin: Origin) -> None:
        """Make a handle; users get theirs from ``delay()`` or ``app.AsyncResult(id)``."""
        self._raw_id = raw_id
        self._origin = origin
        self._ended: Ended | None = None

    def __repr__(self) -> str:
        """Show the id and the task."""
        return f"<AsyncResult {self.id}{' of ' + self._origin.task if self._origin.task else ''}>"

    def __eq__(self, other: object) -> bool:
        """Handles of the same id are equal."""
        return isinstance(other, AsyncResult) and self._raw_id == other._raw_id

    def __hash__(self) -> int:
        """Hash by id."""
        return hash(self._raw_id)

    if not TYPE_CHECKING:  # for which there is no such attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of Celery's names."""
            raise no_attribute(self, name, celery_names.RESULT)

    def __reduce__(self) -> Any:
        """Be pickled: the id, the task's name, and what has been seen of the outcome."""
        return _rebuilt, (self._raw_id, self._origin, self._ended)

    @property
    def id(self) -> str:
        """The id of the call: a UUID, or the ``task_id`` that was given."""
        return id_to_text(self._raw_id)

    # -- waiting ----------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Wait for the task to end and return its value.

        Args:
            timeout: Seconds to wait at most; None waits as long as the message is alive.
            propagate: Raise the task's error; if False it is returned instead.

        Raises:
            TaskError: The task failed. Also an instance of the exception's own class, if this process has loaded that.
            TaskRevoked: It was revoked, expired or discarded.
            ResultTimeout: It did not end in time.
            BrokerUnavailable: The server could not be asked within ``timeout``, or a second if that is longer.
            UnknownResult: No message and no result of this id exists (any more).
            WouldDeadlock: Called inside a task.
        """
        if self._must_ask():
            try:
                answer = self._origin.client.inbox.wait(self._raw_id, timeout)
                if answer == 1:
                    raise self._timed_out(timeout, self._reason())
                self._read(answer)
            except BrokerError:
                if self._ended is None:
                    raise
        return self._value(propagate)

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Do what `get` does, on an event loop."""
        if self._must_ask():
            try:
                answer = await self._origin.client.ainbox.wait(self._raw_id, timeout)
                if answer == 1:
                    raise self._timed_out(timeout, await self._areason())
                self._read(answer)
            except BrokerError:
                if self._ended is None:
                    raise
        return self._value(propagate)

    def _must_ask(self) -> bool:
        """Whether the outcome is not known for certain; raises if waiting for it would be in vain."""
        if self._ended is not None:
            return not self._ended.final and current.get() is None
        if self._origin.ignored:
            raise UnknownResult(f"{self!r} has ignore_result=True: its result is not kept")
        if current.get() is not None:
            raise WouldDeadlock(
                "get() inside a task holds a slot while it waits for another task, which may need that very slot. "
                "Let the first task end and enqueue what follows from it, or pass the id on"
            )
        return True

    def _timed_out(self, timeout: float | None, reason: str) -> ResultTimeout:
        return ResultTimeout(f"{self!r} has not ended within {timeout:g} s{': ' if reason else ''}{reason}")

    def _reason(self) -> str:
        """Say what `why` does, for an error; nothing if the server does not say it at once."""
        try:
            broker = self._origin.client.broker
            return self._sentence(broker.perform(self._asking(_TO_SAY_WHY), _TO_SAY_WHY))
        except TaskqError:
            return ""

    async def _areason(self) -> str:
        try:
            broker = self._origin.client.abroker
            return self._sentence(await broker.perform(self._asking(_TO_SAY_WHY), _TO_SAY_WHY))
        except TaskqError:
            return ""

    def _read(self, answer: Any) -> None:
        """Turn what the inbox answered into an outcome, or raise."""
        if answer == 0:
            if self._ended is None:
                raise UnknownResult(self._unknown())
            return  # what was seen has expired since
        if isinstance(answer, list):
            self._ended = dead(answer[0])
        elif answer == b"":
            raise UnknownResult(f"{self!r} has ended, and its result was not kept (ignore_result)")
        else:
            self._ended = self._read_outcome(answer)

    def _unknown(self) -> str:
        text = f"no message and no result of id {self.id} exists"
        made = id_time(self._raw_id)
        if made is None:
            return f"{text}: it was never sent, ended longer ago than result_ttl, or its result found no memory"
        age = time.time() - made
        kept = self._origin.client.settings.result_ttl
        return f"{text}; its id was made {age:.0f} s ago, and results are kept {kept:g} s, where there is memory"

    def _value(self, propagate: bool) -> R:
        ended = self._ended
        assert ended is not None
        if ended.error is None:
            return cast(R, ended.value)
        if propagate:
            raise copy(ended.error)  # each time a new one, for what is raised grows by its traceback
        return cast(R, ended.error)

    def _read_outcome(self, stored: bytes) -> Ended:
        return outcome(stored, self._origin.convert)

    def revoke(self, reason: str = "") -> str:
        """Revoke the call, so that it does not run, or stops running; see ``TaskQ.revoke``."""
        return self._origin.client.broker.perform(revoking(self._origin.client, self._raw_id, reason))

    async def arevoke(self, reason: str = "") -> str:
        """Do what `revoke` does, on an event loop."""
        return await self._origin.client.abroker.perform(revoking(self._origin.client, self._raw_id, reason))

    # -- looking ----------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Ask the server what it knows of this call."""
        if self._ended is not None and self._ended.final:
            return self._ended.status
        return self._status(self._origin.client.broker.perform(self._locating()))

    async def astatus(self) -> Status:
        """Do what `status` does, on an event loop."""
        if self._ended is not None and self._ended.final:
            return self._ended.status
        return self._status(await self._origin.client.abroker.perform(self._locating()))

    def _locating(self) -> Protocol[Located]:
        from taskq.views.finding import locate

        return locate(self._origin.client.partitions, self._raw_id)

    def _status(self, found: Located) -> Status:
        seen, self._ended = self._ended, None  # a failure that was seen is over if the message is alive again
        match found.place:
            case "result":
                self._ended = self._read_outcome(found.value)
                return self._ended.status
            case "dead":
                self._ended = dead(found.reason)
            case "unknown":
                self._ended = seen
                return Status("UNKNOWN") if seen is None else seen.status
        return status_of(found)

    def why(self) -> str:
        """Say in one sentence why the call does not run, or what has happened to it."""
        return self._sentence(self._origin.client.broker.perform(self._asking()))

    async def awhy(self) -> str:
        """Do what `why` does, on an event loop."""
        return self._sentence(await self._origin.client.abroker.perform(self._asking()))

    def _asking(self, within: float | None = None) -> Protocol[Any]:
        from taskq.views.finding import ask_why

        return ask_why(self._origin.client.partitions, self._raw_id, within)

    def _sentence(self, reply: Any) -> str:
        from taskq.views.why import sentence

        return sentence(self._raw_id, reply)

    @property
    def state(self) -> str:
        """The state's name, asked of the server; see `Status`."""
        return self.status().state

    def ready(self) -> bool:
        """Whether the task has ended, one way or another."""
        return self.state in TERMINAL

    def successful(self) -> bool:
        """Whether the task has returned."""
        return self.state == "SUCCESS"

    def failed(self) -> bool:
        """Whether the task has failed for good."""
        return self.state == "FAILURE"

    @property
    def result(self) -> R | TaskError | None:
        """The value if it has returned, its error if it has failed, None if it has not ended."""
        self.status()
        if self._ended is None:
            return None
        return self._ended.error or self._ended.value

    @property
    def traceback(self) -> str | None:
        """The worker's traceback if it has failed, else None."""
        self.status()
        return self._ended.error.traceback or None if self._ended and self._ended.error else None

    def forget(self) -> None:
        """Delete the stored result now instead of after ``result_ttl``."""
        from taskq.broker.commands import awaiting

        client = self._origin.client
        for keys in client.partitions.places(self._raw_id):
            if client.broker.run(awaiting.forget(keys, self._raw_id)):
                break

    @classmethod
    def _ready(cls, raw_id: bytes, origin: Origin, stored: bytes) -> AsyncResult[Any]:
        """Make a handle of a call that has ended in this process (``apply``)."""
        result: AsyncResult[Any] = cls(raw_id, origin)
        result._ended = result._read_outcome(stored)._replace(final=True) if stored else Ended("SUCCESS")
        return result


def _rebuilt(raw_id: bytes, origin: Origin, ended: Ended | None) -> AsyncResult[Any]:
    """Make a handle again that was pickled."""
    result: AsyncResult[Any] = AsyncResult(raw_id, origin)
    result._ended = ended
    return result
