"""Apps, tasks and handles as pickles and copies: by name, as Python does with functions.

A pickle says which module made the app and which has the task; unpickling imports them. It contains no settings, and so
no password.
"""

from __future__ import annotations

import importlib
import weakref
from typing import Any, TypeVar

from taskq.errors import ConfigError

Self = TypeVar("Self")

#: The apps of this process by name, the newest last. Two of one name are the same app declared anew, as by a reload.
_apps: dict[str, list[weakref.ref[Any]]] = {}


class ByName:
    """An object that exists once per process: a copy is the object itself."""

    def __copy__(self: Self) -> Self:
        """Return the thing itself."""
        return self

    def __deepcopy__(self: Self, _memo: object) -> Self:
        """Return the thing itself."""
        return self


def remember(app: Any) -> None:
    """Let an app be found by its name."""
    _apps[app.name] = [ref for ref in _apps.get(app.name, ()) if ref() is not None] + [weakref.ref(app)]


def find_app(name: str, home: str) -> Any:
    """Return the app of that name, made in the module ``home``.

    Raises:
        ConfigError: There is none, or there are several that differ.
    """
    found = _living(name)
    if not found:
        importlib.import_module(home)
        found = _living(name)
    if not found:
        raise ConfigError(f"no app named {name!r} in this process; importing {home!r}, where it was made, made none")
    if any(app.settings != found[0].settings for app in found):
        raise ConfigError(f"several apps are named {name!r}, with other settings: a pickle cannot tell them apart")
    return found[-1]


def _living(name: str) -> list[Any]:
    return [app for ref in _apps.get(name, ()) if (app := ref()) is not None]


def find_client(name: str, home: str) -> Any:
    """Return the client of an app."""
    return find_app(name, home).client


def find_task(app: str, home: str, module: str, task: str) -> Any:
    """Return a task by its name; imports ``module``, which declares it, if need be."""
    tasks = find_app(app, home).tasks
    if task not in tasks:
        importlib.import_module(module)
    if task not in tasks:
        raise ConfigError(f"app {app!r} has no task {task!r} in this process; importing {module!r} declared none")
    return tasks[task]
