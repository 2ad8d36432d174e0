"""Durations, moments, and what others wrote, as parts of a sentence."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any


def one_line(text: Any, length: int = 300) -> str:
    """Write what somebody else wrote so that it stays in the sentence: no control characters, no end of its own."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split()).rstrip(".")
    return words if len(words) <= length else words[: length - 1] + "…"


def span(seconds: float) -> str:
    """Write a duration in its largest unit: ``3 min``; one below ten seconds with a decimal."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(ms: float) -> str:
    """Write a moment of the server's clock, in UTC."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{ms:.0f} ms since the epoch"
