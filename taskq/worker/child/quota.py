"""How many messages a child may still run before it is replaced (``--max-tasks-per-child``)."""

from __future__ import annotations

from collections.abc import Callable


class Quota:
    """A count that goes down, and what to do when it is used up. No limit if ``left`` is None."""

    def __init__(self, left: int | None, used_up: Callable[[], None]) -> None:
        """Begin with ``left`` messages; ``used_up`` is called once when there are none left."""
        self.left = left
        self._used_up = used_up

    def room(self, want: int) -> int:
        """Return how many of ``want`` messages may be taken."""
        return want if self.left is None else max(0, min(want, self.left))

    def spend(self, n: int) -> None:
        """Note that ``n`` messages were taken to be run."""
        if self.left is None or not n:
            return
        self.left -= n
        if self.left <= 0:
            self._used_up()
