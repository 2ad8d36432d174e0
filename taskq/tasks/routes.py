"""Which queue the calls of a task go to, if the task names none: by patterns of tasks' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from taskq.config import check_name
from taskq.errors import ConfigError


class Routes:
    """The routes of an app, in their order."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        """Take the queue of each pattern, in which ``*`` stands for any text and ``?`` for a character.

        Raises:
            ConfigError: No mapping of texts, or a queue that cannot be one.
        """
        if not isinstance(routes, Mapping):
            raise ConfigError(f"routes must map patterns of tasks' names to queues, not be {routes!r:.80}")
        for pattern, queue in routes.items():
            if not isinstance(pattern, str):
                raise ConfigError(f"routes: {pattern!r:.80} is no pattern of a task's name, such as 'shop.mails.*'")
            try:
                check_name("queue", queue)
            except ConfigError as error:
                raise ConfigError(f"routes: {pattern!r}: {error}") from None
        self._routes = dict(routes)

    def queue_of(self, task: str) -> str | None:
        """Return the queue of the first pattern that fits; None if none does."""
        return next((queue for pattern, queue in self._routes.items() if fnmatchcase(task, pattern)), None)

    def unused(self, tasks: Iterable[str]) -> list[str]:
        """Return the patterns that fit none of these tasks."""
        names = list(tasks)
        return [pattern for pattern in self._routes if not any(fnmatchcase(name, pattern) for name in names)]
