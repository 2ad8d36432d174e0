"""How much of a task may run: limits and breakers, as declared and as the server reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from taskq.config import LONGEST
from taskq.errors import ConfigError
from taskq.tasks.keys import Key, check_key

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([0-9]*)(ms|s|m|h|d)")


_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a task may run, in the whole fleet. A message that is over it waits on the server.

    Attributes:
        rate: How many may start in a time, ``"100/m"``: the unit is ``s``, ``m``, ``h`` or ``d``; also ``"5/10s"``.
        max_concurrency: How many may run at the same time.
        burst: How many may start at once after an idle time; unless given, what the rate allows in 100 ms, at least 1.
        key: Counts each user, tenant ... separately: the name of an argument, or a function of the arguments by name. A
            call whose key is None is not limited.
    """

    rate: str | None = None
    max_concurrency: int | None = None
    burst: int | None = None
    key: Key | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.rate is None and self.max_concurrency is None:
            raise ConfigError("a limit needs rate= or max_concurrency=")
        for name in ("max_concurrency", "burst"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number from 1, not {value!r}")
        if self.burst is not None and self.rate is None:
            raise ConfigError("burst= says how much of a rate= may come at once; there is none")
        if self.rate is not None:
            interval_ms(self.rate)
        check_key("key", self.key)

    def published(self, kind: str) -> Published:
        """Return its published form; ``kind`` is o, s or k."""
        interval = 0.0 if self.rate is None else interval_ms(self.rate)
        burst = self.burst or max(1, int(100 / interval)) if interval else 1
        return Published(kind, interval, burst, self.max_concurrency or 0)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Pauses a task that keeps failing; then lets one message through, whose outcome decides.

    Attributes:
        failures: The share of failed runs, above 0 up to 1, that opens it.
        of: How many of the last runs count.
        pause: Seconds it stays open.
    """

    failures: float = 0.5
    of: int = 20
    pause: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not is_number(self.failures) or not 0 < self.failures <= 1:
            raise ConfigError(f"failures of a Breaker must be a share above 0, at most 1, not {self.failures!r}")
        if type(self.of) is not int or not 1 <= self.of <= 1000:
            raise ConfigError(f"of= of a Breaker must be a whole number from 1 to 1000, not {self.of!r}")
        if not is_number(self.pause) or not 0 < self.pause <= LONGEST:
            raise ConfigError(f"pause of a Breaker must be a number of seconds above 0, not {self.pause!r}")

    def published(self, kind: str) -> Published:
        """Return its published form; ``kind`` is B or b."""
        return Published(kind, self.failures, self.of, round(self.pause * 1000))


@dataclass(frozen=True, slots=True)
class Published:
    """A limit or a breaker as the server keeps it and ``gates.lua`` reads it: a line of four words.

    Attributes:
        kind: Of a limit: o (of all that is in the queue), s (of the task, in a queue it shares), k (each key apart).
            Of a breaker: B (of all that is in the queue), b (of the task).
        interval: Ms between two starts, 0 for no rate; of a breaker the share of failures that opens it.
        burst: Starts at once after a pause; of a breaker the number of runs that are looked at.
        slots: Runs at the same time, 0 for any number; of a breaker the ms for which it stays open.
    """

    kind: str
    interval: float
    burst: int
    slots: int

    @property
    def is_breaker(self) -> bool:
        """Whether it is a breaker."""
        return self.kind in "bB"

    def __str__(self) -> str:
        """Write the line."""
        interval = f"{self.interval:g}" if self.is_breaker else f"{self.interval:.6f}"
        return f"{self.kind} {interval} {self.burst} {self.slots}"


def read_published(text: str) -> list[Published]:
    """Read what is published of a task; lines of another form are left out."""
    found = re.findall(r"^(\w) (\S+) (\d+) (\d+)$", text, re.MULTILINE)
    return [Published(kind, float(interval), int(burst), int(slots)) for kind, interval, burst, slots in found]


def is_number(value: Any) -> bool:
    """Whether a value is a number: True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def interval_ms(rate: Any) -> float:
    """Return the ms between two starts at a rate.

    Raises:
        ConfigError: Not a rate.
    """
    match = _RATE.fullmatch(rate) if isinstance(rate, str) and len(rate) <= 30 else None
    interval = 0.0
    if match is not None and float(match[1]):
        interval = int(match[2] or 1) * _UNIT_MS[match[3]] / float(match[1])
    if not 1e-5 <= interval <= LONGEST * 1000:
        raise ConfigError(
            f"rate {rate!r:.80} cannot be read: write for example '100/m', '5/10s' or '0.5/s'; more than 0"
        )
    return interval


def rate_text(interval: float) -> str:
    """Write a rate of which `interval_ms` is ``interval``: the unit in which it is a whole number, if there is one."""
    counts = [(unit, size / interval) for unit, size in _UNIT_MS.items() if unit != "ms"]
    whole = [(unit, count) for unit, count in counts if count >= 0.999 and abs(count - round(count)) < 0.001 * count]
    unit, count = (whole or [found for found in counts if found[1] >= 1] or counts[-1:])[0]
    return f"{round(count) if whole else f'{count:.3g}'}/{unit}"
