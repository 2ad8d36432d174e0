"""Calling a task: now, later, many times; through the server or right here."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, Unpack

from taskq import celery_names
from taskq.calls.by_name import ByName, find_task
from taskq.calls.outgoing import send_through
from taskq.calls.result import AsyncResult
from taskq.calls.sending import (
    Call,
    SpreadCalls,
    asend_call,
    asend_calls,
    handle_of,
    send_call,
    send_calls,
)
from taskq.calls.writing import Writer
from taskq.celery_names import no_attribute
from taskq.message.envelope import encode_plain
from taskq.message.letters import ACCEPTED
from taskq.runs.context import context_of_function
from taskq.tasks import callables
from taskq.tasks.options import CallOptions

if TYPE_CHECKING:
    from taskq.calls.client import Client

P = ParamSpec("P")
R = TypeVar("R")


class Task(Writer, ByName, Generic[P, R]):
    """A function that can also run elsewhere. Made by ``@app.task``; calling it runs it here, as always."""

    def __init__(self, function: Callable[..., Any], client: Client, **options: Any) -> None:
        """Declare a task that is called through ``client``; the options are those of `Definition`."""
        super().__init__(function, client, **options)
        self._plain = self.plain_headers
        self.surround()
        if options.get("name") is None and callables.is_nowhere(self.name):
            self.refuse(
                f"no worker can import {self.name}: it was declared in a notebook, a shell or a file that is no "
                "module. Put it into a module and import that, or give it the name= that it has in the workers' module"
            )

    def surround(self) -> None:
        """Let calls pass through the middleware around sending that is installed by now."""
        self._around = self.client.hooks.of("enqueue") + self.hooks.of("enqueue")
        self._bare = not (self._varies or self._words or self._around or self.origin.refused)

    def refuse(self, why: str) -> None:
        """Let calls raise `ConfigError` from now on instead of being sent; the function still runs here."""
        self.origin = self.origin._replace(refused=why)
        self._bare = False

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without the server; a bound one is given a context of no message."""
        if self.bind:
            return self.function(context_of_function(self, args, kwargs), *args, **kwargs)  # type: ignore[no-any-return]
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]

    if not TYPE_CHECKING:  # for which there is no such attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of Celery's names."""
            raise no_attribute(self, name, celery_names.TASK)

    def __reduce__(self) -> Any:
        """Be pickled by name."""
        return find_task, (self.client.app, self.client.home, callables.module_of(self.function), self.name)

    # -- one call ---------------------------------------------------------------------------------------

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call to the task's queue. When this returns, the server has accepted it.

        Raises:
            TypeError: The arguments do not fit the function.
            SerializationError: An argument cannot be written; the text names the path to it.
            MessageTooLarge: The message is above ``max_message_bytes``.
            BrokerUnavailable: No answer within ``send_timeout``, and nothing was accepted.
            EnqueueUncertain: No answer, and it is not known whether the message was accepted.
            BrokerFull: The server is out of memory.
            QueueFull: The queue has its ``max_length``.
            DuplicateCall: The same unique work waits or runs, and ``on_duplicate="raise"``.
        """
        if not self._bare:
            return send_call(self.client, self.call(*args, **kwargs))
        self._check(*args, **kwargs)
        raw_id = self._new_id()
        value = self._value(raw_id, self.pack_call(args, kwargs), self._head)
        if (answer := self.client.broker.send(raw_id, value)) != ACCEPTED:
            return handle_of(Call((raw_id, value, b""), self.origin, self.flow), answer)
        return AsyncResult(raw_id, self.origin)

    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Do what `delay` does, on an event loop."""
        return await asend_call(self.client, self.call(*args, **kwargs))

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send a call with options.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            **options: Those of `CallOptions`: ``countdown=60``, ``queue="urgent"`` …

        Raises:
            ConfigError: An option that cannot work, such as a moment without a time zone.
            DuplicateTaskId: A message or result of that ``task_id`` exists.
            QueueFull, DuplicateCall: As `delay` raises them.
            TypeError, SerializationError, MessageTooLarge, BrokerError: As `delay` raises them.
        """
        return send_call(self.client, self.prepare_call(args, kwargs, **options))

    async def aapply_async(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncResult[R]:
        """Do what `apply_async` does, with the same options, on an event loop."""
        return await asend_call(self.client, self.prepare_call(args, kwargs, **options))

    # -- many calls -------------------------------------------------------------------------------------

    def delay_many(self, calls: Iterable[Any], *, spread: float = 0.0) -> list[AsyncResult[R]]:
        """Send many calls in few round trips.

        Args:
            calls: The arguments of each call: a tuple of positional ones, a dict of keyword ones, or, for a task of
                one parameter, anything else as that one. May be a generator of any length.
            spread: Seconds over which the calls come due, evenly, however many there are.

        Returns:
            The handles, in the order of the calls.

        Raises:
            TypeError, SerializationError, MessageTooLarge: At the first call that cannot be sent; those of earlier
                chunks have been sent by then.
        """
        return send_calls(self.client, map(self._preparing(spread), calls))

    async def adelay_many(
        self, calls: Iterable[Any] | AsyncIterable[Any], *, spread: float = 0.0
    ) -> list[AsyncResult[R]]:
        """Do what `delay_many` does, on an event loop; also takes an async generator."""
        prepare = self._preparing(spread)
        if isinstance(calls, AsyncIterable):
            return await asend_calls(self.client, (prepare(item) async for item in calls))
        return await asend_calls(self.client, map(prepare, calls))

    def _preparing(self, spread: float) -> Callable[[Any], Call]:
        """Return what prepares one of many calls."""
        return self.call_from if spread == 0 else SpreadCalls(self.prepare_call, spread)

    def call(self, /, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Prepare a call for ``app.enqueue_many``; raises what `delay` raises before it sends."""
        if self.flow.debounce or self._around:
            return self.prepare_call(args, kwargs)
        self._check(*args, **kwargs)
        raw_id = self._new_id()
        head = self._head_of(self.queue, None, args, kwargs) if self._varies else self._head
        value = self._value(raw_id, self.pack_call(args, kwargs), head)
        return Call((raw_id, value, self._words), self.origin, self.flow)

    def call_from(self, item: Any) -> Call:
        """Prepare a call from what `delay_many` takes for one."""
        prepare: Callable[..., Call] = self.call
        if type(item) is tuple:
            return prepare(*item)
        if type(item) is dict:
            return prepare(**item)
        return prepare(item)

    # -- here and now -----------------------------------------------------------------------------------

    def apply(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncResult[R]:
        """Run a call in this process, on the path it takes in a worker but without the server.

        Arguments and result are written and read as they would be; retries follow at once, without their delay.

        Returns:
            A handle that has ended.
        """
        from taskq.calls.apply import run_here  # sending does without it

        call = self.prepare_call(args, kwargs, **options)
        return AsyncResult._ready(call.message[0], self.origin, run_here(self, self.client, call))

    # -- writing ----------------------------------------------------------------------------------------

    def _value(self, raw_id: bytes, body: bytes, head: bytes) -> bytes:
        """Write a plain call: everything but the id and the body was written when the task was declared."""
        value = head + encode_plain(raw_id, self._plain, body)
        if len(value) > self._max_bytes:
            self._too_large(len(value))
        return value

    def prepare_call(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Call:
        """Prepare a call with the options of `apply_async`, for ``app.enqueue_many``; raises what that raises."""
        if not self._around:
            return self.write(args, kwargs, **options)
        return send_through(self._around, self, args, kwargs, {**options})


class AsyncTask(Task[P, R]):
    """A task whose function is ``async def``: calling it gives a coroutine, workers run it on an event loop."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Return the function's coroutine, to be awaited here."""
        return super().__call__(*args, **kwargs)  # type: ignore[return-value]
