"""What the audits of an app have found: when there was one last, and what it mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskq.broker.commands import auditing
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.views.told import read, write


@dataclass(frozen=True, slots=True)
class Audit:
    """The last audit of an app.

    Attributes:
        at: When it ended, in seconds since the epoch; 0 if it is not known that there was one.
        seconds: How long it took.
        by: Who made it, ``user@host``.
        mended: What it mended: how much of what, in words.
        mended_at: When an audit mended anything last, in seconds since the epoch; 0 for never.
        mended_then: What that was.
    """

    at: float = 0.0
    seconds: float = 0.0
    by: str = ""
    mended: Mapping[str, int] = field(default_factory=dict)
    mended_at: float = 0.0
    mended_then: Mapping[str, int] = field(default_factory=dict)

    def stored(self) -> bytes:
        """Write it for the server."""
        return write(self)

    @classmethod
    def read(cls, stored: bytes) -> Audit:
        """Read what `stored` wrote; what cannot be read is as if there had been none."""
        return read(cls, stored, _TYPES)


def last_audit(partitions: Topology) -> Protocol[Audit]:
    """Read what the last audit of an app has found, of all its partitions together: as old as the oldest of them."""
    each: list[Audit] = []
    for keys in partitions.all:
        each.append(Audit.read((yield auditing.last_audit(keys))))
    oldest, newest = min(each, key=lambda one: one.at), max(each, key=lambda one: one.mended_at)
    mended: Counter[str] = sum((Counter(one.mended) for one in each), Counter())
    return Audit(
        oldest.at, sum(one.seconds for one in each), oldest.by, dict(mended), newest.mended_at, newest.mended_then
    )


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("at", "seconds", "mended_at"), (int, float)),
    **{"by": str, "mended": dict, "mended_then": dict},
}
