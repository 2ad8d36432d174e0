"""What a task is: a function with a name, a queue, a signature and rules. Never talks to the server."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import msgpack

from taskq.config import check_name
from taskq.errors import ConfigError
from taskq.message import codec
from taskq.tasks import callables
from taskq.tasks.annotations import Arguments, Converter, convert_arguments, converter
from taskq.tasks.flow import Flow
from taskq.tasks.hints import hints_of
from taskq.tasks.hooks import Hooks
from taskq.tasks.retry import Policy
from taskq.tasks.retry_options import RetryOptions
from taskq.tasks.showing import shown_parameters
from taskq.tasks.vetting import vet, vetter


class Definition:
    """A declared task, without the ways to call it (`taskq.calls.task.Task` adds those).

    Attributes:
        name: ``module.function`` unless given.
        queue: Its own, named after it, unless given.
        function: What was decorated.
        policy: When a failure is retried.
        bind: Whether the function's first parameter is the `Context`.
        ignore_result: Whether its results are dropped.
        dead_letter: Whether a message that failed for good is kept.
        expires: Seconds after which a call no longer runs, unless it says otherwise.
        discard_after: The app's setting of that name, but for this task; seconds.
        pool: ``thread`` to run a sync task in a thread of a child instead of its main thread.
        soft_time_limit: Seconds after which `SoftTimeLimitExceeded` is raised inside the task.
        time_limit: Seconds after which the process that runs it is killed.
        at_most_once: Whether a message whose worker died is a dead letter instead of running again.
        shown: Which arguments operators may see (see `taskq.tasks.showing`).
        flow: When a waiting message may run, and in which order: priority, limits, unique work.
        hooks: Its own middleware and hooks, besides those of the app.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str | None = None,
        bind: bool = False,
        ignore_result: bool = False,
        dead_letter: bool = True,
        expires: float | None = None,
        discard_after: float | None = None,
        pool: str | None = None,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        at_most_once: bool = False,
        show_args: bool | Iterable[str] = False,
        retry: RetryOptions | None = None,
        flow: Flow | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        """Declare a task.

        Raises:
            ConfigError: An invalid name, or a function that cannot be a task.
        """
        self.function = function = callables.checked(function)
        self.is_async = callables.is_async(function)
        self.name = check_name("task", callables.default_name(function) if name is None else name)
        self.queue = check_name("queue", self.name if queue is None else queue)
        self.bind = bind
        self.ignore_result = ignore_result
        self.dead_letter = dead_letter
        self.expires = expires
        self.discard_after = discard_after
        self.pool = pool
        self.soft_time_limit = soft_time_limit
        self.time_limit = time_limit
        self.at_most_once = at_most_once
        self.flow = flow or Flow()
        self.hooks = hooks or Hooks()
        self._check_options()
        self.shown = shown_parameters(self._wrapped_signature, show_args, self.name) if show_args is not False else []
        self.policy = Policy(retry or RetryOptions())
        self.__doc__ = function.__doc__
        self.__qualname__ = callables.qualname(function)
        self.__name__ = getattr(function, "__name__", self.__qualname__.rpartition(".")[2])
        self.__module__ = callables.declared_in(function)
        self.__wrapped__ = function

    def _check_options(self) -> None:
        for option in ("bind", "ignore_result", "dead_letter", "at_most_once"):
            if type(value := getattr(self, option)) is not bool:
                raise ConfigError(f"{option} of task {self.name} must be True or False, not {value!r}")
        for option in ("expires", "discard_after", "soft_time_limit", "time_limit"):
            seconds = getattr(self, option)
            if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
                raise ConfigError(f"{option} of task {self.name} must be a number of seconds above 0, not {seconds!r}")
        if self.soft_time_limit and self.time_limit and self.soft_time_limit >= self.time_limit:
            raise ConfigError(f"soft_time_limit of task {self.name} must be below its time_limit")
        if self.pool not in (None, "thread"):
            raise ConfigError(f"pool of task {self.name} must be 'thread' or None, not {self.pool!r}")
        if self.pool == "thread" and self.is_async:
            raise ConfigError(f"task {self.name} is async: it runs on an event loop, pool='thread' is for sync tasks")
        for option, key in self.flow.named_keys:
            parameters = self._wrapped_signature.parameters
            if key not in parameters and not any(
                p.kind is p.VAR_KEYWORD for p in self.own_signature.parameters.values()
            ):
                raise ConfigError(
                    f"{option}={key!r} of task {self.name} is not one of its arguments: {', '.join(parameters)}"
                )

    def __repr__(self) -> str:
        """Show the name."""
        return f"<{type(self).__name__} {self.name}>"

    @cached_property
    def own_signature(self) -> inspect.Signature:
        """The signature callers use (without the `Context` of a bound task)."""
        return self._seen_by_callers(callables.own_signature(self.function))

    @cached_property
    def _wrapped_signature(self) -> inspect.Signature:
        """The signature of the function inside all decorators; what they pass on to it is not known."""
        return self._seen_by_callers(callables.wrapped_signature(self.function))

    def _seen_by_callers(self, signature: inspect.Signature) -> inspect.Signature:
        seen = callables.without_context(signature) if self.bind else signature
        if seen is None:
            raise ConfigError(f"task {self.name} has bind=True, but its function takes no parameter for the context")
        return seen

    def check_move(self, queue: str) -> None:
        """Raise `ConfigError` if a message of this task that a worker holds cannot go to another queue."""
        check_name("queue", queue)

    @cached_property
    def fingerprint(self) -> bytes:
        """Four bytes that change when the parameters do; they travel with each message."""
        names = ",".join(
            f"{p.kind.value}{p.name}{p.default is not p.empty:d}" for p in self._wrapped_signature.parameters.values()
        )
        return zlib.crc32(names.encode()).to_bytes(4, "big")

    @cached_property
    def plain_headers(self) -> bytes:
        """The headers of a call without options, as written."""
        return bytes(msgpack.packb({"sig": self.fingerprint}))

    @cached_property
    def check(self) -> Callable[..., None]:
        """A function of the task's own signature that does nothing: calling it binds the arguments, at C speed.

        It raises the very ``TypeError`` that calling the task would.
        """
        return callables.compiled(self.__name__, self.own_signature, "pass")

    @cached_property
    def named(self) -> Callable[..., dict[str, Any]]:
        """A function of the same signature that returns its arguments by name, those with defaults too."""
        own = callables.by_name(self.__name__, self.own_signature)
        if self.own_signature == self._wrapped_signature:
            return own
        wrapped = callables.by_name(self.__name__, self._wrapped_signature)

        def named(*args: Any, **kwargs: Any) -> dict[str, Any]:
            try:
                return wrapped(*args, **kwargs)
            except TypeError:  # a decorator gives or takes an argument
                return own(*args, **kwargs)

        return named

    @cached_property
    def convert(self) -> Arguments | None:
        """What turns decoded arguments into what the annotations say; None if they need no turning."""
        return self._for_each(converter)

    @cached_property
    def pack_call(self) -> Callable[[tuple[Any, ...], dict[str, Any]], bytes]:
        """Writes arguments; raises `SerializationError` for those that cannot be written, or could not be read back."""
        look = self._for_each(vetter, vet)
        if look is None:
            return codec.pack_call

        def pack_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
            body = codec.pack_call(args, kwargs)
            look(list(args), kwargs)
            return body

        return pack_call

    @cached_property
    def pack_result(self) -> Callable[[Any, str], bytes]:
        """Writes a result, given its name in errors; raises as `pack_call` does."""
        look = vetter(self._hints.get("return"))
        if look is None:
            return codec.pack

        def pack_result(value: Any, name: str) -> bytes:
            data = codec.pack(value, name)
            look(name, value)
            return data

        return pack_result

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return hints_of(callables.innermost(self.function))

    def _for_each(self, make: Callable[[Any], Any], *apply: Callable[[str, Any, Any], Any]) -> Arguments | None:
        """Make from the annotations what is applied to each argument of a call."""
        plain = convert_arguments(self._wrapped_signature, self._hints, make, *apply)
        if plain is None or self.own_signature == self._wrapped_signature:
            return plain
        fits = callables.compiled(self.__name__, self._wrapped_signature, "pass")
        other = convert_arguments(self.own_signature, self._hints, make, *apply)

        def convert(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
            try:
                fits(*args, **kwargs)
            except TypeError:  # a decorator gives or takes an argument: only what has a name is known
                return (args, kwargs) if other is None else other(args, kwargs)
            return plain(args, kwargs)

        return convert

    @cached_property
    def convert_result(self) -> Converter | None:
        """What turns a decoded result into what the return annotation says; None if it needs no turning."""
        return converter(self._hints.get("return"))

    def read_result(self, value: Any) -> Any:
        """Turn a decoded result into what the return annotation says."""
        return value if value is None or self.convert_result is None else self.convert_result(value)

    def load(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Read the arguments of a call.

        Raises:
            DecodeError: The body cannot be read.
            Exception: Whatever an annotation's class raises at a value that does not fit it.
        """
        args, kwargs = codec.unpack_call(body)
        return (args, kwargs) if self.convert is None else self.convert(args, kwargs)
