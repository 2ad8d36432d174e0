"""How an app gets its middleware and hooks: by decorators, and from installed packages."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from taskq.calls.outgoing import Outgoing
from taskq.calls.sending import Call
from taskq.runs.context import Request
from taskq.runs.resources import AsyncResource, Made, Resource, resource_of

if TYPE_CHECKING:
    from taskq.calls.client import Client
    from taskq.calls.task import Task

log = logging.getLogger("taskq")

#: Installed packages name a function under this group that is given each app.
GROUP = "taskq.middleware"

_Around = TypeVar("_Around", bound=Callable[[Request, Callable[[], Any]], Any])
_AroundAsync = TypeVar("_AroundAsync", bound=Callable[[Request, Callable[[], Awaitable[Any]]], Awaitable[Any]])
_AroundEnqueue = TypeVar("_AroundEnqueue", bound=Callable[[Outgoing, Callable[[], Call]], Call])
_OnValue = TypeVar("_OnValue", bound=Callable[[Request, Any], object])
_OnError = TypeVar("_OnError", bound=Callable[[Request, BaseException], object])
_OnRetry = TypeVar("_OnRetry", bound=Callable[[Request, "BaseException | None"], object])
_OnMoment = TypeVar("_OnMoment", bound=Callable[[], object])
_R = TypeVar("_R")
_Moment = Literal["worker_init", "worker_ready", "child_init", "child_shutdown", "worker_shutdown"]


class Hooked:
    """What has middleware and hooks: an app."""

    client: Client
    _packages_asked = False
    _resources: Made | None = None

    if TYPE_CHECKING:

        @property
        def tasks(self) -> Mapping[str, Task[..., Any]]:
            """The tasks by name."""

    @overload
    def around(self, what: Literal["run"], /) -> Callable[[_Around], _Around]: ...
    @overload
    def around(self, what: Literal["arun"], /) -> Callable[[_AroundAsync], _AroundAsync]: ...
    @overload
    def around(self, what: Literal["enqueue"], /) -> Callable[[_AroundEnqueue], _AroundEnqueue]: ...

    def around(self, what: str, /) -> Callable[[Any], Any]:
        """Install middleware, a function around something: ``@app.around("run")``.

        It is called with what it is around and with ``call_next``, which runs the rest and returns its value. The
        first one installed is the outermost; those of a task (``around_run``, ``around_enqueue``) are inside the app's.

        Args:
            what: ``run``: each run of a sync task, a function of `Request` and ``call_next``, which returns the value.
                ``arun``: each run of an async task, an ``async def`` that awaits ``call_next()``.
                ``enqueue``: each call before it is written, a function of `Outgoing` and ``call_next``, which returns
                the `Call`; an error that it raises refuses the call, and the caller gets it.

        Raises:
            ConfigError: A name that there is not, a function of the wrong kind, or a worker that has begun.
        """

        def install(function: Any) -> Any:
            self.client.hooks.around(what, function)
            for task in self.tasks.values():
                task.surround()
            return function

        return install

    @overload
    def on(self, event: Literal["success"], /) -> Callable[[_OnValue], _OnValue]: ...
    @overload
    def on(self, event: Literal["failure", "dead"], /) -> Callable[[_OnError], _OnError]: ...
    @overload
    def on(self, event: Literal["retry"], /) -> Callable[[_OnRetry], _OnRetry]: ...
    @overload
    def on(self, event: _Moment, /) -> Callable[[_OnMoment], _OnMoment]: ...

    def on(self, event: str, /) -> Callable[[Any], Any]:
        """Install a hook, a function that is called when something has happened: ``@app.on("failure")``.

        Nothing it does or raises changes what has happened; an error is logged with its name.

        Args:
            event: How a run has ended, a function of `Request` and the value or error: ``success``, ``failure`` (for
                good), ``retry`` (the error is None where there was none), ``dead`` (a worker made it a dead letter).
                Or a moment in the life of a worker, a function without arguments: ``worker_init`` (before there are
                children), ``worker_ready`` (its children take messages), ``worker_shutdown`` (they have ended), in the
                worker's parent process; ``child_init`` and ``child_shutdown`` in each child.

        Raises:
            ConfigError: A name that there is not, a function of the wrong kind, or a worker that has begun.
        """

        def install(function: Any) -> Any:
            self.client.hooks.on(event, function)
            return function

        return install

    @overload  # the last one is for what is none of the others
    def resource(  # type: ignore[overload-overlap]
        self, make: Callable[[], AsyncIterator[_R]], /
    ) -> AsyncResource[_R]: ...
    @overload
    def resource(  # type: ignore[overload-overlap]
        self, make: Callable[[], Coroutine[Any, Any, _R]], /
    ) -> AsyncResource[_R]: ...
    @overload
    def resource(self, make: Callable[[], Iterator[_R]], /) -> Resource[_R]: ...
    @overload
    def resource(self, make: Callable[[], _R], /) -> Resource[_R]: ...

    def resource(self, make: Callable[[], Any], /) -> Any:
        """Declare what tasks need and each process makes once, such as a client or a model: ``@app.resource``.

        Calling it returns what was made; the first call in a process makes it. A generator function yields it, and
        closes it when it goes on: in a worker when the child ends, else when the process does. An ``async def``, or an
        async generator function, makes it once for each event loop: ``await`` the call; it is closed with the loop.

        Args:
            make: A function without arguments.

        Raises:
            ConfigError: Something else, or a worker that has begun.
        """
        if self._resources is None:
            self._resources = Made()
            self.client.hooks.on("child_shutdown", self._resources.close)
        return resource_of(make, self._resources)

    def load_installed(self) -> None:
        """Let installed packages add their middleware and hooks to this app, once. Workers do it by themselves.

        A package names a function that is given the app under the entry point group ``taskq.middleware``. One that is
        broken is logged with its name, and left out.
        """
        if self._packages_asked:
            return
        self._packages_asked = True
        for point in _entry_points():
            try:
                point.load()(self)
            except Exception:
                package = point.dist.name if point.dist else "an unknown package"
                log.exception("the middleware %s of %s is broken, and left out", point.name, package)


def _entry_points() -> Iterator[Any]:
    if any(map(_may_have_middleware, sys.path)):
        from importlib_metadata import entry_points  # takes a tenth of a second

        yield from sorted(entry_points(group=GROUP), key=lambda point: str(point.name))


def _may_have_middleware(folder: str) -> bool:
    """Say whether a folder, or another thing on the path, may hold a package that names middleware."""
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:
        return True  # an archive: only those who can open it know
    except OSError:
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                if GROUP in Path(folder, name, "entry_points.txt").read_text("utf-8", "replace"):
                    return True
            except OSError:
                continue
    return False
