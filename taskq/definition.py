"""What a task is: a function with a name, a queue, a signature and rules. Never talks to the server."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgpack

from taskq import codec
from taskq.annotations import Converter, converter, hints_of
from taskq.config import check_name
from taskq.errors import ConfigError
from taskq.flow import Flow
from taskq.retry import Policy, RetryOptions


class Definition:
    """A declared task, without the ways to call it (`taskq.task.Task` adds those).

    Attributes:
        name: ``module.function`` unless given.
        queue: Its own, named after it, unless given.
        function: What was decorated.
        policy: When a failure is retried.
        bind: Whether the function's first parameter is the `Context`.
        ignore_result: Whether its results are dropped.
        dead_letter: Whether a message that failed for good is kept.
        discard_after: The app's setting of that name, for this task alone; seconds.
        pool: ``thread`` to run a sync task in a thread of a child instead of its main thread.
        soft_time_limit: Seconds after which `SoftTimeLimitExceeded` is raised inside the task.
        time_limit: Seconds after which the process that runs it is killed.
        at_most_once: Whether a message whose worker died is a dead letter instead of running again.
        flow: When a waiting message may run, and in which turn: priority, limits, unique work.
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
        discard_after: float | None = None,
        pool: str | None = None,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        at_most_once: bool = False,
        retry: RetryOptions | None = None,
        flow: Flow | None = None,
    ) -> None:
        """Declare a task.

        Raises:
            ConfigError: A name that is none, or a function that cannot be a task.
        """
        if not callable(function) or inspect.isclass(function) or not hasattr(function, "__qualname__"):
            raise ConfigError(f"@app.task decorates functions, not {function!r}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{function.__qualname__} is a generator: a task returns one value, or a list of them")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.name = check_name("task", _default_name(function) if name is None else name)
        self.queue = check_name("queue", self.name if queue is None else queue)
        self.bind = bind
        self.ignore_result = ignore_result
        self.dead_letter = dead_letter
        self.discard_after = discard_after
        self.pool = pool
        self.soft_time_limit = soft_time_limit
        self.time_limit = time_limit
        self.at_most_once = at_most_once
        self.flow = flow or Flow()
        self._check_options()
        self.policy = Policy(retry or RetryOptions())
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", self.name)
        self.__qualname__ = getattr(function, "__qualname__", self.name)
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def _check_options(self) -> None:
        for option in ("bind", "ignore_result", "dead_letter", "at_most_once"):
            if type(value := getattr(self, option)) is not bool:
                raise ConfigError(f"{option} of task {self.name} must be True or False, not {value!r}")
        for option in ("discard_after", "soft_time_limit", "time_limit"):
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
            parameters = self.signature.parameters
            if key not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                raise ConfigError(
                    f"{option}={key!r} of task {self.name} is not one of its arguments: {', '.join(parameters)}"
                )

    def __repr__(self) -> str:
        """Show the name."""
        return f"<{type(self).__name__} {self.name}>"

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature callers use (without the `Context` of a bound task)."""
        signature = inspect.signature(self.function)
        parameters = list(signature.parameters.values())
        if self.bind:
            if not parameters:
                raise ConfigError(
                    f"task {self.name} has bind=True, but its function takes no parameter for the context"
                )
            parameters = parameters[1:]
        return signature.replace(parameters=parameters)

    @cached_property
    def fingerprint(self) -> bytes:
        """Four bytes that change when the parameters do; they travel with each message."""
        names = ",".join(
            f"{p.kind.value}{p.name}{p.default is not p.empty:d}" for p in self.signature.parameters.values()
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
        return self._compiled("pass")

    @cached_property
    def named(self) -> Callable[..., dict[str, Any]]:
        """A function of the same signature that returns its arguments by name, those with defaults too."""
        parameters = self.signature.parameters.values()
        items = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name!r}: {p.name}" for p in parameters]
        made = self._compiled(f"return {{{', '.join(items)}}}")
        given = [p for p in parameters if p.default is not p.empty]
        made.__defaults__ = tuple(p.default for p in given if p.kind is not p.KEYWORD_ONLY)
        made.__kwdefaults__ = {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}
        return made

    def _compiled(self, body: str) -> Callable[..., Any]:
        # Made from source, as dataclasses make __init__: only names that already are parameters come in.
        parts, last_kind = [], None
        for p in self.signature.parameters.values():
            if last_kind is p.POSITIONAL_ONLY and p.kind is not p.POSITIONAL_ONLY:
                parts.append("/")
            if p.kind is p.KEYWORD_ONLY and last_kind not in (p.VAR_POSITIONAL, p.KEYWORD_ONLY):
                parts.append("*")
            stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
            parts.append(f"{stars}{p.name}{'' if p.default is p.empty else '=None'}")
            last_kind = p.kind
        if last_kind is inspect.Parameter.POSITIONAL_ONLY:
            parts.append("/")
        name = self.__name__ if self.__name__.isidentifier() else "task"
        namespace: dict[str, Any] = {}
        exec(f"def {name}({', '.join(parts)}): {body}", namespace)
        return namespace[name]  # type: ignore[no-any-return]

    @cached_property
    def convert(self) -> Callable[[list[Any], dict[str, Any]], tuple[list[Any], dict[str, Any]]] | None:
        """What turns decoded arguments into what the annotations say; None if they need no turning."""
        hints = hints_of(self.function)
        positional: list[Converter | None] = []
        named: dict[str, Converter] = {}
        rest: Converter | None = None
        others: Converter | None = None
        for p in self.signature.parameters.values():
            turn = converter(hints.get(p.name))
            if p.kind is p.VAR_POSITIONAL:
                rest = turn
            elif p.kind is p.VAR_KEYWORD:
                others = turn
            else:
                if p.kind is not p.KEYWORD_ONLY:
                    positional.append(turn)
                if turn is not None:
                    named[p.name] = turn
        if not (named or rest or others):
            return None

        def convert(args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
            turns = positional + [rest] * (len(args) - len(positional))
            turned: list[Any] = []
            for turn, value in zip(turns, args, strict=False):
                turned.append(value if turn is None else _turn(f"args[{len(turned)}]", turn, value))
            named_turned = {}
            for key, value in kwargs.items():
                turn = named.get(key, others if key not in self.signature.parameters else None)
                named_turned[key] = value if turn is None else _turn(f"kwargs[{key!r}]", turn, value)
            return turned, named_turned

        return convert

    @cached_property
    def convert_result(self) -> Converter | None:
        """What turns a decoded result into what the return annotation says; None if it needs no turning."""
        return converter(hints_of(self.function).get("return"))

    def load(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Read the arguments of a call.

        Raises:
            DecodeError: The body cannot be read.
            Exception: Whatever an annotation's class raises at a value that does not fit it.
        """
        args, kwargs = codec.unpack_call(body)
        return (args, kwargs) if self.convert is None else self.convert(args, kwargs)


def _turn(path: str, turn: Converter, value: Any) -> Any:
    try:
        return turn(value)
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from None


def _default_name(function: Callable[..., Any]) -> str:
    module = function.__module__
    if module == "__main__":
        # So that `python shop.py` and `taskq worker -A shop` mean the same task.
        import sys
        from pathlib import Path

        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        stem = Path(file).stem if file else module  # "<stdin>" is no name
        module = spec.name.removesuffix(".__main__") if spec else stem if stem.isidentifier() else module
    return f"{module}.{function.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")
