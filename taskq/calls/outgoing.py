"""Middleware around sending: it sees each call before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from taskq.calls.sending import Call, as_list, as_map
from taskq.errors import ConfigError
from taskq.tasks.hooks import Function, name_of, through

if TYPE_CHECKING:
    from taskq.calls.task import Task


class Outgoing:
    """A call that is about to be sent, for middleware around ``enqueue`` to look at and to change.

    Attributes:
        task: Name of the task.
        args: Positional arguments.
        kwargs: Keyword arguments, by name.
        headers: What the task finds in ``self.request.headers``; may be added to, whatever the caller gave.
        options: The other options of ``apply_async`` that were given, such as ``countdown``, by name.
    """

    __slots__ = ("args", "headers", "kwargs", "options", "task")

    def __init__(self, task: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> None:
        """Hold a call; made for each one that is sent."""
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.headers = as_map("headers", options.pop("headers", None))

    def __repr__(self) -> str:
        """Show the task; arguments may be secret."""
        return f"<Outgoing {self.task}>"


def send_through(
    middleware: tuple[Function, ...],
    task: Task[..., Any],
    args: Iterable[Any],
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Call:
    """Prepare a call through middleware; raises what that raises, and what `_check` raises."""
    call = Outgoing(task.name, as_list("args", args), as_map("kwargs", kwargs), dict(options))

    def write() -> Call:
        return task.write(call.args, call.kwargs, headers=call.headers, **call.options)

    made: Call = through(middleware, call, write, _check)()
    return made


def _check(middleware: Function, made: Any) -> Any:
    """Return what middleware hands on; raises `ConfigError` if that is no `Call`."""
    if not isinstance(made, Call):
        raise ConfigError(
            f"the middleware {name_of(middleware)} around 'enqueue' returned {made!r:.80}: return what call_next() "
            "returns, or raise an error for the caller to refuse the call"
        )
    return made
