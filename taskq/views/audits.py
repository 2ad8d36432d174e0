"""What the audits of an app have found: when there was one last, and what it mended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("at", "seconds", "mended_at"), (int, float)),
    **{"by": str, "mended": dict, "mended_then": dict},
}
