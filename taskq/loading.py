"""What a process needs before it can be a worker: the app that ``-A`` names, and logging."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
from types import ModuleType

from taskq.app import TaskQ
from taskq.errors import ConfigError
from taskq.runs.logs import TaskFilter
from taskq.spelling import guess

_FORMAT = "%(asctime)s %(levelname)-7s %(processName)s %(name)s: %(within)s%(message)s"


class AppNotFound(ConfigError):
    """The module was imported, but no app is in it."""


def find_app(path: str) -> TaskQ:
    """Import and return the app that ``module`` or ``module:attribute`` names, with what is installed for it.

    Without an attribute it is the module's ``app``, or the only `TaskQ` in it; for a package, also those of its
    submodules ``app``, ``tasks`` and ``taskq``. The current folder is importable.

    Raises:
        AppNotFound: Not the name of a module, or nothing of the kind in it; the text says what was looked for.
        Exception: Whatever importing the module raises.
    """
    app = _find_app(path)
    app.load_installed()
    return app


def _find_app(path: str) -> TaskQ:
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    name, _, attribute = path.partition(":")
    _check_module_name(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something else is missing, that the module wanted
        if (app := _app_by_dots(name)) is not None:
            return app
        raise AppNotFound(_missing(error.name)) from None
    if attribute:
        found: object = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise AppNotFound(f"module {name!r} has no {attribute!r}")
            found = getattr(found, part)
        if isinstance(found, TaskQ):
            return found
        raise AppNotFound(f"{attribute!r} in module {name!r} is {found!r}, not a TaskQ")
    for candidate in [module, *_submodules(module)]:
        app = _app_in(candidate)
        if app is not None:
            return app
    raise AppNotFound(
        f"no app in module {name!r}: looked for an attribute `app`, then for a single TaskQ"
        f"{', there and in its submodules app, tasks, taskq' if hasattr(module, '__path__') else ''}. "
        f"Name it: -A {name}:attribute"
    )


def _app_by_dots(path: str) -> TaskQ | None:
    """Return the app named by a path with a dot instead of the colon, which Celery accepts too."""
    name, _, attribute = path.rpartition(".")
    app = getattr(sys.modules.get(name), attribute, None)
    return app if isinstance(app, TaskQ) else None


def _missing(name: str) -> str:
    """Say that there is no such module, and which have similar names."""
    parent, _, last = name.rpartition(".")
    if parent:
        module = sys.modules.get(parent)
        inside = [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]
        apps = [key for key, value in vars(module).items() if isinstance(value, TaskQ)] if module else []
        hint = f"; did you mean -A {parent}:{apps[0]}?" if apps else guess(last, inside)
        return f"there is no module {name!r}: {parent} has no {last}{hint}"
    here = [found.name for found in pkgutil.iter_modules([os.getcwd()])]
    return f"there is no module {name!r} in {os.getcwd()}, nor among what is installed{guess(name, here)}"


def _check_module_name(name: str) -> None:
    is_file = name.endswith(".py") and os.path.exists(name)
    if is_file or not all(part.isidentifier() for part in name.split(".")):
        meant = name.removesuffix(".py").replace("/", ".").strip(".")
        hint = f"; did you mean -A {meant}?" if all(part.isidentifier() for part in meant.split(".")) else ""
        raise AppNotFound(f"{name!r} is not the name of a module, as in an import{hint}")


def _app_in(module: ModuleType) -> TaskQ | None:
    if isinstance(app := getattr(module, "app", None), TaskQ):
        return app
    apps = {id(value): value for value in vars(module).values() if isinstance(value, TaskQ)}
    if len(apps) > 1:
        names = ", ".join(sorted(key for key, value in vars(module).items() if isinstance(value, TaskQ)))
        raise AppNotFound(f"module {module.__name__!r} has several apps ({names}); name one: -A {module.__name__}:name")
    return next(iter(apps.values()), None)


def _submodules(module: ModuleType) -> list[ModuleType]:
    present = {info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))}
    return [
        importlib.import_module(f"{module.__name__}.{name}") for name in ("app", "tasks", "taskq") if name in present
    ]


def set_up_logging(level: str = "") -> None:
    """Log to standard error from ``level`` on (a name such as ``info``; unless given, ``warning``).

    Call it after the app's module has been imported: what the module has configured wins. Then ``level``, if given, is
    only that of taskq's own loggers. Loggers of taskq that a ``dictConfig`` has disabled, since it did not name them,
    are enabled again.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if (name == "taskq" or name.startswith("taskq.")) and isinstance(logger, logging.Logger):
            logger.disabled = False
    if logging.root.handlers:
        if level:
            logging.getLogger("taskq").setLevel(level.upper())
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_complete)
    logging.root.addHandler(handler)
    logging.root.setLevel((level or "warning").upper())


def _complete(record: logging.LogRecord) -> bool:
    """Put the running task before what user code logs; skip records that a handler of the module has already had."""
    TaskFilter().filter(record)
    inside = vars(record).get("task_id") and not record.name.startswith("taskq.")
    record.within = f"{vars(record)['task_name']}[{vars(record)['task_id']}] " if inside else ""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not logging.root:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True
