"""What ``taskq cron`` reads of periodic entries, and how it shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from taskq.cli.common import apps_at, keys_of
from taskq.cli.tables import Cell, Column, age, moment, one_line
from taskq.errors import DecodeError

if TYPE_CHECKING:
    from taskq.broker.keys import Keys
    from taskq.broker.pool import Broker
    from taskq.periodic.entry import Entry

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


@dataclass(frozen=True)
class Stored:
    """An entry as the server keeps it.

    Attributes:
        app: The app it is of.
        name: Its name.
        raw: Its definition.
        due: When its next tick is due, in seconds since the epoch; None if it waits for none.
        state: What has become of it so far (see ``entry:<name>`` in ``taskq.broker.keys``).
    """

    app: str
    name: str
    raw: bytes
    due: float | None
    state: dict[bytes, bytes]

    @cached_property
    def entry(self) -> Entry | None:
        """The entry, or None if it cannot be read."""
        from taskq.periodic.entry import Entry

        try:
            return Entry.read(self.name, self.raw)
        except DecodeError:
            return None

    def number(self, field: bytes) -> int:
        """A number of its state; 0 if there is none."""
        return int(self.state.get(field, b"0"))

    @property
    def next(self) -> float | None:
        """The time of its next tick, in seconds since the epoch; None if nobody has worked it out."""
        return self.number(b"tick") / 1000 if self.due is not None and b"tick" in self.state else None

    @property
    def paused(self) -> str:
        """By whom, when and why it was paused; empty if it is not."""
        return self.state.get(b"paused", b"").decode("utf-8", "replace")


class Timetable:
    """The periodic entries of the apps on a server."""

    def __init__(self, broker: Broker, apps: tuple[str, ...]) -> None:
        """Look at those of ``apps``, or of every app there is."""
        from taskq.broker.commands import looking

        self.broker = broker
        self.apps = apps_at(broker, apps)
        self.now = broker.run(looking.server_time())

    def all(self) -> Iterator[Stored]:
        """Go through all entries, by app and name."""
        from taskq.broker import call
        from taskq.broker.commands import ticking

        for app in self.apps:
            keys = keys_of(app)
            due = self.broker.run(ticking.ticks_due(keys))
            for raw_name, raw in sorted(self.broker.run(call.whole_hash(keys, "periodic")).items()):
                name = raw_name.decode("ascii", "backslashreplace")
                state = self.broker.run(call.whole_hash(keys, f"entry:{name}"))
                yield Stored(app, name, raw, due.get(name), state)

    def find(self, name: str) -> Stored:
        """Return the entry of that name.

        Raises:
            ConfigError: There is none; the text has the nearest ones.
            UsageError: Several apps have one.
        """
        from taskq.cli.names import unknown

        every = list(self.all())
        found = [stored for stored in every if stored.name == name]
        if len(found) > 1:
            raise click.UsageError(f"{' and '.join(one.app for one in found)} have an entry {name}: say --name APP")
        if not found:
            raise unknown("periodic entry", name, self.broker.where, [stored.name for stored in every])
        return found[0]

    def change(self, app: str, verb: str, name: str, *more: Any) -> str:
        """Change an entry; answers what became of it (see ``entry.lua``)."""
        from taskq.broker.commands import ticking

        return self.broker.run(ticking.change_entry(keys_of(app), verb, name, *more))


def would_declare(broker: Broker, keys: Keys, source: str, entries: dict[str, bytes]) -> dict[str, str]:
    """Return what putting some code's entries in place would change, by their names (see ``declare.lua``)."""
    from taskq.broker import call

    stored = {name.decode(): raw for name, raw in broker.run(call.whole_hash(keys, "periodic")).items()}
    changes = {
        name: "replaced" if name in stored else "added" for name, raw in entries.items() if stored.get(name) != raw
    }
    declared = broker.run(call.whole_hash(keys, "declared"))
    mine = declared.pop(source.encode(), b"").decode().split()
    others = b" ".join(declared.values()).decode().split()
    for name in set(mine) - entries.keys() - set(others):
        if broker.run(call.whole_hash(keys, f"entry:{name}")).get(b"origin") == b"code":
            changes[name] = "removed"
    return changes


# -- how they look ---------------------------------------------------------------------------------------


def row(stored: Stored, now: float) -> tuple[Cell, ...]:
    """Write an entry as a row of `COLUMNS`; ``now`` is the server's time in seconds since the epoch."""
    entry, ago = stored.entry, stored.number(b"last") / 1000
    return (
        one_line(stored.name),
        one_line(stored.app),
        one_line(str(entry.schedule)) if entry else "(cannot be read)",
        one_line(getattr(entry.schedule, "zone", "-")) if entry else "-",
        one_line(entry.task) if entry else "-",
        "-" if stored.due is None else "now" if stored.due <= now else f"in {age(stored.due - now)}",
        f"{age(now - ago)} ago" if ago else "-",
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


def as_json_line(stored: Stored) -> str:
    """Write an entry as a line of JSON."""
    entry = stored.entry
    return json.dumps(
        {
            "name": stored.name,
            "app": stored.app,
            "schedule": str(entry.schedule) if entry else None,
            "zone": getattr(entry.schedule, "zone", None) if entry else None,
            "task": entry.task if entry else None,
            "queue": entry.queue if entry else None,
            "next": None if stored.next is None else moment(stored.next),
            "last": moment(stored.number(b"last") / 1000) if b"last" in stored.state else None,
            "last_id": stored.state.get(b"id", b"").decode() or None,
            "sent": stored.number(b"sent"),
            "skipped": stored.number(b"skipped"),
            "left_out": stored.number(b"left-out"),
            "full": stored.number(b"full"),
            "late_ms": stored.number(b"late") if b"late" in stored.state else None,
            "late_max_ms": stored.number(b"late-max") if b"late-max" in stored.state else None,
            "origin": stored.state.get(b"origin", b"").decode() or None,
            "paused": stored.paused or None,
        },
        ensure_ascii=False,
    )
