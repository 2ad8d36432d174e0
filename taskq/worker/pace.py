"""How many messages of a queue a child takes at once: about ten milliseconds' worth, exactly one of a slow task."""

from __future__ import annotations

from collections.abc import Iterable

#: Seconds of work that one fetch may bring.
BUDGET = 0.010
#: Messages one fetch brings at most.
BATCH = 64
_WEIGHT = 0.2


class Pace:
    """A moving average of how long the messages of each queue take."""

    def __init__(self, single: Iterable[str] = ()) -> None:
        """Begin knowing nothing: a queue not seen yet gives one message; those in ``single`` always, and alone."""
        self._seconds: dict[str, float] = {}
        self._caps: dict[str, int] = dict.fromkeys(single, 0)
        #: The caps as ``fetch.lua`` reads them.
        self.caps = ""
        self._write()

    def _write(self) -> None:
        self.caps = " " + "".join(f"{name}={n} " for name, n in self._caps.items())

    def saw(self, queue: str, seconds: float, n: int) -> None:
        """Note that ``n`` messages of ``queue`` took ``seconds`` altogether."""
        if self._caps.get(queue) == 0:
            return
        mean = seconds / n
        known = self._seconds.get(queue)
        if known is not None:
            # One that is far above the average counts at once: taking too many of a slow task hurts more.
            mean = mean if mean > 10 * known else known + (mean - known) * _WEIGHT
        self._seconds[queue] = mean
        cap = max(1, min(BATCH, int(BUDGET / mean))) if mean > 0 else BATCH
        if cap != self._caps.get(queue):
            self._caps[queue] = cap
            self._write()
