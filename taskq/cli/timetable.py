"""How ``taskq cron`` shows periodic entries."""

from __future__ import annotations

from typing import Any

from taskq.cli.tables import Cell, Column, age, moment, one_line
from taskq.views.timetable import Stored

COLUMNS = (
    Column("ENTRY"),
    Column("APP", spare=True),
    Column("SCHEDULE", whole=True),
    Column("ZONE", spare=True),
    Column("TASK", spare=True, like="ENTRY"),
    Column("NEXT", number=True),
    Column("LAST", number=True),
    Column("SENT", number=True),
    Column("STATE"),
)


def row(stored: Stored, now: float) -> tuple[Cell, ...]:
    """Write an entry as a row of `COLUMNS`; ``now`` is the server's time in seconds since the epoch."""
    entry = stored.entry
    return (
        one_line(stored.name),
        one_line(stored.app),
        one_line(str(entry.schedule)) if entry else "(cannot be read)",
        one_line(getattr(entry.schedule, "zone", "-")) if entry else "-",
        one_line(entry.task) if entry else "-",
        "-" if stored.due is None else "now" if stored.due <= now else f"in {age(stored.due - now)}",
        f"{age(now - stored.last)} ago" if stored.last else "-",
        stored.number(b"sent"),
        one_line(_state(stored)),
    )


def _state(stored: Stored) -> str:
    if stored.paused:
        return f"paused {stored.paused}"
    notes = []
    if b"late" in stored.state:
        notes = [f"{_ms(stored.number(b'late'))} late", f"at most {_ms(stored.number(b'late-max'))}"]
    notes += [f"{n:,} {what}" for what in ("skipped", "left-out", "full") if (n := stored.number(what.encode()))]
    return ", ".join([*(["ends"] if stored.due is None else []), *notes])


def _ms(ms: int) -> str:
    return f"{ms} ms" if ms < 10_000 else age(ms / 1000)


def document(stored: Stored) -> dict[str, Any]:
    """Return what JSON says of an entry."""
    entry = stored.entry
    return {
        "name": stored.name,
        "app": stored.app,
        "schedule": str(entry.schedule) if entry else None,
        "zone": getattr(entry.schedule, "zone", None) if entry else None,
        "task": entry.task if entry else None,
        "queue": entry.queue if entry else None,
        "next": None if stored.next is None else moment(stored.next),
        "last": None if stored.last is None else moment(stored.last),
        "last_id": stored.state.get(b"id", b"").decode() or None,
        "sent": stored.number(b"sent"),
        "skipped": stored.number(b"skipped"),
        "left_out": stored.number(b"left-out"),
        "full": stored.number(b"full"),
        "late_ms": stored.number(b"late") if b"late" in stored.state else None,
        "late_max_ms": stored.number(b"late-max") if b"late-max" in stored.state else None,
        "origin": stored.state.get(b"origin", b"").decode() or None,
        "paused": stored.paused or None,
    }
