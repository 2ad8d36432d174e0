"""The app: settings, the registry of its tasks and periodic entries, the way to the server."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, NoReturn, ParamSpec, TypeVar, Unpack, overload

from taskq import celery_names
from taskq.calls.by_name import ByName, find_app, remember
from taskq.calls.client import Client
from taskq.calls.control import Control
from taskq.calls.hooking import Hooked
from taskq.calls.result import AsyncResult, Origin
from taskq.calls.sending import Call, asend_calls, send_calls
from taskq.calls.task import AsyncTask, Task
from taskq.celery_names import instead, no_attribute
from taskq.config import Settings, check_name, load_settings
from taskq.errors import ConfigError
from taskq.message.ids import id_from_text
from taskq.periodic.schedule import Cron, Every, read_schedule
from taskq.runs.context import Context
from taskq.tasks.callables import importable, is_again
from taskq.tasks.definition import Definition
from taskq.tasks.flow import split_flow_options
from taskq.tasks.hooks import split_hook_options
from taskq.tasks.options import TASK_OPTIONS, BoundTaskOptions, TaskOptions, TickOptions
from taskq.tasks.retry_options import split_options
from taskq.tasks.routes import Routes

if TYPE_CHECKING:
    from taskq.periodic.entry import CatchUp, Entry, Overlap

log = logging.getLogger("taskq")

P = ParamSpec("P")
R = TypeVar("R")
AnyTask = TypeVar("AnyTask", bound=Task[..., Any])

_OF_ONE_CALL = {"countdown", "eta", "task_id"}


class TaskQ(Hooked, Control, ByName):
    """An app: a name, settings, tasks.

    ::

        app = TaskQ("shop")                              # TASKQ_URL, else the embedded server
        app = TaskQ("shop", "redis://localhost:6379", lease=30)
    """

    def __init__(
        self,
        name: str,
        url: str | None = None,
        *,
        lease: float | None = None,
        result_ttl: float | None = None,
        max_crashes: int | None = None,
        discard_after: float | None = None,
        unknown_after: float | None = None,
        dead_ttl: float | None = None,
        dead_max: int | None = None,
        max_message_bytes: int | None = None,
        result_memory: float | None = None,
        send_timeout: float | None = None,
        server_check: str | None = None,
        start_method: str | None = None,
        partitions: int | None = None,
        timezone: str | None = None,
        routes: Mapping[str, str] | None = None,
    ) -> None:
        """Make an app. Nothing is connected yet.

        Each setting not given here is taken from the environment (``TASKQ_LEASE``), then from ``[tool.taskq]`` in
        ``pyproject.toml``, then from its default. All durations are seconds.

        Args:
            name: Keeps the apps on a server apart: 1 to 200 of ``A-Z a-z 0-9 _ . : -``.
            url: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``; without one, and without
                ``TASKQ_URL``, the project's embedded server.
            lease: Seconds without a sign of life after which a worker is presumed dead (15).
            result_ttl: Seconds a result is kept (3600).
            max_crashes: Deaths of its process after which a message is a dead letter (3).
            discard_after: Age in seconds beyond which a message whose worker died becomes a dead letter instead of
                running again (no limit).
            unknown_after: Seconds after which a message whose task no worker knows is a dead letter (3600).
            dead_ttl: Seconds a dead letter is kept (30 days).
            dead_max: Dead letters kept per queue (100,000).
            max_message_bytes: Largest message, and largest result (1 MiB).
            result_memory: Results are kept while at most this share of the server's maxmemory is in use (0.9).
            send_timeout: How many seconds ``delay()`` keeps trying when the server does not answer (5).
            server_check: ``refuse``: workers do not start if the server may lose messages; ``warn``: they only warn.
            start_method: How workers make their child processes: ``fork``, ``forkserver`` or ``spawn`` (fork on Linux,
                spawn elsewhere).
            partitions: How many partitions the app has on its server, each with queues of its own (1).
            timezone: Name of the time zone of cron expressions for which none is given (UTC).
            routes: Queues for tasks that name none, by patterns of the tasks' names: ``{"shop.mails.*": "mails"}``. The
                first that fits counts; a task that none fits has its own queue.

        Raises:
            ConfigError: A name or setting that cannot work.
        """
        self.name = check_name("app", name)
        given = {k: v for k, v in locals().items() if k not in ("self", "name", "routes")}
        self.settings: Settings = load_settings(given)
        self.client = Client(name, self.settings, _home(self))
        self.routes = Routes(routes or {})
        self._tasks: dict[str, Task[..., Any]] = {}
        self._given: dict[str, dict[str, Any]] = {}
        self._entries: dict[str, Entry] = {}
        remember(self)

    def __repr__(self) -> str:
        """Show the name and how many tasks there are."""
        return f"<TaskQ {self.name}: {len(self._tasks)} tasks>"

    if not TYPE_CHECKING:  # for which there is no such attribute

        def __getattr__(self, name: str) -> NoReturn:
            """Say what to use instead of Celery's names."""
            raise no_attribute(self, name, celery_names.APP)

    def __reduce__(self) -> Any:
        """Pickle the app by its name."""
        return find_app, (self.name, self.client.home)

    @property
    def tasks(self) -> MappingProxyType[str, Task[..., Any]]:
        """The tasks by name."""
        return MappingProxyType(self._tasks)

    @property
    def entries(self) -> MappingProxyType[str, Entry]:
        """The periodic entries by name."""
        return MappingProxyType(self._entries)

    # The order matters to type checkers: coroutine functions first, then bound ones, then all.
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, /, **options: Unpack[BoundTaskOptions]) -> _BoundDecorator: ...
    @overload
    def task(self, /, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> _Decorator: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task: ``@app.task`` or ``@app.task(max_retries=5, ...)``.

        Args:
            function: The function, sync or ``async def``.
            **options: Those of `TaskOptions` in `taskq.tasks.options`: ``queue``, ``time_limit``, ``max_retries`` …;
                and ``bind=True`` for a function whose first parameter is a `Context`.

        Raises:
            ConfigError: An option that cannot work, or a name that is taken.
        """
        if function is None:
            return lambda decorated: self._register(decorated, options)
        return self._register(function, options)

    def _register(self, function: Callable[..., Any], options: dict[str, Any]) -> Task[..., Any]:
        given = dict(options)
        try:
            retry, flow, hooks = split_options(given), split_flow_options(given), split_hook_options(given, function)
            if unknown := sorted(set(given) - set(TASK_OPTIONS)):
                hint = instead(unknown[0], celery_names.OPTIONS, TASK_OPTIONS)
                raise ConfigError(f"@app.task has no option {', '.join(unknown)}{hint}")
        except ConfigError as error:
            where = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
            raise ConfigError(f"{where}: {error}") from None
        probe = Definition(function, retry=retry, flow=flow, hooks=hooks, **given)
        if given.get("queue") is None and (queue := self.routes.queue_of(probe.name)) is not None:
            given["queue"] = queue
        kind: type[Task[..., Any]] = AsyncTask if probe.is_async else Task
        task = kind(function, self.client, retry=retry, flow=flow, hooks=hooks, **given)
        self._replace(self._tasks.get(task.name), task, options)
        self._tasks[task.name], self._given[task.name] = task, options
        return task

    def _replace(self, old: Task[..., Any] | None, task: Task[..., Any], options: dict[str, Any]) -> None:
        """Judge a name that is taken. The same function may have it, since its module may be executed again.

        Another function may not. If it is at the same place in the code, nobody knows yet whether both will be called:
        then the first task refuses calls, since they would run the second.
        """
        if old is None:
            return
        one, two = (f"{which.__module__}.{which.__qualname__}" for which in (old, task))
        if one != two:
            raise ConfigError(f"two tasks are named {task.name!r}: {one} and {two}; give one of them a name=")
        if is_again(old.function, task.function) and (
            old.function is not task.function or options == self._given[task.name]
        ):
            return
        old.refuse(
            f"two tasks are named {task.name!r}: {one} was declared again, by a factory, a decorator without "
            "functools.wraps, with other options, or by a second def; calls of the first would run the second: "
            "give each a name="
        )
        log.warning("%s", old.origin.refused)

    @overload
    def periodic(
        self, name: str, schedule: str | Cron | Every, task: AnyTask, args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None, *, tz: str | None = None, catch_up: CatchUp = "last",
        window: float | timedelta = 86400.0, overlap: Overlap = "allow", jitter: float | timedelta = 0.0,
        **options: Unpack[TickOptions],
    ) -> AnyTask: ...  # fmt: skip
    @overload
    def periodic(
        self, name: str, schedule: str | Cron | Every, *, args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None, tz: str | None = None, catch_up: CatchUp = "last",
        window: float | timedelta = 86400.0, overlap: Overlap = "allow", jitter: float | timedelta = 0.0,
        **options: Unpack[TickOptions],
    ) -> Callable[[AnyTask], AnyTask]: ...  # fmt: skip

    def periodic(
        self,
        name: str,
        schedule: str | Cron | Every,
        task: Task[..., Any] | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        tz: str | None = None,
        catch_up: CatchUp = "last",
        window: float | timedelta = 86400.0,
        overlap: Overlap = "allow",
        jitter: float | timedelta = 0.0,
        **options: Unpack[TickOptions],
    ) -> Any:
        """Send a task at set times: ``app.periodic("report", "0 6 * * mon-fri", report)``, or as a decorator above it.

        Workers put the entry on the server when they start; whichever of them sees a tick due sends it, once.

        Args:
            name: Name of the entry, 1 to 170 of ``A-Z a-z 0-9 _ . : -``.
            schedule: A cron expression of five fields, ``@daily`` and its like, ``every(...)`` or ``crontab(...)``.
            task: The task; the decorated one unless given.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            tz: Name of the time zone of a cron expression, such as ``Europe/Vienna``; the app's ``timezone`` else.
            catch_up: What happens to missed ticks, which nobody was there to send within ten seconds: ``last`` sends
                only the newest; ``all`` sends each; ``skip`` none.
            window: How many seconds old a missed tick may be and still be sent (a day).
            overlap: ``skip`` sends no tick while the entry's last message has not ended.
            jitter: Each tick is delayed by up to this many seconds, by the same amount on every machine.
            **options: Those of `TickOptions`: what ``apply_async`` takes, but for ``countdown``, ``eta``, ``task_id``.

        Returns:
            The task.

        Raises:
            ConfigError: A schedule that cannot be read or never comes, an unknown zone, an invalid or taken name, a
                wrong option.
            TypeError: The arguments do not fit the task.
        """
        from taskq.periodic.entry import Entry  # most processes that import an app declare none

        with _about(name):
            when = read_schedule(schedule, tz, self.settings.timezone)

        def declare(task: Any) -> Any:
            if not isinstance(task, Task):
                raise ConfigError(
                    f"periodic entry {name} needs a task, not {task!r}: @app.periodic goes above @app.task"
                )
            if refused := _OF_ONE_CALL & options.keys():
                raise ConfigError(f"periodic entry {name}: each tick has its own {', '.join(sorted(refused))}")
            with _about(name):
                if task.origin.refused and task is not self._tasks.get(task.name):
                    raise ConfigError(task.origin.refused)  # its ticks would run another
                message = task.write(args, kwargs, **options).message  # sent again and again, so without middleware
                entry = Entry.of(name, when, message, catch_up=catch_up, window=window, overlap=overlap, jitter=jitter)
            if self._entries.setdefault(name, entry) != entry:
                raise ConfigError(f"two periodic entries are named {name!r}, and they differ")
            return task

        return declare if task is None else declare(task)

    def enqueue_many(self, calls: Iterable[Call]) -> list[AsyncResult[Any]]:
        """Send calls of any tasks in few round trips.

        Args:
            calls: Made by ``task.call(...)`` or ``task.prepare_call(args, kwargs, countdown=...)``; may be a
                generator of any length.

        Returns:
            The handles, in the order of the calls.

        Raises:
            DuplicateTaskId: Some calls were refused, since their ``task_id`` is in use; the text names them. The
                others of their chunk have been accepted.
            BrokerError: As ``delay`` raises it; earlier chunks have been accepted.
        """
        return send_calls(self.client, calls)

    async def aenqueue_many(self, calls: Iterable[Call] | AsyncIterable[Call]) -> list[AsyncResult[Any]]:
        """Do what `enqueue_many` does, on an event loop."""
        return await asend_calls(self.client, calls)

    def AsyncResult(self, id: str) -> AsyncResult[Any]:  # noqa: N802  Celery's name
        """Return the handle of the call with that id.

        Raises:
            ValueError: Not an id.
        """
        return AsyncResult(id_from_text(id), Origin(self.client))

    def close(self) -> None:
        """Close the connections that this process's threads have; a later call makes new ones."""
        self.client.close()

    async def aclose(self) -> None:
        """Close the connections that the running event loop has."""
        await self.client.aclose()


class _Decorator:
    """What ``@app.task(...)`` is to type checkers."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


class _BoundDecorator:
    """What ``@app.task(bind=True, ...)`` is to type checkers."""

    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


def _home(app: TaskQ) -> str:
    """Return the module that makes an app, by the frame that called its class."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is app:  # __init__, of a subclass as well
        frame = frame.f_back
    scope = {} if frame is None else frame.f_globals
    return importable(scope.get("__name__", "__main__"), scope)


@contextmanager
def _about(entry: str) -> Iterator[None]:
    """Say in errors which periodic entry they are about."""
    try:
        yield
    except (ConfigError, TypeError) as error:
        if "periodic entry" not in str(error):
            error.args = (f"periodic entry {entry}: {error}", *error.args[1:])
        raise
