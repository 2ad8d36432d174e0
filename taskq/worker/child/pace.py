"""How many messages of a queue a child takes at once: about ten milliseconds' worth, exactly one of a slow task.

The server is told of it, and how long a message takes on average, so that queues share the time of their workers.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Seconds of work that one fetch may bring.
BUDGET = 0.010
#: Messages one fetch brings at most.
BATCH = 64
_WEIGHT = 0.2
#: A mean is told anew when it has changed by this share.
_WORTH_TELLING = 0.1


class Pace:
    """A moving average of how long the messages of each queue take."""

    def __init__(self, single: Iterable[str] = (), many: bool = False) -> None:
        """Begin knowing nothing: a queue not seen yet gives one message; those in ``single`` always, and alone.

        With ``many`` the child runs many at once, and takes what it has room for.
        """
        self._many = many
        self._seconds: dict[str, float] = {}
        self._caps: dict[str, int] = dict.fromkeys(single, 0)
        self._told: dict[str, float] = {}
        #: The caps and means as ``fetch.lua`` reads them.
        self.caps = ""
        self._write()

    def _write(self) -> None:
        told = ((name, n, self._told.get(name, BUDGET)) for name, n in self._caps.items())
        self.caps = "*" * self._many + " " + "".join(f"{name}={n}/{mean * 1000:.4g} " for name, n, mean in told)

    def saw(self, queue: str, seconds: float, n: int) -> None:
        """Note that ``n`` messages of ``queue`` took ``seconds`` altogether."""
        mean = seconds / n
        known = self._seconds.get(queue)
        if known is not None:
            # One that is far above the average counts at once: taking too many of a slow task hurts more.
            mean = mean if mean > 10 * known else known + (mean - known) * _WEIGHT
        self._seconds[queue] = mean
        cap = 0 if self._caps.get(queue) == 0 else max(1, min(BATCH, int(BUDGET / mean))) if mean > 0 else BATCH
        if cap != self._caps.get(queue) or abs(mean - self._told.get(queue, 0.0)) > _WORTH_TELLING * mean:
            self._caps[queue], self._told[queue] = cap, mean
            self._write()
