"""The facts about a message that does not run, as ``why.lua`` tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from taskq.broker.commands.steering import Pause, read_pause
from taskq.errors import DecodeError
from taskq.message.envelope import decode
from taskq.message.head import decode_head
from taskq.tasks.limits import rate_text
from taskq.views.words import moment, span


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that is closed, or that the message waits at."""

    name: str
    closed: bool
    opens: float | None
    interval: float
    slots: int
    used: int
    holders: Sequence[bytes]

    @property
    def limit(self) -> str:
        """Which limit it is, in words."""
        task, _, which = self.name.partition("#")
        number, _, key = which.partition("=")
        what = []
        if self.interval:
            what.append(rate_text(self.interval))
        if self.slots:
            what.append(f"{self.slots} at a time")
        if not what:
            return f"what task {task} asked for by RateLimited"
        return f"limit {number} of task {task}{f', key {key}' if key else ''} ({', '.join(what)})"


class Facts:
    """What ``why.lua`` told of a message."""

    def __init__(self, raw_id: bytes, reply: Sequence[Any]) -> None:
        """Read the reply."""
        self.id = raw_id
        self._told: dict[str, Any] = {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
        self.now = self.number("now") or 0.0

    def __getitem__(self, name: str) -> Any:
        """Return what was told under that name, None for nothing."""
        return self._told.get(name)

    def number(self, name: str) -> float | None:
        """Return a number; times are in ms since the epoch."""
        told = self._told.get(name)
        return None if told is None else float(told)

    def text(self, name: str) -> str:
        """Return a text."""
        return bytes(self._told.get(name) or b"").decode(errors="replace")

    @cached_property
    def names(self) -> tuple[str, str]:
        """Task and queue; raises `DecodeError`."""
        return decode_head(self["value"])[:2]

    @cached_property
    def headers(self) -> dict[str, Any]:
        """The headers, as far as they can be read."""
        try:
            return decode(self["value"]).headers
        except DecodeError:
            return {}

    @property
    def pause(self) -> Pause | None:
        """Why its queue or its task is paused."""
        return read_pause(self["paused"] or self["task-paused"] or b"")

    @property
    def gates(self) -> list[Gate]:
        """Gates of limits, but for those of a pause, and of the lane that runs the task."""
        gates = [
            Gate(
                name=name.decode(),
                closed=passes == b"0",
                opens=float(opens) if opens else None,
                interval=float(interval),
                slots=int(slots),
                used=int(used),
                holders=holders,
            )
            for name, passes, opens, interval, slots, used, *holders in self["gates"] or ()
        ]
        return [gate for gate in gates if not gate.name.endswith(("#p", "#t"))]

    def since(self, ms: float) -> str:
        """Write for how long a moment has passed."""
        return span((self.now - ms) / 1000)

    def until(self, ms: float) -> str:
        """Write a moment to come, and how far it is."""
        left = (ms - self.now) / 1000
        return f"{moment(ms)} (in {span(left)})" if left > 0 else f"{moment(ms)} (now)"
